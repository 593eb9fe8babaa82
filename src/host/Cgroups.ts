/**
 * `Cgroups`: what has to be known of and done to the cgroups of containers beside what the OCI runtime does: out-of-memory
 * kills counted, leftovers killed, empty trees removed. The same calls on v1, hybrid and v2.
 *
 * Paths are absolute and relative to the hierarchies' mount points, as in an OCI spec: `/ironwood-1a2b3c4d/web/web-3`.
 *
 * Traps:
 * - Read the counters between the end of the container and the removal of its cgroup; afterwards they are gone.
 * - `kill` on v1 goes by pid, one by one, since there is no other way; forks are stopped first (`pids.max` 0), and it looks
 *   again until nobody is left. It never touches a pid that is not listed in the cgroup at that moment.
 * - What the kernel notifies about a file of a cgroup comes as a change of the file to inotify, several as one.
 * - A cgroup stays busy for a moment after its last process has ended; `remove` waits for that.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Processes } from "../taproot/Processes.ts"
import * as CgroupStats from "./CgroupStats.ts"
import { type CgroupLayout, directories, fromMounts, hierarchyOf, parseMountInfo } from "./CgroupLayout.ts"
import { type FileFailed, isGone, ofHost, type SystemFiles, textOf } from "./SystemFiles.ts"

/** Something in the cgroup would not end, or its directory would not go. */
export class CgroupStuck extends Schema.TaggedError<CgroupStuck>()("CgroupStuck", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `cgroup ${this.path}: ${this.problem}`
  }
}

/** The limits of a cgroup. */
export interface Limits {
  readonly memoryBytes: number
  readonly pids: number
}

export class Cgroups extends Context.Service<
  Cgroups,
  {
    /** The layout as taproot's mount namespace shows it, or showed it up to a second ago. */
    readonly layout: Effect.Effect<CgroupLayout>
    /** To be said by whoever has just mounted or unmounted a hierarchy: the layout is looked up again. */
    readonly rearranged: Effect.Effect<void>
    /** Processes that the kernel killed in the cgroup because memory was out; 0 when that cannot be told. */
    readonly outOfMemoryKills: (path: string) => Effect.Effect<number>
    /** Forks that were refused in the cgroup because it had as many processes as it may; 0 when that cannot be told. */
    readonly refusedForks: (path: string) => Effect.Effect<number>
    /** Calls `told` in the scope whenever it may be more of them; never when that cannot be told. */
    readonly onRefusedForks: (path: string, told: () => void) => Effect.Effect<void, never, Scope.Scope>
    /** Lets the cgroup and all below it have no more processes than these; makes it. Does what can be done on this host. */
    readonly limitProcesses: (path: string, most: number) => Effect.Effect<void>
    /**
     * Makes a cgroup for a program that no container runtime starts, with what limits this host can set, and tells the
     * directories that the program must join.
     */
    readonly prepare: (path: string, limits: Limits) => Effect.Effect<ReadonlyArray<string>>
    /** What has been used there, and may be. */
    readonly stats: (path: string) => Effect.Effect<CgroupStats.CgroupStats>
    /** Whether its processes are frozen. */
    readonly frozen: (path: string) => Effect.Effect<boolean>
    /** The pids in the cgroup and those below it, in any hierarchy. */
    readonly processes: (path: string) => Effect.Effect<ReadonlyArray<number>>
    /** The names of the cgroups directly below, in any hierarchy. */
    readonly children: (path: string) => Effect.Effect<ReadonlyArray<string>>
    /** The same of each child, by its name: for thousands at once. */
    readonly grandchildren: (path: string) => Effect.Effect<ReadonlyMap<string, ReadonlyArray<string>>>
    /** Kills everything in the cgroup and below, and waits until it is gone. Fine when there is none. */
    readonly kill: (path: string) => Effect.Effect<void, CgroupStuck>
    /** Kills what is left in the cgroup and below, and removes the tree. Fine when there is none. */
    readonly remove: (path: string) => Effect.Effect<void, CgroupStuck>
    /** Whether a limit of memory and swap together can be set here (there is swap, and the kernel accounts for it). */
    readonly limitsSwap: Effect.Effect<boolean>
  }
