/**
 * `MicroVms`: the virtual machines of sandboxes, from a kernel that is not there yet to containers that can be started in it. A
 * microVM outlives the actor that started it, as a container's process does: taproot owns its VMM, this service holds
 * the connection for as long as the brain lives, and what an earlier brain started is *found* again.
 *
 * A machine is: the guest's kernel and initramfs, a disk for each image, a virtio-serial port to its taproot, a console that is
 * logged. Nothing of it is shared with another but the images, which it can only read.
 *
 * Traps:
 * - A guest is a stranger. Whatever it does wrong ends its own machine: a broken protocol, silence, an end.
 * - Its disks are those of the images that are known when it is started.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { Cgroups } from "../../host/Cgroups.ts"
import { ofHost as files, textOf } from "../../host/SystemFiles.ts"
import { Content } from "../../storage/Content.ts"
import type { Digest } from "../../storage/Digest.ts"
import * as DiskRoom from "../../storage/DiskRoom.ts"
import * as ProcessLog from "../../storage/logs/ProcessLog.ts"
import { connect, portName } from "../../taproot/GuestPort.ts"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import { type Process, Processes } from "../../taproot/Processes.ts"
import * as ProcessesLive from "../../taproot/ProcessesLive.ts"
import { type GuestState, Hypervisor, HypervisorMissing } from "../../vmm/Hypervisor.ts"
import type { Machine } from "../../vmm/Machine.ts"
import { MicroVmFailed } from "../ContainerExit.ts"
import { Executions } from "../Executions.ts"
import type { ContainerRecord, SandboxRecord } from "../Records.ts"
import { type System, Systems } from "../System.ts"
import * as GuestImage from "./GuestImage.ts"
import { serialOf } from "./GuestRoots.ts"
import * as GuestSystem from "./GuestSystem.ts"

/** A microVM whose guest answers. */
export interface MicroVm {
  readonly process: Process
  readonly system: System
  /** The release of its guest's kernel, as the guest says. */
  readonly kernel: string
  /** Waits for its end: why. */
  readonly ended: Effect.Effect<string>
}

export class MicroVms extends Context.Service<
  MicroVms,
  {
    /** What this host has not that a microVM takes, with what to do; undefined when it has all. */
    readonly lacking: Effect.Effect<string | undefined>
    /** The one of a sandbox that is there, whoever started it. Connects to one that an earlier brain left. */
    readonly find: (sandbox: string) => Effect.Effect<Option.Option<MicroVm>>
    /** Starts one for these containers. Interrupted or failed, it leaves nothing. */
    readonly start: (
      sandbox: SandboxRecord,
      containers: ReadonlyArray<ContainerRecord>
    ) => Effect.Effect<MicroVm, MicroVmFailed>
    /** Ends the one of a sandbox, in order where it can be, and clears away all of it. Fine when there is none. */
    readonly stop: (sandbox: string) => Effect.Effect<void>
    /** Ends those of all but these sandboxes. */
    readonly reconcile: (sandboxes: ReadonlySet<string>) => Effect.Effect<void>
  }
>()("ironwood/runtime/microvm/MicroVms") {}

const PREFIX = "microvm/"
const SOCKET = "guest"

/** From the start of the VMM to a guest that answers; emulated on a busy host it is slow. */
const COMING_UP = Duration.minutes(2)
/** Of one that is up already. */
const ANSWERS = Duration.seconds(20)
/** Between two questions whether it is well; and how long the answer may take. */
const BETWEEN_LOOKS = Duration.seconds(5)
const SILENT = Duration.seconds(60)
/** For the guest to end what is in it and power off. */
const GRACE = Duration.seconds(5)
const UNKILLABLE = "20 seconds"
const LAST_WORDS = "2 seconds"

const MIB = 1024 * 1024
/** What the guest needs for itself. */
const BASE = 160 * MIB
const LEAST = 256 * MIB
/** What a VMM needs besides its guest's memory, emulation included. */
const OVERHEAD = 384 * MIB

/** Users of microVMs: each has its own, above all that distributions give away. */
const FIRST_USER = 1_800_000_000
const USERS = 1_000_000

