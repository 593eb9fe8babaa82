/**
 * A system that containers run on: this host, or the guest of a sandbox's microVM. All that starting, looking after and
 * ending a container takes of it is here, so the code that does it is the same for both: where a container runs is a
 * parameter.
 *
 * `Systems` knows which one a sandbox has. That of the host is always there; that of a microVM comes and goes with it, and
 * whoever keeps it says so (`MicroVm.ts`).
 *
 * Traps: paths, pids and processes are those of the system: a pid of a guest means nothing here. What is asked of a system that
 * is gone is refused or fails, and its processes count as killed; `gone` tells that this is why.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { Cgroups } from "../host/Cgroups.ts"
import { ofHost as filesOfHost, type SystemFiles } from "../host/SystemFiles.ts"
import type { ImageNotFound } from "../storage/ContentError.ts"
import type { Digest } from "../storage/Digest.ts"
import { Rootfs } from "../storage/Rootfs.ts"
import { helperPath } from "../taproot/Helper.ts"
import { type Process, Processes } from "../taproot/Processes.ts"
import * as Belongings from "./Belongings.ts"
import * as Capabilities from "./Capabilities.ts"
import { CleanupFailed } from "./ContainerError.ts"
import { MicroVmFailed, RootfsFailed } from "./ContainerExit.ts"
import * as HostPaths from "./HostPaths.ts"
import { Allowance } from "./Isolation.ts"
import * as MountPoints from "./MountPoints.ts"
import * as NameFiles from "./NameFiles.ts"
import { OciRuntime } from "./OciRuntime.ts"
import * as ProcessLimits from "./ProcessLimits.ts"
import type { SandboxRecord } from "./Records.ts"
import { readFileInRoot, type RootedFileRefused } from "./RootedFile.ts"
import * as RuntimePaths from "./RuntimePaths.ts"
import * as PidNamespaces from "./PidNamespaces.ts"
import { Secrets } from "./Secrets.ts"
import * as SandboxNamespaces from "./SandboxNamespaces.ts"
import * as Stages from "./Stages.ts"
import * as UserNamespaces from "./UserNamespaces.ts"
import * as UserNetworks from "./UserNetworks.ts"
import type { UserNamespace } from "../taproot/IdMap.ts"
import * as VolumeMounts from "./VolumeMounts.ts"
import { Volumes } from "../storage/Volumes.ts"

/** Reads a file as who lives in `root` sees it; none when it is not there. */
export type ReadInRoot = (
  root: string,
  path: string,
  maximumBytes: number
) => Effect.Effect<Option.Option<Uint8Array>, RootedFileRefused>

export interface System {
  readonly processes: Processes["Service"]
  readonly files: SystemFiles
  readonly readInRoot: ReadInRoot
  readonly cgroups: Cgroups["Service"]
  readonly runtime: OciRuntime["Service"]
  readonly paths: Pick<RuntimePaths.RuntimePaths, "oci" | "bundles" | "cgroup">
  /** Where it has a program that comes with taproot. */
  readonly helper: (name: "enter" | "init") => string
  /** Those that it has to give. */
  readonly capabilities: ReadonlyArray<Capabilities.Capability>
  readonly limitSwap: boolean
  readonly processLimits: ProcessLimits.ProcessLimits
  /**
   * The root file system of a container, mounted; left as it is when it is there. `path` is for the OCI runtime, `seen` for whoever
   * reads files in it. `identity` tells it from others that have had its name. `users`: the user namespace whose root it belongs
   * to; undefined: that of the system.
   */
  readonly root: (
    image: Digest,
    container: string,
    identity: string,
    users?: UserNamespace
  ) => Effect.Effect<{ readonly path: string; readonly seen: string }, RootfsFailed | ImageNotFound>
  /** Forgets what a container has written. Fine when there is nothing. */
  readonly releaseRoot: (container: string) => Effect.Effect<void, CleanupFailed>
  /** Runs `start` with what the containers of the sandbox share. */
  readonly within: <E, R>(
    sandbox: SandboxRecord,
    container: string,
    start: (surroundings: SandboxNamespaces.Surroundings) => Effect.Effect<Process, E, R>
  ) => Effect.Effect<Process, E | PidNamespaces.PidNamespaceFailure, R>
  /** What runs have beside their image. */
  readonly belongings: Belongings.Belongings
  /** Why it is not there any more. */
  readonly gone: Effect.Effect<Option.Option<string>>
  /** It has ended, or is about to, only to come again as it is wanted now: whoever was about to start something does so then. */
  readonly isRenewed: Effect.Effect<boolean>
}

/** What a microVM is at: on its way, there, or not to be had; and whether anybody waits for it. */
interface Guest {
  readonly outcome: Deferred.Deferred<System, MicroVmFailed>
  readonly wanted: Deferred.Deferred<void>
}

const newGuest = (): Guest => ({ outcome: Deferred.makeUnsafe(), wanted: Deferred.makeUnsafe() })

