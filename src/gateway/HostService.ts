/** `ironwood.v1.HostService`: what the host is, which Ironwood runs on it, and the end of it. */
import * as Effect from "effect/Effect"
import { readFile } from "node:fs/promises"
import * as Proto from "../../proto/generated/ironwood/v1/host_pb.ts"
import { Host } from "../host/HostFacts.ts"
import * as LoadedKernel from "../host/LoadedKernel.ts"
import type { CgroupLayout, Hierarchy } from "../host/CgroupLayout.ts"
import { Cgroups } from "../host/Cgroups.ts"
import { Containers } from "../runtime/Containers.ts"
import { OciRuntime } from "../runtime/OciRuntime.ts"
import { Processes, type ShutdownAction } from "../taproot/Processes.ts"
import { Hypervisor, remedy } from "../vmm/Hypervisor.ts"
import { service, unary } from "./EffectGrpc.ts"
import { Instance } from "./Instance.ts"
import { invalid } from "./Request.ts"
import { unaryOnce } from "./RequestIds.ts"
import { timestamp, uint32, wireMillis } from "./Time.ts"

const cgroupLayouts = {
  none: Proto.CgroupLayout.UNSPECIFIED,
  v1: Proto.CgroupLayout.V1,
  hybrid: Proto.CgroupLayout.HYBRID,
  v2: Proto.CgroupLayout.V2
} as const satisfies Record<CgroupLayout["kind"], Proto.CgroupLayout>

const stopActions: Readonly<Record<Proto.StopAction, ShutdownAction>> = {
  [Proto.StopAction.UNSPECIFIED]: "end",
  [Proto.StopAction.POWER_OFF]: "power-off",
  [Proto.StopAction.RESTART]: "restart",
  [Proto.StopAction.HALT]: "halt",
  [Proto.StopAction.KEXEC]: "kexec"
}

/** The controllers of a hierarchy: of version 1 they are its mount options (and its name is none), of version 2 a file. */
const controllersOf = ({ controllers, mountPoint, version }: Hierarchy): Effect.Effect<ReadonlyArray<string>> =>
  version === 1
    ? Effect.succeed(controllers.filter((name) => !name.startsWith("name=")))
    : Effect.orElseSucceed(
        Effect.tryPromise(async () => (await readFile(`${mountPoint}/cgroup.controllers`, "utf8")).split(/\s+/)),
        () => []
      )

const cgroups = Effect.gen(function* () {
  const layout = yield* (yield* Cgroups).layout
  const controllers = (yield* Effect.forEach(layout.hierarchies, controllersOf)).flat().filter((name) => name !== "")
  return { cgroupLayout: cgroupLayouts[layout.kind], cgroupControllers: Array.from(new Set(controllers)).sort() }
})

/** The runtimes that are looked for, the one in use first. */
const ociRuntimes = Effect.gen(function* () {
  const { candidates } = yield* OciRuntime
  return (yield* candidates).map(({ adjustments, inUse, name, path, problem = "", version }) => ({
    name,
    path,
    version,
    works: problem === "",
    problem,
    inUse,
    adjustments: [...adjustments]
  }))
})

/** What makes virtual machines here. */
const hypervisors = Effect.gen(function* () {
  const found = yield* (yield* Hypervisor).facts
  const isOneWorking = found.some(({ problem }) => problem === undefined)
  return {
    hypervisors: found.map(({ acceleration, name, path, problem = "", version }) => ({
      name,
      path,
      version,
      works: problem === "",
      problem,
      accelerator: acceleration?.accelerator ?? "",
      acceleratorProblem: acceleration?.problem ?? ""
    })),
    hypervisorAdvice: isOneWorking ? "" : remedy()
  }
})

/** What sandboxes can have here. */
const sandboxIsolations = Effect.gen(function* () {
  const { isolations } = yield* Containers
  return (yield* isolations).map(({ name, problem = "" }) => ({ name, works: problem === "", problem }))
})

const getHostFacts = Effect.fn("HostService.getHostFacts")(function* () {
  const facts = yield* (yield* Host).facts
  return {
    facts: {
      hostname: facts.hostname,
      kernelRelease: facts.kernelRelease,
      bootId: facts.bootId,
      operatingSystem: facts.operatingSystem,
      bootTime: timestamp(facts.bootedAt),
      ...(yield* cgroups),
      ociRuntimes: yield* ociRuntimes,
      ...(yield* hypervisors),
      sandboxIsolations: yield* sandboxIsolations,
      cpu: {
        count: uint32(facts.processors),
        model: facts.processorModel,
        architecture: facts.architecture,
        loadAverages: [...facts.loadAverage]
      },
      memory: {
        totalBytes: BigInt(facts.memoryTotalBytes),
        availableBytes: BigInt(facts.memoryAvailableBytes)
      }
    }
  }
})

const getVersion = Effect.fn("HostService.getVersion")(function* () {
  const instance = yield* Instance
  const { hello } = yield* Processes
  return {
    version: instance.version,
    nodeVersion: process.versions.node,
    instance: hello.instance,
    brainStarts: uint32(hello.brainStarts),
    brainPid: process.pid,
    taprootPid: hello.taprootPid,
    stateDirectory: instance.stateDirectory,
    brainStartTime: timestamp(instance.startedAt),
    rescue: instance.rescue,
    brainUptime: wireMillis(process.uptime() * 1000)
  }
})

/** The service. One value remembers request ids for as long as it lives: make it once per brain. */
export const makeHostService = () => {
  const { method } = Proto.HostService
  return service(Proto.HostService, {
    getHostFacts: unary(method.getHostFacts, getHostFacts),
    getVersion: unary(method.getVersion, getVersion),
    stopHost: unaryOnce(
      method.stopHost,
      Effect.fn("HostService.stopHost")(function* ({ action }) {
        const instance = yield* Instance
        if (action !== Proto.StopAction.UNSPECIFIED && !instance.isMachine) {
          return yield* invalid(
            "action",
            "must be left out: this Ironwood is a process on a machine that is not its own"
          )
        }
        if (action === Proto.StopAction.KEXEC) yield* LoadedKernel.required
        yield* instance.stop(stopActions[action] ?? "end")
        return {}
      })
    )
  })
}
