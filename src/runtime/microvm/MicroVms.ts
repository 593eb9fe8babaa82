/**
 * `MicroVms`: the virtual machines of sandboxes, from a kernel that is not there yet to containers that can be started in it. A
 * microVM outlives the actor that started it, as a container's process does: taproot owns its VMM, this service holds
 * the connection for as long as the brain lives, and what an earlier brain started is *found* again.
 *
 * A machine is: the guest's kernel and initramfs, a disk for each image, a virtio-serial port to its taproot, a console that is
 * logged, where a size was asked for a disk for what the containers write, and directories of the host that they were given to write to.
 * Nothing of it is shared with another but the images, which it can only read, and such directories.
 *
 * Traps:
 * - A guest is a stranger. Whatever it does wrong ends its own machine: a broken protocol, silence, an end.
 * - Its disks are those of the images that are known when it is started, and a few empty ones for images that come later.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { Cgroups } from "../../host/Cgroups.ts"
import { ofHost as files } from "../../host/SystemFiles.ts"
import { Content } from "../../storage/Content.ts"
import type { Digest } from "../../storage/Digest.ts"
import * as DiskRoom from "../../storage/DiskRoom.ts"
import { Volumes } from "../../storage/Volumes.ts"
import * as ProcessLog from "../../storage/logs/ProcessLog.ts"
import { portName } from "../../taproot/GuestPort.ts"
import { type Process, Processes } from "../../taproot/Processes.ts"
import { Hypervisor, HypervisorMissing } from "../../vmm/Hypervisor.ts"
import type { Machine } from "../../vmm/Machine.ts"
import { MicroVmFailed } from "../ContainerExit.ts"
import { Executions } from "../Executions.ts"
import type { ContainerRecord, SandboxRecord } from "../Records.ts"
import { Secrets } from "../Secrets.ts"
import type { MicroVmSize } from "../SandboxSpec.ts"
import { Systems } from "../System.ts"
import * as Connection from "./Connection.ts"
import * as GuestImage from "./GuestImage.ts"
import * as GuestNetwork from "./GuestNetwork.ts"
import { imageDisk, volumeDisk } from "./GuestRoots.ts"
import type * as Refusals from "./Refusals.ts"
import * as SandboxDisks from "./SandboxDisks.ts"
import * as SharedDirectories from "./SharedDirectories.ts"

export class MicroVms extends Context.Service<
  MicroVms,
  {
    /** Why the containers of one can share no directory with this host; undefined: they can. */
    readonly sharesNothing: string | undefined
    /** What this host has not that a microVM of this size takes, with what to do. */
    readonly lacking: (size: MicroVmSize) => Effect.Effect<Refusals.Lacking>
    /** The one of a sandbox that is there, whoever started it. Connects to one that an earlier brain left. */
    readonly find: (sandbox: string) => Effect.Effect<Option.Option<Connection.MicroVm>>
    /** Starts one for these containers, whose VMM runs as `user`. Interrupted or failed, it leaves nothing. */
    readonly start: (
      sandbox: SandboxRecord,
      containers: ReadonlyArray<ContainerRecord>,
      user: number
    ) => Effect.Effect<Connection.MicroVm, MicroVmFailed>
    /** Ends the one of a sandbox, in order where it can be, and clears away all of it. Fine when there is none. */
    readonly stop: (sandbox: string) => Effect.Effect<void>
    /** Removes what outlives the machines of a sandbox, which has none: it is gone. */
    readonly erase: (sandbox: string) => Effect.Effect<void>
    /** Ends those of all but these sandboxes, and clears away what those have left whose VMM is gone. */
    readonly reconcile: (sandboxes: ReadonlySet<string>) => Effect.Effect<void>
    /** Removes what all of them share, once each has been stopped. */
    readonly forgetAll: Effect.Effect<void>
  }
>()("ironwood/runtime/microvm/MicroVms") {}