/** What its containers may use together, where the sandbox does not say. */
const sizeOf = ({ spec }: SandboxRecord, containers: ReadonlyArray<ContainerRecord>) => {
  const limits = containers.map((record) => record.spec.resources)
  const memory = limits.reduce((sum, { memoryBytes = 128 * MIB }) => sum + memoryBytes, BASE)
  const cpus = limits.reduce((sum, { cpus = 1 }) => sum + cpus, 0)
  return {
    memoryBytes: spec.microvm.memoryBytes ?? Math.max(LEAST, memory),
    cpus: spec.microvm.cpus ?? Math.max(1, Math.min(8, Math.ceil(cpus)))
  }
}

const over: Partial<Record<GuestState, string>> = {
  "powered-off": "its guest powered off",
  panicked: "the kernel of its guest panicked",
  hung: "its guest hung"
}

interface Live extends MicroVm {
  readonly scope: Scope.Closeable
  /** From here on what is in it counts as gone: it is about to be ended. */
  readonly leave: Effect.Effect<void>
  /** Done when all that it has said is in its log. */
  readonly stored: Deferred.Deferred<void>
  /** Done when, after its end, nothing of it is left. */
  readonly cleared: Deferred.Deferred<void>
}

const make = Effect.gen(function* () {
  const processes = yield* Processes
  const hypervisor = yield* Hypervisor
  const content = yield* Content
  const cgroups = yield* Cgroups
  const systems = yield* Systems
  const executions = yield* Executions
  const scope = yield* Effect.scope
  const { paths } = systems
  const live = new Map<string, Live>()

  const directoryOf = (sandbox: string) => `${paths.microvms}/${sandbox}`
  const cgroupOf = (sandbox: string) => `${paths.cgroup}.microvms/${sandbox}`
  const userOf = (sandbox: string) =>
    FIRST_USER + (createHash("sha256").update(cgroupOf(sandbox)).digest().readUInt32LE(0) % USERS)

  /** What the console and the VMM say. */
  const log = (sandbox: string) =>
    ProcessLog.make(
      `${paths.microvms}/${sandbox}.log`,
      { maxBytes: MIB, maxFiles: 2 },
      DiskRoom.outputRoom(paths.microvms)
    )

  /** Ends what is left of one. `stored`: done when its last words are in its log. */
  const clear = Effect.fnUntraced(function* (sandbox: string, process: Process, stored?: Deferred.Deferred<void>) {
    yield* Effect.ignore(process.signal("SIGKILL", { group: true }))
    yield* Effect.timeoutOption(process.exit, UNKILLABLE)
    if (stored !== undefined) yield* Effect.timeoutOption(Deferred.await(stored), LAST_WORDS)
    yield* process.acknowledge
    yield* Effect.ignoreCause(cgroups.remove(cgroupOf(sandbox)), { log: "Warn" })
    yield* Effect.ignore(files.remove(directoryOf(sandbox)))
  })

  /** Looks after one whose VMM is there until its guest answers; what it is then goes on until its end. */
  const connected = Effect.fnUntraced(function* (
    sandbox: string,
    process: Process,
    patience: Duration.Duration
  ): Effect.fn.Return<Live, MicroVmFailed> {
    const failed = (detail: string) => new MicroVmFailed({ name: sandbox, detail })
    const own = yield* Scope.fork(scope)
    const inOwn = <A, E, R>(effect: Effect.Effect<A, E, R>) => Scope.provide(effect, own)
    const console = log(sandbox)
    yield* inOwn(Effect.addFinalizer(() => console.close))
    const stored = yield* inOwn(console.attach(process))
    const ended = yield* Deferred.make<string>()
    let isGone = false
    const end = (why: string) =>
      Effect.suspend(() => {
        isGone = true
        return Deferred.succeed(ended, why)
      })
    const exited = Effect.map(process.exit, (exit) => `its virtual machine monitor ${ProcessExit.describe(exit)}`)

    const reached = Effect.gen(function* () {
      const control = yield* Effect.mapError(inOwn(hypervisor.control(directoryOf(sandbox), process)), ({ message }) =>
        failed(message)
      )
      const events = yield* inOwn(control.events)
      const state = Effect.orElseSucceed(control.state, (): GuestState => "running")
      if ((yield* state) === "created") {
        yield* Effect.mapError(control.resume, ({ message }) => failed(message))
      }
      /** Waits until the guest has come to an end that its VMM has seen. */
      const isOver = Effect.flatMap(state, (now) => {
        const why = over[now]
        return why === undefined ? Effect.never : Effect.succeed(why)
      })
      const watched = Effect.raceFirst(
        isOver,
        Stream.runHead(
          events.pipe(
            Stream.mapEffect(() => state),
            Stream.map((now) => over[now]),
            Stream.filter((why) => why !== undefined)
          )
        ).pipe(Effect.flatMap((found) => (Option.isSome(found) ? Effect.succeed(found.value) : Effect.never)))
      )
      const socket = yield* inOwn(connect(`${directoryOf(sandbox)}/${SOCKET}`)).pipe(
        Effect.raceFirst(Effect.flatMap(Effect.raceFirst(exited, watched), (why) => Effect.fail(failed(why)))),
        Effect.timeoutOrElse({
          duration: patience,
          orElse: () => Effect.fail(failed(`its guest did not answer within ${Duration.format(patience)}`))
        })
      )
      const guest = yield* inOwn(
        ProcessesLive.make(socket, {
          onLoss: "refuse",
          lost: () => {
            isGone = true
          }
        })
      ).pipe(Effect.mapError(({ message }) => failed(message)))
      const gone = Effect.suspend(() => (isGone ? Effect.asSome(Deferred.await(ended)) : Effect.succeedNone))
      let isRenewed = false
      const renew = (container: string) =>
        Effect.suspend(() => {
          isRenewed = true
          // before anybody asks for it again
          return Effect.andThen(systems.expect(sandbox), end(`it is started anew, with the image of ${container}`))
        })
      const system = yield* inOwn(
        GuestSystem.make({ processes: guest, content, gone, renew, isRenewed: Effect.sync(() => isRenewed) })
      ).pipe(
        Effect.mapError(({ message }) => failed(message)),
        Effect.timeoutOrElse({
          duration: patience,
          orElse: () => Effect.fail(failed(`its guest was not ready within ${Duration.format(patience)}`))
        })
      )
      /** Asks whether it is well, for as long as it is. */
      const silent = Effect.timeoutOption(guest.status, SILENT).pipe(
        Effect.repeat({ while: Option.isSome, schedule: Schedule.spaced(BETWEEN_LOOKS) }),
        Effect.as(`its guest was silent for ${Duration.format(SILENT)}`),
        Effect.catchCause(() => Effect.never)
      )
      const lost = Effect.flatMap(guest.lost, ({ detail, reason }) =>
        // the VMM's end, which closes the port, says more
        Effect.delay(
          Effect.succeed(
            reason === "closed" ? "its guest could not be reached any more" : `its guest broke the protocol: ${detail}`
          ),
          "1 second"
        )
      )
      yield* Effect.raceAllFirst([exited, watched, lost, silent]).pipe(Effect.flatMap(end), Effect.forkIn(own))
      const release = yield* Effect.orElseSucceed(textOf(system.files, "/proc/sys/kernel/osrelease"), () => "")
      const kernel = release.trim().slice(0, 64)
      const cleared = yield* Deferred.make<void>()
      const leave = Effect.sync(() => {
        isGone = true
      })
      return { process, system, kernel, leave, stored, cleared, scope: own, ended: Deferred.await(ended) }
    })
    return yield* Effect.onError(reached, () => Scope.close(own, Exit.void))
  })

  /** Keeps one that is connected, and clears it away when it has ended. */
  const keep = (sandbox: string, found: Live) =>
    Effect.gen(function* () {
      live.set(sandbox, found)
      yield* executions.inherit(found.system)
      yield* systems.settle(sandbox, Exit.succeed(found.system))
      yield* found.ended.pipe(
        Effect.tap(() => systems.expect(sandbox)),
        Effect.andThen(
          Effect.gen(function* () {
            if (live.get(sandbox) === found) live.delete(sandbox)
            yield* clear(sandbox, found.process, found.stored)
            yield* Scope.close(found.scope, Exit.void)
            yield* Deferred.succeed(found.cleared, undefined)
          })
        ),
        Effect.forkIn(scope)
      )
      return found
    })

  const find: MicroVms["Service"]["find"] = (sandbox) =>
    Effect.gen(function* () {
      const known = live.get(sandbox)
      if (known !== undefined) return Option.some(known)
      let newest = Option.none<Process>()
      for (const process of yield* processes.takeAll(`${PREFIX}${sandbox}`)) {
        if (process.label !== `${PREFIX}${sandbox}`) continue
        if (Option.isSome(yield* process.exitNow) || Option.isSome(newest)) yield* clear(sandbox, process)
        else newest = Option.some(process)
      }
      if (Option.isNone(newest)) return Option.none()
      const process = newest.value
      return yield* connected(sandbox, process, ANSWERS).pipe(
        Effect.flatMap((found) => keep(sandbox, found)),
        Effect.asSome,
        // one that cannot be spoken to is of no use to anybody
        Effect.catch(({ message }) =>
          Effect.logWarning(message).pipe(Effect.andThen(clear(sandbox, process)), Effect.as(Option.none()))
        )
      )
    })

  /** The images that its containers have, each once. */
  const disksOf = Effect.fnUntraced(function* (name: string, containers: ReadonlyArray<ContainerRecord>) {
    const images = new Set(containers.flatMap(({ image }) => (image === undefined ? [] : [image])))
    const roots = yield* Effect.forEach(images, (image: Digest) =>
      Effect.mapError(content.rootImage(image), ({ message }) => new MicroVmFailed({ name, detail: message }))
    )
    const chains = new Map(roots.map((root) => [root.chainId, root]))
    return [...chains.values()].map(({ chainId, path }, index) => ({
      id: `image${index}`,
      file: path,
      format: "raw" as const,
      readOnly: true,
      serial: serialOf(chainId)
    }))
  })

  const start: MicroVms["Service"]["start"] = Effect.fnUntraced(function* (sandbox, containers) {
    const { name } = sandbox.spec
    const failed = (detail: string) => new MicroVmFailed({ name, detail })
    const image = GuestImage.find(processes.hello.taprootPid)
    if (typeof image === "string") return yield* failed(image)
    const { cpus, memoryBytes } = sizeOf(sandbox, containers)
    const machine: Machine = {
      name,
      chipset: "microvm",
      memoryBytes,
      cpus,
      boot: {
        _tag: "Kernel",
        kernel: image.kernel,
        initrd: image.initramfs,
        commandLine: "console=ttyS0 quiet panic=-1 reboot=t"
      },
      disks: yield* disksOf(name, containers),
      nics: [],
      ports: [{ name: portName, socket: SOCKET }],
      watchdog: false,
      balloon: false
    }
    const [refused] = hypervisor.refusals(machine)
    if (refused !== undefined) return yield* failed(`${refused.field}: ${refused.problem}`)
    yield* Effect.ignore(files.remove(directoryOf(name)))
    yield* Effect.ignore(files.makeDirectory(paths.microvms))
    return yield* Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const process = yield* hypervisor
          .launch({
            label: `${PREFIX}${name}`,
            machine,
            place: {
              directory: directoryOf(name),
              cgroup: cgroupOf(name),
              user: userOf(name),
              memoryBytes: memoryBytes + OVERHEAD
            }
          })
          .pipe(Effect.mapError(({ message }) => failed(message)))
        return yield* restore(connected(name, process, COMING_UP)).pipe(
          Effect.onError(() => clear(name, process)),
          Effect.flatMap((found) => keep(name, found))
        )
      })
    )
  })

  const stop: MicroVms["Service"]["stop"] = (sandbox) =>
    Effect.gen(function* () {
      const found = live.get(sandbox)
      if (found !== undefined) {
        yield* found.leave
        yield* found.system.processes.finish("power-off")
        const ended = yield* Effect.timeoutOption(found.ended, GRACE)
        if (Option.isNone(ended)) yield* Effect.ignore(found.process.signal("SIGKILL", { group: true }))
        yield* Deferred.await(found.cleared)
      }
      for (const process of yield* processes.takeAll(`${PREFIX}${sandbox}`)) {
        if (process.label === `${PREFIX}${sandbox}`) yield* clear(sandbox, process)
      }
      yield* Effect.ignore(files.remove(`${paths.microvms}/${sandbox}.log`))
    })

  const lacking = Effect.map(hypervisor.facts, ([driver]) => {
    const image = GuestImage.find(processes.hello.taprootPid)
    if (typeof image === "string") return image
    return driver === undefined || driver.problem !== undefined
      ? new HypervisorMissing({ detail: driver?.problem ?? "" }).message
      : undefined
  })

  return MicroVms.of({
    lacking,
    find,
    start,
    stop,
    reconcile: Effect.fnUntraced(function* (sandboxes) {
      for (const process of yield* processes.takeAll(PREFIX)) {
        const sandbox = process.label.slice(PREFIX.length)
        if (!sandboxes.has(sandbox)) yield* clear(sandbox, process)
      }
    })
  })
})

export const layer = Layer.effect(MicroVms, make)
