/**
 * A gateway on a real unix socket in a real tree. The tree's other actors are probes that crash when told; the domain
 * services behind the gateway keep containers and images in memory and record what they are asked.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as ActorPath from "../../src/actor/ActorPath.ts"
import type { ChildSpec } from "../../src/actor/ChildSpec.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { effective } from "../../src/config/Effective.ts"
import { empty } from "../../src/config/MachineConfig.ts"
import { MachineConfigs } from "../../src/config/MachineConfigs.ts"
import { gateway } from "../../src/gateway/Gateway.ts"
import { Instance } from "../../src/gateway/Instance.ts"
import { Host } from "../../src/host/HostFacts.ts"
import * as MachineState from "../../src/host/MachineState.ts"
import { constant } from "../../src/host/Setting.ts"
import { Upgrades } from "../../src/upgrade/Upgrades.ts"
import type { CgroupLayout } from "../../src/host/CgroupLayout.ts"
import { Cgroups } from "../../src/host/Cgroups.ts"
import { ContainerAlreadyExists, ContainerNotFound, SandboxNotFound } from "../../src/runtime/ContainerError.ts"
import { ContainerSpec } from "../../src/runtime/ContainerSpec.ts"
import { Containers } from "../../src/runtime/Containers.ts"
import type { Container, Sandbox, SandboxIsolation } from "../../src/runtime/Containers.ts"
import type { Beneath } from "../../src/runtime/ProcessesBeneath.ts"
import type { LogOptions } from "../../src/storage/logs/LogRetention.ts"
import { OciRuntime } from "../../src/runtime/OciRuntime.ts"
import { Hypervisor } from "../../src/vmm/Hypervisor.ts"
import { VmNotFound } from "../../src/vmm/VmError.ts"
import { VmSpec } from "../../src/vmm/VmSpec.ts"
import { type Vm, Vms } from "../../src/vmm/Vms.ts"
import { VmMoves, VmRestores, VmSnapshots } from "../../src/vmm/VmSnapshots.ts"
import { VolumeNotFound, Volumes } from "../../src/storage/Volumes.ts"
import { SandboxSpec } from "../../src/runtime/SandboxSpec.ts"
import { Content } from "../../src/storage/Content.ts"
import type { ImageRecord } from "../../src/storage/Content.ts"
import { ImageNotFound, SourceInvalid } from "../../src/storage/ContentError.ts"
import { isDigest } from "../../src/storage/Digest.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { Probes } from "../actor/Probe.ts"
import { connect } from "./client.ts"

const digestOf = (digit: string) => {
  const digest = `sha256:${digit.repeat(64)}`
  if (isDigest(digest)) return digest
  throw new TypeError(`${digest} is no digest`)
}

const containerOf = (spec: ContainerSpec): Container => ({
  name: spec.name,
  uid: `uid-${spec.name}`,
  generation: 1,
  createdAt: 1_000,
  updatedAt: 1_000,
  spec,
  sandbox: spec.sandbox ?? spec.name,
  ports: [],
  image: digestOf("a"),
  path: ActorPath.child(ActorPath.root("init"), spec.name),
  desired: "running",
  state: "running",
  pid: 42,
  ready: undefined,
  incarnation: 1,
  restarts: 0,
  consecutiveFailures: 0,
  startedAt: 2_000,
  lastExit: undefined,
  nextAttemptAt: undefined,
  node: undefined
})

const sandboxOf = (spec: SandboxSpec): Sandbox => ({
  name: spec.name,
  uid: `uid-${spec.name}`,
  generation: 1,
  createdAt: 1_000,
  updatedAt: 1_000,
  spec,
  implicit: false,
  firstUser: undefined,
  ports: [],
  path: ActorPath.child(ActorPath.root("init"), spec.name),
  containers: [],
  node: undefined
})

const vmOf = (spec: VmSpec): Vm => ({
  name: spec.name,
  uid: `uid-${spec.name}`,
  generation: 1,
  createdAt: 1_000,
  spec,
  path: ActorPath.child(ActorPath.root("init"), spec.name),
  desired: "running",
  state: "running",
  pid: 42,
  since: 2_000,
  hypervisor: "qemu",
  incarnation: 1,
  restarts: 0,
  reboots: 0,
  consecutiveFailures: 0,
  startedAt: 2_000,
  lastExit: undefined,
  nextAttemptAt: undefined,
  node: undefined
})

/** An image that is there, and one that an import brings. */
const imageOf = (digit: string, name: string): ImageRecord => ({
  digest: digestOf(digit),
  configDigest: digestOf("c"),
  platform: { architecture: "amd64", os: "linux" },
  config: {
    entrypoint: ["/bin/app"],
    cmd: [],
    env: ["A=1"],
    user: "",
    workingDir: "/",
    stopSignal: "SIGINT",
    volumes: [],
    exposedPorts: ["80/tcp"],
    labels: { made: "here" }
  },
  layers: [{ digest: digestOf("d"), mediaType: "tar", size: 10, diffId: digestOf("e"), chainId: digestOf("f") }],
  size: 100,
  created: "2026-01-02T03:04:05Z",
  digests: [],
  references: [name],
  importedAt: 3_000
})

