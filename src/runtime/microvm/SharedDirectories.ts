/**
 * Directories of the host that containers of a microVM write to: each is served to the guest by a virtiofsd, which sees the memory of
 * the guest and, of the host, that directory. They are started before the machine and end with it; a machine whose virtiofsd ends is
 * ended, since its guest would wait for it without end.
 *
 * What serves a directory has to be root, who owns files of anybody, but for all else it has nothing: six capabilities (chown,
 * dac_override, fowner, fsetid, setgid, setuid), no network and no processes but itself, a root of its own with nothing in it,
 * virtiofsd's filter of system calls. It makes no device, and it is handed the directory, not told its name: nobody can put something else in its place.
 *
 * Traps:
 * - Who is root in the guest is root in that directory, as in a plain container: of what is written there nothing should be run.
 * - A guest knows what the host changed after a second, at the next look.
 * - What is mounted below such a directory is in it, unlike in a plain container.
 * - One that was moved away or removed is served on, as long as the machine runs. A container that starts afterwards has the one that is
 *   there then: for it the machine is started anew.
 */
import { createHash } from "node:crypto"
import type { BigIntStats } from "node:fs"
import * as fs from "node:fs/promises"
import { pid } from "node:process"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Schedule from "effect/Schedule"
import type { Cgroups } from "../../host/Cgroups.ts"
import * as Executables from "../../host/Executables.ts"
import * as Remedy from "../../host/Remedy.ts"
import { helperPath } from "../../taproot/Helper.ts"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import type { Process, Processes } from "../../taproot/Processes.ts"
import { isRoot, LIBRARIES, MOST_PROCESSES } from "../../vmm/Launching.ts"
import type { Place as VmPlace } from "../../vmm/Hypervisor.ts"
import type { Share } from "../../vmm/Machine.ts"
import { HostPathRefused, MicroVmFailed } from "../ContainerExit.ts"
import type { ContainerSpec } from "../ContainerSpec.ts"
import type { HostPaths } from "../HostPaths.ts"
import type { ContainerRecord } from "../Records.ts"

const PREFIX = "share/"
const labelOf = (sandbox: string, tag = ""): string => `${PREFIX}${sandbox}/${tag}`

const PROGRAMS = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"]

const COMING_UP = "10 seconds"
const LOOK_AGAIN = Schedule.spaced("5 millis")
const UNKILLABLE = "10 seconds"

type Mount = ContainerSpec["mounts"][number]
type Place = Pick<VmPlace, "directory" | "cgroup" | "memoryBytes">

/** By which the guest knows a directory of the host: another one that has taken its name is another one. */
const tagOf = (source: string, { dev, ino }: BigIntStats): string =>
  `share-${createHash("sha256").update(`${dev}:${ino}:${source}`).digest("hex").slice(0, 24)}`

/** A directory of the host that a container may have. */
interface Opened {
  readonly handle: fs.FileHandle
  /** As long as somebody has it open, no other directory has the same. */
  readonly tag: string
}

/** Those that are shared; the others it has copies of. */
export const sharedOf = ({ mounts }: Pick<ContainerSpec, "mounts">): ReadonlyArray<Mount> =>
  mounts.filter(({ readOnly }) => !readOnly)

/** By their sources, each once, with one container that has it. */
const wantedBy = (containers: ReadonlyArray<ContainerRecord>) => {
  const wanted = new Map<string, { readonly name: string; readonly mount: Mount }>()
  for (const { spec } of containers) {
    for (const mount of sharedOf(spec)) wanted.set(mount.source, { name: spec.name, mount })
  }
  return wanted
}

/** What a machine for these containers will be asked to have, as far as it can be told before anything of it is there. */
export const planned = (containers: ReadonlyArray<ContainerRecord>): ReadonlyArray<Share> =>
  [...wantedBy(containers).keys()].map((source) => ({ tag: source, socket: source }))

/** The directory, opened as long as the scope; a file cannot be shared. */
export const open = (
  hostPaths: HostPaths,
  name: string,
  mount: Mount
): Effect.Effect<Opened, HostPathRefused, Scope.Scope> =>
  Effect.gen(function* () {
    const handle = yield* hostPaths.open(name, mount)
    const stat = yield* Effect.promise(() => handle.stat({ bigint: true }))
    if (stat.isDirectory()) return { handle, tag: tagOf(mount.source, stat) }
    const problem = "a microVM can share a directory, not a single file: mount that with :ro, or the directory it is in"
    return yield* new HostPathRefused({ name, path: mount.source, problem })
  })