>()("ironwood/host/Cgroups") {
  /** The real one, seen from taproot's mount namespace. */
  static readonly layer: Layer.Layer<Cgroups, never, Processes> = Layer.effect(
    Cgroups,
    Effect.flatMap(Processes, ({ hello }) => make(hello.taprootPid, ofHost))
  )
}

/** What is read of something that may vanish at any time; then the answer is `otherwise`. */
const unlessGone = <A>(otherwise: A, effect: Effect.Effect<A, FileFailed>): Effect.Effect<A> =>
  effect.pipe(
    Effect.catchIf(isGone, () => Effect.succeed(otherwise)),
    Effect.orDie
  )

const subdirectories = (files: SystemFiles, directory: string) =>
  unlessGone<ReadonlyArray<string>>(
    [],
    Effect.map(files.list(directory), (entries) =>
      entries.filter(({ isDirectory }) => isDirectory).map(({ name }) => name)
    )
  )

/** The names of the cgroups directly below, in any hierarchy. */
const childrenIn = (files: SystemFiles, layout: CgroupLayout, path: string) =>
  Effect.map(
    Effect.forEach(directories(layout, path), (directory) => subdirectories(files, directory), {
      concurrency: "unbounded"
    }),
    (names): ReadonlyArray<string> => [...new Set(names.flat())]
  )

/** The directory and all below it, deepest first. */
const tree = (files: SystemFiles, directory: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function* () {
    const below = yield* Effect.forEach(yield* subdirectories(files, directory), (name) =>
      tree(files, `${directory}/${name}`)
    )
    return [...below.flat(), directory]
  })

const pidsIn = (files: SystemFiles, directory: string): Effect.Effect<ReadonlyArray<number>> =>
  Effect.map(unlessGone("", textOf(files, `${directory}/cgroup.procs`)), (text) =>
    text
      .split("\n")
      .map(Number)
      .filter((pid) => pid > 0)
  )

/** The value of `key` in a file of lines `key value`. */
const keyed = (text: string, key: string): number => {
  const line = text.split("\n").find((line) => line.startsWith(`${key} `))
  const value = Number(line?.slice(key.length + 1))
  return Number.isSafeInteger(value) ? value : 0
}

/** Where crun writes plain files as if there were a cgroup2 beside cgroup v1, after it was unmounted for its sake. */
const WITHOUT_UNIFIED = "/sys/fs/cgroup/unified"

/** The cgroups above one, the topmost first: `/a/b/c` has "", `/a` and `/a/b`. */
const ancestors = (path: string): ReadonlyArray<string> => {
  const names = path.split("/").slice(0, -1)
  return names.map((_, index) => names.slice(0, index + 1).join("/"))
}

const LOOK_AGAIN = "10 millis"
const PATIENCE = "5 seconds"

/** The lines of mountinfo with the file systems `cgroup` and `cgroup2`. */
const cgroupMounts = /^.* - cgroup2? .*$/gm
/**
 * How long a layout counts. The kernel takes half a millisecond to list the mounts of a hundred containers, and each container
 * that starts or ends asks several times.
 */
const LAYOUT_COUNTS = "1 second"