const isolations: ReadonlyArray<SandboxIsolation> = [
  { name: "private users", problem: "no id-mapped mounts" },
  { name: "microvm", problem: undefined }
]

/** What the domain services hold and were asked. */
export class Domain {
  readonly containers = new Map<string, Container>()
  readonly sandboxes = new Map<string, Sandbox>()
  readonly images = new Map([["hello:latest", imageOf("1", "hello:latest")]])
  readonly asked: Array<string> = []
  /** What runs beneath containers, by their paths. */
  readonly beneath = new Map<string, Beneath>()
  stops = 0
  readersOfLogs = 0

  readonly #get = (name: string) =>
    Effect.fromOption(Option.fromUndefinedOr(this.containers.get(name))).pipe(
      Effect.mapError(() => new ContainerNotFound({ name }))
    )
  readonly #change = (name: string, command: string, change: Partial<Container>) =>
    Effect.map(this.#get(name), (container) => {
      this.asked.push(`${command} ${name}`)
      const changed = { ...container, ...change }
      this.containers.set(name, changed)
      return changed
    })

  readonly layer = Layer.mergeAll(
    Layer.mock(Containers, {
      processes: (actors, which) =>
        Effect.sync(() => {
          this.asked.push(`processes of ${which}`)
          return new Map(actors.flatMap(({ path }) => [...this.beneath].filter(([above]) => above === path)))
        }),
      create: (spec, options) =>
        Effect.gen({ self: this }, function* () {
          if (!this.images.has(spec.image)) return yield* new ImageNotFound({ reference: spec.image })
          if (this.containers.has(spec.name)) {
            return yield* new ContainerAlreadyExists({ name: spec.name, fields: ["image"] })
          }
          this.asked.push(`create ${spec.name} start=${options?.start} wait=${options?.wait}`)
          const container = containerOf(spec)
          this.containers.set(spec.name, container)
          return container
        }),
      validate: (spec) =>
        Effect.gen({ self: this }, function* () {
          if (!this.images.has(spec.image)) return yield* new ImageNotFound({ reference: spec.image })
          return Option.fromUndefinedOr(this.containers.get(spec.name))
        }),
      unresolved: () => Effect.succeed([]),
      isolations: Effect.succeed(isolations),
      list: Effect.sync(() => Array.from(this.containers.values())),
      get: (name) => this.#get(name),
      start: (name) => this.#change(name, "start", { state: "running" }),
      stop: (name, { gracePeriod, signal } = {}) =>
        this.#change(name, ["stop", gracePeriod && Duration.toMillis(gracePeriod), signal].join(" ").trimEnd(), {
          state: "stopped",
          desired: "stopped"
        }),
      restart: (name) => this.#change(name, "restart", { state: "running" }),
      kill: (name, signal) => this.#change(name, `kill ${signal}`, {}),
      remove: (name, options) =>
        Effect.map(this.#get(name), () => {
          this.asked.push(`remove ${name} force=${options?.force}`)
          this.containers.delete(name)
        }),
      setPolicy: (name, policy) =>
        Effect.flatMap(this.#get(name), ({ spec }) =>
          this.#change(name, "setPolicy", { spec: new ContainerSpec(Object.assign({}, spec, { restart: policy })) })
        ),
      logs: (name, options) => this.#logs(name, options),
      createSandbox: (spec) =>
        Effect.sync(() => {
          const sandbox = sandboxOf(spec)
          this.sandboxes.set(spec.name, sandbox)
          return sandbox
        }),
      validateSandbox: (spec) => Effect.sync(() => Option.fromUndefinedOr(this.sandboxes.get(spec.name))),
      listSandboxes: Effect.sync(() => Array.from(this.sandboxes.values())),
      getSandbox: (name) =>
        Effect.fromOption(Option.fromUndefinedOr(this.sandboxes.get(name))).pipe(
          Effect.mapError(() => new SandboxNotFound({ name }))
        ),
      startSandbox: (name) => Effect.sync(() => this.#ofSandbox(name, "start")),
      stopSandbox: (name) => Effect.sync(() => this.#ofSandbox(name, "stop")),
      removeSandbox: (name) => Effect.sync(() => void this.sandboxes.delete(name))
    }),
    Layer.mock(Content, {
      importFrom: (path, options) =>
        Effect.gen({ self: this }, function* () {
          if (path === "/truncated.tar") return yield* new SourceInvalid({ path, problem: "it ends in the middle" })
          const image = { ...imageOf("2", options?.name ?? "imported:latest"), unchanged: false }
          const step = {
            image: "imported:latest",
            layersDone: 1,
            layersTotal: 1,
            bytesDone: 10,
            bytesTotal: 10,
            layers: []
          }
          yield* options?.onProgress?.({ ...step, step: "layers" }) ?? Effect.void
          yield* options?.onProgress?.({ ...step, step: "done" }) ?? Effect.void
          if (options?.dryRun === true) return [image]
          this.images.set("imported:latest", image)
          return [image]
        }),
      list: Effect.sync(() => Array.from(this.images.values())),
      get: (reference) =>
        Effect.fromOption(Option.fromUndefinedOr(this.images.get(reference))).pipe(
          Effect.mapError(() => new ImageNotFound({ reference }))
        ),
      tag: (reference, name) =>
        Effect.sync(() => {
          const image = { ...imageOf("1", reference), references: [reference, name] }
          this.images.set(name, image)
          return image
        }),
      remove: (reference) =>
        Effect.sync(() => {
          this.images.delete(reference)
          return { references: [reference], removed: undefined, freedBytes: 0 }
        })
    }),
    Host.layer,
    Layer.mock(MachineConfigs, {
      parts: () => effective(empty, undefined),
      setting: (part) => constant(effective(empty, undefined)[part])
    }),
    MachineState.none,
    Layer.mock(Upgrades, {}),
    Layer.mock(Cgroups, {
      layout: Effect.succeed<CgroupLayout>({
        kind: "v1",
        hierarchies: [{ version: 1, mountPoint: "/sys/fs/cgroup/memory", controllers: ["memory", "name=x"] }]
      })
    }),
    Layer.mock(Hypervisor, { facts: Effect.succeed([]), refusals: () => Effect.succeed([]) }),
    Layer.mock(Volumes, {
      list: Effect.succeed([]),
      get: (name) => new VolumeNotFound({ name }),
      holding: () => identity,
      diskOf: identity
    }),
    Layer.mock(Vms, {
      list: Effect.succeed([]),
      get: (name) => new VmNotFound({ name }),
      start: (name) => Effect.sync(() => this.#ofVm(name, "start")),
      stop: (name) => Effect.sync(() => this.#ofVm(name, "stop")),
      setPolicy: (name) => Effect.sync(() => this.#ofVm(name, "setPolicy"))
    }),
    Layer.mock(VmSnapshots, { list: () => Effect.succeed([]) }),
    Layer.mock(VmRestores, {}),
    Layer.mock(VmMoves, {}),
    Layer.mock(OciRuntime, {
      candidates: Effect.succeed([
        { name: "crun", version: "", path: "", problem: "not installed", inUse: false, adjustments: [] }
      ])
    }),
    Layer.mock(Processes, {
      hello: {
        instance: "0123456789abcdef",
        taprootPid: 7,
        role: "parent",
        brainStarts: 2,
        lastBrainEnd: { how: "none", value: 0, time: 0n },
        features: ["module", "watchdog", "successor"],
        succession: { state: "none", fault: "none", end: { how: "none", value: 0, time: 0n } }
      }
    }),
    Layer.succeed(
      Instance,
      Instance.of({
        version: "1.2.3",
        stateDirectory: "/state",
        startedAt: 4_000,
        isMachine: false,
        rescue: "",
        stop: () => Effect.sync(() => void (this.stops += 1))
      })
    )
  )

  #ofSandbox(name: string, command: string): Sandbox {
    this.asked.push(`${command} sandbox ${name}`)
    return sandboxOf(Schema.decodeSync(SandboxSpec)({ name }))
  }

  #ofVm(name: string, command: string): Vm {
    this.asked.push(`${command} vm ${name}`)
    return vmOf(Schema.decodeSync(VmSpec)({ name }))
  }

  #logs(name: string, options: LogOptions | undefined) {
    const lines = Array.from({ length: options?.tail ?? 1_000 }, (_, index) => ({
      time: BigInt(index) * 1_000_000n,
      stream: index % 2 === 0 ? ("stdout" as const) : ("stderr" as const),
      complete: true,
      content: Buffer.from(`line ${index}`)
    }))
    const entries = Stream.fromIterable(lines.filter(({ stream }) => options?.streams?.includes(stream) ?? true))
    const all = options?.follow === true ? Stream.concat(entries, Stream.never) : entries
    return Stream.unwrap(
      Effect.gen({ self: this }, function* () {
        yield* this.#get(name)
        yield* Effect.acquireRelease(
          Effect.sync(() => void (this.readersOfLogs += 1)),
          () => Effect.sync(() => void (this.readersOfLogs -= 1))
        )
        return all
      })
    )
  }
}

