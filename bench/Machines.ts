/**
 * Ironwood's virtual machines under measurement, by the API of an instance: the sandbox of a container that says a word, made with
 * the calls that `ironwood run --rm --isolation microvm` makes, and a machine that is killed, paused and resumed.
 *
 * Trap: a console has all that every run of its machine has said, so words are counted.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { kill } from "node:process"
import { ContainerService } from "../proto/generated/ironwood/v1/container_pb.ts"
import { HostService } from "../proto/generated/ironwood/v1/host_pb.ts"
import { RestartType } from "../proto/generated/ironwood/v1/policy_pb.ts"
import { IsolationMode, SandboxService } from "../proto/generated/ironwood/v1/sandbox_pb.ts"
import { VmChipset, VmService } from "../proto/generated/ironwood/v1/vm_pb.ts"
import type { Accelerator } from "../scripts/boot/Qemu.ts"
import type { Connection } from "../src/cli/Client.ts"
import { commandLine, kernel, size, word } from "./HandMade.ts"
import { timed } from "./Measure.ts"

const memoryBytes = BigInt(size.memoryMiB * 1024 * 1024)

/** What runs the guests of an instance. */
export const acceleratorOf = async (connection: Connection): Promise<Accelerator> => {
  const { facts } = await Effect.runPromise(connection.call(HostService.method.getHostFacts, {}))
  return facts?.hypervisors[0]?.accelerator === "kvm" ? "kvm" : "tcg"
}

/** Milliseconds from the first call to the first byte that the container's output stream gives; then removes it. */
export const sandboxed = async (connection: Connection, name: string): Promise<number> => {
  const spec = {
    name,
    image: "hello:latest",
    entrypoint: ["/bin/busybox", "echo", word],
    restart: { restart: RestartType.TEMPORARY }
  }
  const sandbox = { name, isolation: IsolationMode.MICROVM, microvm: { memoryBytes, cpus: size.cpus } }
  const first = Effect.gen(function* () {
    yield* connection.call(ContainerService.method.createContainer, { spec, validateOnly: true })
    yield* connection.call(SandboxService.method.createSandbox, { spec: sandbox })
    yield* connection.call(
      ContainerService.method.createContainer,
      { spec: { ...spec, sandbox: name } },
      { timeout: "3 minutes" }
    )
    const entry = yield* connection.stream(ContainerService.method.streamContainerLogs, { name, follow: true }).pipe(
      Stream.filter(({ entries }) => entries.length > 0),
      Stream.runHead
    )
    if (Option.isNone(entry)) return yield* Effect.die(new Error(`${name} said nothing`))
  })
  const took = await timed(() => Effect.runPromise(first))
  await Effect.runPromise(
    connection.call(SandboxService.method.removeSandbox, { name, force: true }, { timeout: "1 minute" })
  )
  return took
}

/** Makes microVMs with a container that runs each, so many, one after the other; the effect removes them. */
export const inhabited = async (connection: Connection, names: ReadonlyArray<string>): Promise<() => Promise<void>> => {
  for (const name of names) {
    const sandbox = { name, isolation: IsolationMode.MICROVM, microvm: { memoryBytes, cpus: 1 } }
    await Effect.runPromise(connection.call(SandboxService.method.createSandbox, { spec: sandbox }))
    const spec = { name, sandbox: name, image: "hello:latest", entrypoint: ["/bin/busybox", "sleep", "100000"] }
    await Effect.runPromise(
      connection.call(ContainerService.method.createContainer, { spec }, { timeout: "5 minutes" })
    )
  }
  return async () => {
    for (const name of names) {
      await Effect.runPromise(
        connection.call(SandboxService.method.removeSandbox, { name, force: true }, { timeout: "1 minute" })
      )
    }
  }
}

const patience = { timeout: "1 minute" } as const

const millis = (duration: { readonly seconds: bigint; readonly nanos: number } | undefined): number =>
  duration === undefined ? Number.NaN : Number(duration.seconds) * 1000 + duration.nanos / 1e6