/** Those of a system, as its process `processId` sees them. */
export const make = Effect.fnUntraced(function* (
  processId: number,
  files: SystemFiles
): Effect.fn.Return<Cgroups["Service"]> {
  const readOrEmpty = (path: string) => unlessGone("", textOf(files, path))
  // Looked up again and again: a hierarchy may go while we run (OciProbe unmounts one for crun). Of the mounts only those of
  // cgroups: each container has one, too.
  const [layout, rearranged] = yield* Effect.cachedInvalidateWithTTL(
    Effect.map(unlessGone(Buffer.alloc(0), files.read(`/proc/${processId}/mountinfo`)), (bytes) =>
      fromMounts(parseMountInfo((bytes.toString("utf8").match(cgroupMounts) ?? []).join("\n")))
    ),
    LAYOUT_COUNTS
  )

  const trees = (path: string) =>
    Effect.flatMap(layout, (layout) =>
      Effect.map(
        Effect.forEach(directories(layout, path), (directory) => tree(files, directory), { concurrency: "unbounded" }),
        (found) => found.flat()
      )
    )

  const processes = (path: string) =>
    Effect.flatMap(trees(path), (found) =>
      Effect.map(
        Effect.forEach(found, (directory) => pidsIn(files, directory), { concurrency: 16 }),
        (pids) => [...new Set(pids.flat())]
      )
    )

  /** On cgroup v1, where nothing kills a cgroup as a whole: nobody in it can fork away from the killing. */
  const limitForks = (path: string, limit: "0" | "max") =>
    Effect.gen(function* () {
      const hierarchy = hierarchyOf(yield* layout, "pids")
      if (hierarchy?.version !== 1) return
      yield* Effect.ignore(files.write(`${hierarchy.mountPoint}${path}/pids.max`, limit))
    })

  /** One round of killing; answers whom it met. */
  const killOnce = (path: string) =>
    Effect.gen(function* () {
      const { hierarchies } = yield* layout
      for (const { mountPoint, version } of hierarchies) {
        if (version === 1) continue
        yield* Effect.ignore(files.write(`${mountPoint}${path}/cgroup.kill`, "1"))
      }
      const pids = yield* processes(path)
      for (const pid of pids) {
        yield* Effect.ignore(files.kill(pid))
      }
      return pids
    })

  const kill = (path: string): Effect.Effect<void, CgroupStuck> =>
    Effect.gen(function* () {
      yield* limitForks(path, "0")
      while ((yield* killOnce(path)).length > 0) yield* Effect.sleep(LOOK_AGAIN)
    }).pipe(
      Effect.timeoutOrElse({
        duration: PATIENCE,
        orElse: () =>
          Effect.flatMap(
            processes(path),
            (pids) => new CgroupStuck({ path, problem: `pids ${pids.join(", ")} do not end` })
          )
      }),
      // a directory that cannot be removed now may serve again
      Effect.ensuring(limitForks(path, "max"))
    )

  /** Removes one directory; waits while the kernel still holds it. */
  const removeDirectory = (directory: string): Effect.Effect<void, CgroupStuck> =>
    files.removeDirectory(directory).pipe(
      Effect.retry({ while: ({ code }) => code === "EBUSY", times: 500, schedule: Schedule.spaced(LOOK_AGAIN) }),
      Effect.catch(({ code }) =>
        code === "ENOENT"
          ? Effect.void
          : new CgroupStuck({ path: directory, problem: code === "EBUSY" ? "still busy" : code })
      )
    )

  /** A file of the hierarchy that counts processes. */
  const ofPids = (path: string, name: string) =>
    Effect.map(layout, (layout) => {
      const hierarchy = hierarchyOf(layout, "pids")
      return hierarchy === undefined ? undefined : `${hierarchy.mountPoint}${path}/${name}`
    })

  return {
    layout,
    rearranged,
    processes,
    kill,
    refusedForks: (path) =>
      Effect.flatMap(ofPids(path, "pids.events"), (file) =>
        file === undefined ? Effect.succeed(0) : Effect.map(readOrEmpty(file), (text) => keyed(text, "max"))
      ),
    onRefusedForks: (path, told) =>
      Effect.flatMap(ofPids(path, "pids.events"), (file) =>
        file === undefined ? Effect.void : files.onChange(file, told)
      ),
    limitProcesses: (path, most) =>
      Effect.gen(function* () {
        const hierarchy = hierarchyOf(yield* layout, "pids")
        if (hierarchy === undefined) return
        const { mountPoint, version } = hierarchy
        if (version === 2) yield* Effect.ignore(files.write(`${mountPoint}/cgroup.subtree_control`, "+pids"))
        yield* files
          .makeDirectory(`${mountPoint}${path}`)
          .pipe(Effect.andThen(files.write(`${mountPoint}${path}/pids.max`, String(most))), Effect.ignore)
      }),
    prepare: (path, { memoryBytes, pids }) =>
      Effect.gen(function* () {
        const seen = yield* layout
        const limits = [
          { controller: "memory", file: { 1: "memory.limit_in_bytes", 2: "memory.max" }, value: memoryBytes },
          { controller: "pids", file: { 1: "pids.max", 2: "pids.max" }, value: pids }
        ] as const
        const joined = new Set<string>()
        for (const { controller, file, value } of limits) {
          const hierarchy = hierarchyOf(seen, controller)
          if (hierarchy === undefined) continue
          const { mountPoint, version } = hierarchy
          const directory = `${mountPoint}${path}`
          yield* Effect.ignore(files.makeDirectory(directory))
          // each of those above must hand the controller down, the topmost first
          for (const above of version === 2 ? ancestors(path) : []) {
            yield* Effect.ignore(files.write(`${mountPoint}${above}/cgroup.subtree_control`, `+${controller}`))
          }
          yield* Effect.ignore(files.write(`${directory}/${file[version]}`, String(value)))
          if (yield* unlessGone(false, Effect.as(files.list(directory), true))) joined.add(directory)
        }
        return [...joined]
      }),
    outOfMemoryKills: (path) =>
      Effect.gen(function* () {
        const hierarchy = hierarchyOf(yield* layout, "memory")
        if (hierarchy === undefined) return 0
        const file = hierarchy.version === 2 ? "memory.events" : "memory.oom_control"
        return keyed(yield* readOrEmpty(`${hierarchy.mountPoint}${path}/${file}`), "oom_kill")
      }),
    stats: (path) => Effect.flatMap(layout, (layout) => CgroupStats.read(files, layout, path)),
    frozen: (path) =>
      Effect.gen(function* () {
        const hierarchy = hierarchyOf(yield* layout, "freezer")
        if (hierarchy === undefined) return false
        const file = hierarchy.version === 2 ? "cgroup.freeze" : "freezer.state"
        const text = yield* readOrEmpty(`${hierarchy.mountPoint}${path}/${file}`)
        return text.trim() === "1" || text.startsWith("FR")
      }),
    children: (path) => Effect.flatMap(layout, (layout) => childrenIn(files, layout, path)),
    grandchildren: (path) =>
      Effect.gen(function* () {
        const seen = yield* layout
        const below = yield* Effect.forEach(
          yield* childrenIn(files, seen, path),
          (child) => Effect.map(childrenIn(files, seen, `${path}/${child}`), (names) => [child, names] as const),
          { concurrency: 4 }
        )
        return new Map(below)
      }),
    remove: (path) =>
      Effect.gen(function* () {
        const found = yield* trees(path)
        const pids = yield* Effect.forEach(found, (directory) => pidsIn(files, directory), { concurrency: 16 })
        if (pids.some((list) => list.length > 0)) yield* kill(path)
        for (const directory of found) yield* removeDirectory(directory)
        const { kind } = yield* layout
        if (kind === "v1") {
          yield* Effect.ignore(files.remove(`${WITHOUT_UNIFIED}${path}`))
        }
      }),
    limitsSwap: Effect.gen(function* () {
      const swaps = yield* readOrEmpty("/proc/swaps")
      if (swaps.trim().split("\n").length < 2) return false
      const hierarchy = hierarchyOf(yield* layout, "memory")
      if (hierarchy === undefined || hierarchy.version === 2) return hierarchy !== undefined
      return (yield* readOrEmpty(`${hierarchy.mountPoint}/memory.memsw.limit_in_bytes`)) !== ""
    })
  }
})