export const make = (processes: Processes["Service"], cgroups: Cgroups["Service"], hostPaths: HostPaths) => {
  const program = Executables.firstOf(PROGRAMS)

  /** Why this host shares none; undefined: it does. */
  const lacking =
    program === undefined
      ? `there is no virtiofsd, which shares directories with microVMs (${Remedy.ofHypervisor("`apt-get install qemu-system-common`, or `virtiofsd` where that is a package of its own")})`
      : isRoot
        ? undefined
        : "only root can share directories with microVMs"

  const end = (process: Process) =>
    Effect.gen(function* () {
      yield* Effect.ignore(process.signal("SIGKILL", { group: true }))
      yield* Effect.timeoutOption(process.exit, UNKILLABLE)
      yield* process.acknowledge
    })

  const endAll = (sandbox: string) =>
    Effect.flatMap(processes.takeAll(labelOf(sandbox)), (found) => Effect.forEach(found, end, { discard: true }))

  const serve = (sandbox: string, name: string, mount: Mount, place: Place, joined: ReadonlyArray<string>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const failed = (detail: string) => new MicroVmFailed({ name: sandbox, detail: `${mount.source}: ${detail}` })
        if (program === undefined) return yield* failed(lacking ?? "it cannot be shared")
        const { handle, tag } = yield* open(hostPaths, name, mount)
        const process = yield* processes
          .spawn({
            label: labelOf(sandbox, tag),
            argv: [
              helperPath(processes.hello.taprootPid, "launch"),
              "--network",
              "-",
              "--alone",
              ...[program, ...LIBRARIES].flatMap((path) => ["--sees", path]),
              "-",
              "-",
              `3=dir:/proc/${pid}/fd/${handle.fd}/.`,
              `4=socket:${tag}`,
              "--",
              program,
              "--fd=4",
              "-o",
              "source=/proc/self/fd/3/.",
              "-o",
              "sandbox=chroot",
              "-o",
              "modcaps=-mknod:-setfcap",
              "-o",
              "log_level=err"
            ],
            directory: place.directory,
            cgroups: joined,
            stdout: { _tag: "Null" },
            stderr: { _tag: "Null" }
          })
          .pipe(Effect.mapError(({ message }) => failed(message)))
        const listens = Effect.retry(
          Effect.tryPromise(() => fs.access(`${place.directory}/${tag}`)),
          LOOK_AGAIN
        )
        const ended = Effect.flatMap(process.exit, (exit) =>
          Effect.fail(failed(`virtiofsd ${ProcessExit.describe(exit)}`))
        )
        yield* Effect.raceFirst(listens, ended).pipe(
          Effect.timeoutOrElse({
            duration: COMING_UP,
            orElse: () => Effect.fail(failed("virtiofsd does not come up"))
          }),
          Effect.mapError((error) => (error._tag === "MicroVmFailed" ? error : failed(error.message))),
          Effect.onError(() => end(process))
        )
        return { tag, socket: tag }
      })
    )

  /**
   * Serves what these containers share, each once, for the machine at this place. A path that cannot be had is left out:
   * the container that wants it is told when it starts. Failed, it leaves those that it has started.
   */
  const start = (
    sandbox: string,
    containers: ReadonlyArray<ContainerRecord>,
    place: Place
  ): Effect.Effect<ReadonlyArray<Share>, MicroVmFailed> =>
    Effect.gen(function* () {
      const wanted = wantedBy(containers)
      if (wanted.size === 0) return []
      // what an earlier start has left that came to nothing
      yield* endAll(sandbox)
      yield* Effect.mapError(
        Effect.tryPromise(() => fs.mkdir(place.directory, { recursive: true, mode: 0o700 })),
        ({ message }) => new MicroVmFailed({ name: sandbox, detail: message })
      )
      const joined = yield* cgroups.prepare(place.cgroup, {
        memoryBytes: place.memoryBytes,
        pids: MOST_PROCESSES
      })
      const shares: Array<Share> = []
      for (const { mount, name } of wanted.values()) {
        const share = yield* Effect.catchTag(
          serve(sandbox, name, mount, place, joined),
          "HostPathRefused",
          ({ message }) => Effect.as(Effect.logWarning(message), undefined)
        )
        if (share !== undefined) shares.push(share)
      }
      return shares
    })

  return {
    lacking,
    start,
    /** Those of a sandbox. */
    of: (sandbox: string) => processes.takeAll(labelOf(sandbox)),
    end: endAll,
    /** Ends those of all but these sandboxes. */
    reconcile: (sandboxes: ReadonlySet<string>) =>
      Effect.gen(function* () {
        for (const process of yield* processes.takeAll(PREFIX)) {
          const [sandbox = ""] = process.label.slice(PREFIX.length).split("/")
          if (!sandboxes.has(sandbox)) yield* end(process)
        }
      })
  }
}
export type SharedDirectories = ReturnType<typeof make>