/** A directory for a socket. */
export const socketDirectory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-gateway-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

/**
 * `init` with `storage` (state, content), `runtime` (flaky, with a budget and slow back-off) and `gateway`, and a client
 * of it. All of it ends with the scope.
 */
export const start = Effect.fnUntraced(function* (
  given: {
    readonly socketPath?: string
    readonly containers?: ReadonlyArray<string>
    /** More children of `runtime`. */
    readonly children?: ReadonlyArray<ChildSpec<unknown, never>>
  } = {}
) {
  const socketPath = given.socketPath ?? join(yield* socketDirectory, "api.sock")
  const domain = new Domain()
  const probes = new Probes()
  const parked = RestartPolicy.make({
    backoff: { initial: 0, jitter: 0 },
    budget: { restarts: 3, within: "1 hour" },
    whenSpent: "park"
  })
  const spec = Supervisor.make("init", {
    children: [
      Supervisor.make("storage", { children: [probes.make("state"), probes.make("content")] }),
      Supervisor.make("vmm", { children: [] }),
      Supervisor.make("runtime", {
        children: [
          probes.make("flaky", { policy: parked, kind: "probe", description: "fails when told" }),
          ...(given.containers ?? []).map((name) => probes.make(name, { kind: "container" })),
          ...(given.children ?? [])
        ]
      }),
      yield* gateway({ socketPath, grace: "200 millis" })
    ]
  })
  const root = yield* Effect.provide(Root.start(spec), domain.layer)
  const address = `unix:${socketPath}`
  return { address, client: yield* connect(address), domain, probes, root, socketPath, tree: root.tree }
})