export class Systems extends Context.Service<
  Systems,
  {
    readonly host: System
    readonly paths: RuntimePaths.RuntimePaths
    readonly namespaces: SandboxNamespaces.SandboxNamespaces
    readonly pidNamespaces: PidNamespaces.PidNamespaces
    readonly hostPaths: HostPaths.HostPaths
    readonly stages: Stages.Stages
    readonly users: UserNamespaces.UserNamespaces
    readonly userNetworks: UserNetworks.UserNetworks
    readonly names: NameFiles.NameFiles
    /** That of a sandbox, if it is there now. */
    readonly present: (sandbox: string) => Effect.Effect<Option.Option<System>>
    /** That of a sandbox, as soon as it is there. */
    readonly ready: (sandbox: SandboxRecord) => Effect.Effect<System, MicroVmFailed>
    /** This sandbox has a microVM, which is on its way from now on. */
    readonly expect: (sandbox: string) => Effect.Effect<void>
    /** Waits until somebody is waiting for it. */
    readonly wanted: (sandbox: string) => Effect.Effect<void>
    /** It is there, or it cannot be had until it is expected again. */
    readonly settle: (sandbox: string, outcome: Exit.Exit<System, MicroVmFailed>) => Effect.Effect<void>
    /** The sandbox is gone. */
    readonly forget: (sandbox: string) => Effect.Effect<void>
  }
>()("ironwood/runtime/System/Systems") {}

const make = Effect.fnUntraced(function* (paths: RuntimePaths.RuntimePaths) {
  const processes = yield* Processes
  const runtime = yield* OciRuntime
  const rootfs = yield* Rootfs
  const cgroups = yield* Cgroups
  const { taprootPid } = processes.hello
  // they stay where they are as long as this taproot lives, and every start of a container asks for one
  const helpers = { enter: helperPath(taprootPid, "enter"), init: helperPath(taprootPid, "init") }
  const pidNamespaces = PidNamespaces.make({ ...PidNamespaces.onHost, processes, runtime, paths, init: helpers.init })
  const points = MountPoints.make(processes)
  const users = UserNamespaces.make(processes, points, runtime, paths)
  const userNetworks = UserNetworks.make(processes, cgroups, points, users, paths)
  const names = NameFiles.make(paths, UserNetworks.PLACE)
  const namespaces = SandboxNamespaces.make(points, pidNamespaces, users, userNetworks, names, paths)
  const stages = Stages.make(processes, points, paths)
  const hostPaths = HostPaths.make(points, yield* Allowance)
  const host: System = {
    processes,
    files: filesOfHost,
    readInRoot: readFileInRoot,
    cgroups,
    runtime,
    paths,
    helper: (name) => helpers[name],
    capabilities: yield* Capabilities.held,
    limitSwap: yield* cgroups.limitsSwap,
    processLimits: yield* ProcessLimits.ofHost,
    root: (image, name, _, users) =>
      rootfs.acquire(image, name, users === undefined ? {} : { users }).pipe(
        // seen through taproot, whose mount it is
        Effect.map(({ path }) => ({ path, seen: `/proc/${taprootPid}/root${path}` })),
        Effect.mapError((error) =>
          error._tag === "ImageNotFound" ? error : new RootfsFailed({ name, detail: error.message })
        )
      ),
    releaseRoot: (name) =>
      Effect.mapError(
        rootfs.release(name),
        ({ message }) => new CleanupFailed({ name: `container ${name}`, problem: message })
      ),
    within: namespaces.within,
    belongings: Belongings.ofHost(
      stages,
      hostPaths,
      yield* Secrets,
      VolumeMounts.make(yield* Volumes, processes, points)
    ),
    gone: Effect.succeedNone,
    isRenewed: Effect.succeed(false)
  }

  /** Of the sandboxes that have a microVM. */
  const guests = new Map<string, Guest>()
  return Systems.of({
    host,
    paths,
    namespaces,
    pidNamespaces,
    stages,
    hostPaths,
    users,
    userNetworks,
    names,
    present: (sandbox) =>
      Effect.suspend(() => {
        const guest = guests.get(sandbox)
        if (guest === undefined) return Effect.succeedSome(host)
        return Effect.flatMap(Deferred.poll(guest.outcome), (outcome) =>
          Option.isNone(outcome) ? Effect.succeedNone : Effect.option(outcome.value)
        )
      }),
    ready: ({ spec }) =>
      Effect.suspend(() => {
        if (spec.isolation !== "microvm") return Effect.succeed(host)
        const guest = guests.get(spec.name)
        // never on the host what was to be kept from it
        if (guest === undefined) return Effect.fail(new MicroVmFailed({ name: spec.name, detail: "nobody keeps it" }))
        Deferred.doneUnsafe(guest.wanted, Effect.void)
        return Deferred.await(guest.outcome)
      }),
    expect: (sandbox) =>
      Effect.sync(() => {
        const guest = guests.get(sandbox)
        // who waits already goes on waiting
        if (guest === undefined || Deferred.isDoneUnsafe(guest.outcome)) guests.set(sandbox, newGuest())
      }),
    wanted: (sandbox) =>
      Effect.suspend(() => {
        const guest = guests.get(sandbox)
        return guest === undefined ? Effect.never : Deferred.await(guest.wanted)
      }),
    settle: (sandbox, outcome) =>
      Effect.sync(() => {
        const guest = guests.get(sandbox)
        if (guest === undefined) return
        const current = Deferred.isDoneUnsafe(guest.outcome) ? newGuest() : guest
        guests.set(sandbox, current)
        Deferred.doneUnsafe(current.outcome, outcome)
      }),
    forget: (sandbox) =>
      Effect.sync(() => {
        guests.delete(sandbox)
      })
  })
})

export const layer = (paths: RuntimePaths.RuntimePaths) => Layer.effect(Systems, make(paths))