export interface Machine {
  /** Milliseconds from the kill of its QEMU to the next word of its guest. */
  readonly killed: () => Promise<number>
  readonly pause: () => Promise<void>
  readonly resume: () => Promise<void>
  /** Milliseconds that its guest stood still while a snapshot was taken; there is one of this name afterwards. */
  readonly saved: (snapshot: string) => Promise<number>
  /** Milliseconds from the call for a start, or for a restore of this snapshot, to its guest's next word; it is down before. */
  readonly started: (snapshot?: string) => Promise<number>
  /** Milliseconds that its guest stood still while it went to another process. */
  readonly moved: () => Promise<number>
  readonly remove: () => Promise<void>
}

/** Makes one that boots the floor and comes back without back-off; resolves at its first word. */
export const machine = async (connection: Connection, name: string, floor: string): Promise<Machine> => {
  const spec = {
    name,
    chipset: VmChipset.MICROVM,
    memoryBytes,
    cpus: size.cpus,
    kernel,
    initrd: floor,
    commandLine,
    restart: { backoff: { initial: { seconds: 0n, nanos: 0 }, jitter: 0 } }
  }
  await Effect.runPromise(connection.call(VmService.method.createVm, { spec }, { timeout: "1 minute" }))

  let said = ""
  let words = 0
  const waiting = new Set<() => void>()
  const start = { request: { case: "start", value: { name, follow: true } } } as const
  const listening = Effect.runFork(
    connection
      .exchange(VmService.method.streamVmConsole, Stream.concat(Stream.make<[typeof start]>(start), Stream.never))
      .pipe(
        Stream.runForEach(({ output }) =>
          Effect.sync(() => {
            said += Buffer.from(output).toString("latin1")
            words = said.split(word).length - 1
            for (const wake of waiting) wake()
          })
        )
      )
  )
  const spoken = (times: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${name} did not say its word in time:\n${said}`)), 120_000)
      const wake = () => {
        if (words < times) return
        clearTimeout(timer)
        waiting.delete(wake)
        resolve()
      }
      waiting.add(wake)
      wake()
    })
  await spoken(1)

  const saved = async (snapshot: string): Promise<number> => {
    const found = await Effect.runPromise(connection.call(VmService.method.listVmSnapshots, { vm: name }))
    for (const { name: one } of found.snapshots) {
      if (one === snapshot) {
        await Effect.runPromise(connection.call(VmService.method.removeVmSnapshot, { vm: name, name: one }))
      }
    }
    const taken = await Effect.runPromise(
      connection.call(VmService.method.createVmSnapshot, { vm: name, name: snapshot }, patience)
    )
    return millis(taken.snapshot?.stoodStill)
  }

  return {
    saved,
    started: async (snapshot) => {
      const grace = { seconds: 0n, nanos: 0 }
      await Effect.runPromise(connection.call(VmService.method.stopVm, { name, gracePeriod: grace }, patience))
      // the last that it has said is on its way
      await new Promise((resolve) => setTimeout(resolve, 200))
      const next = spoken(words + 1)
      return timed(async () => {
        await (snapshot === undefined
          ? Effect.runPromise(Effect.asVoid(connection.call(VmService.method.startVm, { name }, patience)))
          : Effect.runPromise(Effect.asVoid(connection.call(VmService.method.restoreVm, { name, snapshot }, patience))))
        await next
      })
    },
    moved: async () => {
      const { stoodStill } = await Effect.runPromise(connection.call(VmService.method.migrateVm, { name }, patience))
      return millis(stoodStill)
    },
    killed: async () => {
      const { vm } = await Effect.runPromise(connection.call(VmService.method.getVm, { name }))
      const pid = vm?.status?.pid
      if (pid === undefined) throw new Error(`${name} does not run`)
      const next = spoken(words + 1)
      return timed(() => {
        kill(pid, "SIGKILL")
        return next
      })
    },
    pause: () => Effect.runPromise(Effect.asVoid(connection.call(VmService.method.pauseVm, { name }))),
    resume: () => Effect.runPromise(Effect.asVoid(connection.call(VmService.method.resumeVm, { name }))),
    remove: async () => {
      await Effect.runPromise(Fiber.interrupt(listening))
      await Effect.runPromise(
        connection.call(VmService.method.removeVm, { name, force: true }, { timeout: "1 minute" })
      )
    }
  }
}