const PREFIX = "microvm/"
/** With a dot, which no sandbox can have in its name; what is called so stays as long as the sandbox. */
const LOG = ".log"

/** From the start of the VMM to a guest that answers; emulated on a busy host it is slow. */
const COMING_UP = Duration.minutes(2)
/** Of one that is up already. */
const ANSWERS = Duration.seconds(20)
/** For the guest to end what is in it and power off. */
const GRACE = Duration.seconds(5)
const UNKILLABLE = "20 seconds"
const LAST_WORDS = "2 seconds"

/** For images of containers that come to a machine which runs; with one more it is started anew. Each costs its boot 2 ms. */
const EMPTY_DISKS = 4

const MIB = 1024 * 1024
/** What the guest needs for itself. */
const BASE = 160 * MIB
const LEAST = 256 * MIB
/** What a VMM needs besides its guest's memory, emulation included. */
const OVERHEAD = 384 * MIB

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

const make = Effect.gen(function* () {
  const processes = yield* Processes
  const hypervisor = yield* Hypervisor
  const content = yield* Content
  const cgroups = yield* Cgroups
  const systems = yield* Systems
  const executions = yield* Executions
  const secrets = yield* Secrets
  const volumes = yield* Volumes
  const scope = yield* Effect.scope
  const { paths } = systems
  const live = new Map<string, Connection.Live>()
  const disks = SandboxDisks.make(processes, paths.microvms)
  const shares = SharedDirectories.make(processes, cgroups, systems.hostPaths)

  const logOf = (sandbox: string) => `${paths.microvms}/${sandbox}${LOG}`
  const directoryOf = (sandbox: string) => `${paths.microvms}/${sandbox}`
  /** Above those of their VMMs. */
  const cgroup = `${paths.cgroup}.microvms`
  const cgroupOf = (sandbox: string) => `${cgroup}/${sandbox}`
  const removeCgroup = (path: string) => Effect.ignoreCause(cgroups.remove(path), { log: "Warn" })

  /** What the console and the VMM say. */
  const log = (sandbox: string) =>
    ProcessLog.make(logOf(sandbox), { maxBytes: MIB, maxFiles: 2 }, DiskRoom.outputRoom(paths.microvms))

  /** Looks after one whose VMM is there until its guest answers; what it is then goes on until its end. */
  const connected = (
    sandbox: string,
    process: Process,
    servers: ReadonlyArray<Process>,
    patience: Duration.Duration,
    startedFor?: { readonly containers: ReadonlyArray<ContainerRecord>; readonly ownKernel: boolean }
  ) =>
    Connection.make({
      sandbox,
      process,
      servers,
      directory: directoryOf(sandbox),
      log: log(sandbox),
      patience,
      scope,
      hypervisor,
      content,
      hostPaths: systems.hostPaths,
      secrets,
      expected: systems.expect(sandbox),
      ...(startedFor === undefined
        ? {}
        : {
            containers: new Set(startedFor.containers.map(({ spec }) => spec.name)),
            advice: startedFor.ownKernel ? `; a kernel of one's own needs ${GuestImage.NEEDED}` : ""
          })
    })

  /** Clears away what one had whose VMM is gone, or never came. */
  const sweep = Effect.fnUntraced(function* (sandbox: string) {
    yield* shares.end(sandbox)
    yield* removeCgroup(cgroupOf(sandbox))
    yield* Effect.ignore(files.remove(directoryOf(sandbox)))
  })

  /** Ends what is left of one. `stored`: done when its last words are in its log. */
  const clear = Effect.fnUntraced(function* (sandbox: string, process: Process, stored?: Deferred.Deferred<void>) {
    yield* Effect.ignore(process.signal("SIGKILL", { group: true }))
    yield* Effect.timeoutOption(process.exit, UNKILLABLE)
    if (stored !== undefined) yield* Effect.timeoutOption(Deferred.await(stored), LAST_WORDS)
    yield* process.acknowledge
    yield* sweep(sandbox)
  })

  /** Keeps one that is connected, and clears it away when it has ended. */
  const keep = (sandbox: string, found: Connection.Live) =>
    Effect.gen(function* () {
      live.set(sandbox, found)
      yield* executions.inherit(found.system)
      yield* systems.settle(sandbox, Exit.succeed(found.system))
      yield* found.ended.pipe(
        Effect.tap(() => systems.expect(sandbox)),
        Effect.andThen(
          Effect.gen(function* () {
            yield* clear(sandbox, found.process, found.stored)
            if (live.get(sandbox) === found) live.delete(sandbox)
            yield* Scope.close(found.scope, Exit.void)
            yield* Deferred.succeed(found.cleared, undefined)
          })
        ),
        Effect.forkIn(scope)
      )
      return found
    })

  /** The one that this brain is connected to; one that has ended is waited for until nothing of it is left. */
  const known = Effect.fnUntraced(function* (sandbox: string) {
    const found = live.get(sandbox)
    if (found === undefined || Option.isNone(yield* found.system.gone)) return found
    yield* Deferred.await(found.cleared)
    return undefined
  })

  const find: MicroVms["Service"]["find"] = (sandbox) =>
    Effect.gen(function* () {
      const present = yield* known(sandbox)
      if (present !== undefined) return Option.some(present)
      let newest = Option.none<Process>()
      for (const process of yield* processes.takeAll(`${PREFIX}${sandbox}`)) {
        if (process.label !== `${PREFIX}${sandbox}`) continue
        if (Option.isSome(yield* process.exitNow) || Option.isSome(newest)) yield* clear(sandbox, process)
        else newest = Option.some(process)
      }
      if (Option.isNone(newest)) return Option.none()
      const process = newest.value
      return yield* connected(sandbox, process, yield* shares.of(sandbox), ANSWERS).pipe(
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
    return [...chains.values()].map(imageDisk)
  })

  /** The volumes that they have, each once. */
  const volumesOf = (name: string, containers: ReadonlyArray<ContainerRecord>) =>
    Effect.forEach(new Set(containers.flatMap(({ spec }) => spec.volumes.map((volume) => volume.name))), (volume) =>
      Effect.mapBoth(volumes.prepareDisk(volume), {
        onSuccess: (file) => volumeDisk(volume, file),
        onFailure: ({ message }) => new MicroVmFailed({ name, detail: `its volume ${volume}: ${message}` })
      })
    )

  const start: MicroVms["Service"]["start"] = Effect.fnUntraced(function* (sandbox, containers, user) {
    const { name } = sandbox.spec
    const failed = (detail: string) => new MicroVmFailed({ name, detail })
    yield* known(name)
    const image = GuestImage.find(processes.hello.taprootPid)
    if (typeof image === "string") return yield* failed(image)
    const { cpus, memoryBytes } = sizeOf(sandbox, containers)
    const { diskBytes, kernel } = sandbox.spec.microvm
    const problem = kernel === undefined ? undefined : yield* GuestImage.kernelProblem(kernel)
    if (problem !== undefined) return yield* failed(`its kernel: ${problem}`)
    const writable =
      diskBytes === undefined
        ? []
        : [
            {
              id: "writable",
              file: yield* disks.prepare(name, diskBytes),
              format: "raw" as const,
              readOnly: false,
              serial: SandboxDisks.SERIAL
            }
          ]
    const { userNetworks } = systems
    const hasNetwork = sandbox.spec.network === "user"
    if (hasNetwork) yield* Effect.mapError(userNetworks.whole(sandbox), ({ message }) => failed(message))
    const machine: Omit<Machine, "shares"> = {
      name,
      chipset: "microvm",
      memoryBytes,
      cpus,
      boot: {
        _tag: "Kernel",
        kernel: kernel ?? image.kernel,
        initrd: image.initramfs,
        // one that nobody here has tried shall say where it stands still
        commandLine: [...(kernel === undefined ? ["quiet"] : []), ...GuestImage.parameters].join(" ")
      },
      disks: [...(yield* disksOf(name, containers)), ...writable, ...(yield* volumesOf(name, containers))],
      emptyDisks: EMPTY_DISKS,
      nics: hasNetwork ? [GuestNetwork.nicOf(sandbox)] : [],
      ...(hasNetwork ? { network: { namespace: userNetworks.namespaceOf(name) } } : {}),
      ports: [{ name: portName, socket: Connection.SOCKET }],
      watchdog: false,
      balloon: false
    }
    const [refused] = yield* hypervisor.refusals({ ...machine, shares: SharedDirectories.planned(containers) })
    if (refused !== undefined) return yield* failed(`${refused.field}: ${refused.problem}`)
    const directory = directoryOf(name)
    yield* Effect.ignore(files.remove(directory))
    yield* Effect.ignore(files.makeDirectory(paths.microvms))
    const place = { directory, cgroup: cgroupOf(name), user, memoryBytes: memoryBytes + OVERHEAD }
    return yield* Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const process = yield* shares.start(name, containers, place).pipe(
          Effect.flatMap((served) =>
            Effect.mapError(
              hypervisor.launch({ label: `${PREFIX}${name}`, machine: { ...machine, shares: served }, place }),
              ({ message }) => failed(message)
            )
          ),
          Effect.onError(() => sweep(name))
        )
        const servers = yield* shares.of(name)
        return yield* restore(
          Effect.tap(
            connected(name, process, servers, COMING_UP, { containers, ownKernel: kernel !== undefined }),
            ({ kernel: release, system }) => (hasNetwork ? GuestNetwork.start(name, system, release) : Effect.void)
          )
        ).pipe(
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
      yield* Effect.ignore(files.remove(logOf(sandbox)))
    })

  const machineLacking = Effect.map(hypervisor.facts, (drivers) => {
    const image = GuestImage.find(processes.hello.taprootPid)
    if (typeof image === "string") return image
    const able = drivers.filter(({ capabilities }) => capabilities.ports)
    return able.some(({ problem }) => problem === undefined)
      ? undefined
      : new HypervisorMissing({ detail: able.map(({ problem }) => problem).join("; ") }).message
  })

  return MicroVms.of({
    sharesNothing: shares.lacking,
    lacking: ({ diskBytes, kernel }) =>
      Effect.all({
        kernel: kernel === undefined ? Effect.undefined : GuestImage.kernelProblem(kernel),
        machine: machineLacking,
        disk: diskBytes === undefined ? Effect.undefined : disks.lacking(diskBytes)
      }),
    find,
    start,
    stop,
    erase: disks.remove,
    forgetAll: removeCgroup(cgroup),
    reconcile: Effect.fnUntraced(function* (sandboxes) {
      const kept = new Set<string>()
      for (const process of yield* processes.takeAll(PREFIX)) {
        const sandbox = process.label.slice(PREFIX.length)
        if (sandboxes.has(sandbox)) kept.add(sandbox)
        else yield* clear(sandbox, process)
      }
      yield* shares.reconcile(kept)
      for (const sandbox of yield* cgroups.children(cgroup)) {
        if (!kept.has(sandbox)) yield* removeCgroup(cgroupOf(sandbox))
      }
      for (const { name } of yield* Effect.orElseSucceed(files.list(paths.microvms), () => [])) {
        const [sandbox = "", ...rest] = name.split(".")
        const keeps = rest.length > 0 ? sandboxes.has(sandbox) : kept.has(sandbox)
        if (!keeps) yield* Effect.ignore(files.remove(`${paths.microvms}/${name}`))
      }
    })
  })
})

export const layer = Layer.effect(MicroVms, make)
