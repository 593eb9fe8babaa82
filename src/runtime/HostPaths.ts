/**
 * Files, directories and devices of the host that containers have. Only what the machine config allows, and what is in that;
 * {@link problemsOf} says so when a container is made, {@link HostPaths.stage} and {@link HostPaths.devices} look again at
 * each start.
 *
 * A path is opened from the allowed one on, component by component and without following links, so that nobody who may write
 * there can point it elsewhere; what was opened, and not its name, is mounted on a stage (`Stages.ts`), and from there into the
 * container.
 *
 * Traps: what is mounted *below* a directory is not seen in the container. The allowed path itself may be a link: who wrote the
 * machine config is trusted. In a private user namespace a device belongs to nobody: only what everybody on the host may use is
 * of use there.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { constants } from "node:fs"
import { type FileHandle, lstat, open, readdir, readFile } from "node:fs/promises"
import type { FieldProblem } from "../storage/StateErrors.ts"
import { HostPathRefused } from "./ContainerExit.ts"
import type { ContainerSpec } from "./ContainerSpec.ts"
import type { Allowances } from "./Isolation.ts"
import type { MountPoints } from "./MountPoints.ts"
import type { Bind, Device } from "./RuntimeSpec.ts"
import type { Stage } from "./Stages.ts"
import type { UserNamespace } from "../taproot/IdMap.ts"

export interface HostPaths {
  /** A path that a container is allowed to have, opened (`O_PATH`) as long as the scope: for whoever serves it to a microVM. */
  readonly open: (
    name: string,
    mount: Pick<ContainerSpec["mounts"][number], "source" | "readOnly">
  ) => Effect.Effect<FileHandle, HostPathRefused, Scope.Scope>
  /** Puts what a run shall have of the host on its stage. `users`: its user namespace. */
  readonly stage: (
    stage: Stage,
    spec: Pick<ContainerSpec, "name" | "mounts">,
    users: UserNamespace | undefined
  ) => Effect.Effect<ReadonlyArray<Bind>, HostPathRefused>
  /**
   * What is in the files and directories that it shall have, each from the top down: for a run that cannot have themselves. Refuses
   * what is too much for that, what shall be written, and what is neither a file nor a directory.
   */
  readonly contents: (
    spec: Pick<ContainerSpec, "name" | "mounts">
  ) => Effect.Effect<ReadonlyArray<ReadonlyArray<Copied>>, HostPathRefused>
  readonly devices: (
    spec: Pick<ContainerSpec, "name" | "devices">
  ) => Effect.Effect<ReadonlyArray<Device>, HostPathRefused>
}

/** A file or directory; `path` is empty for the one that was asked for, and begins with a slash for what is in it. */
export interface Copied {
  readonly path: string
  readonly uid: number
  readonly gid: number
  readonly mode: number
  /** Of a file. */
  readonly content: Buffer | undefined
}

type Allowed = ReturnType<Allowances["mounts"]>[number]

/** The innermost allowed path that `path` is or is in. */
const allowedFor = (path: string, allowed: ReadonlyArray<Allowed>): Allowed | undefined =>
  allowed
    .filter((one) => path === one.path || path.startsWith(one.path === "/" ? "/" : `${one.path}/`))
    .toSorted((one, other) => other.path.length - one.path.length)[0]

const mountProblem = (source: string, readOnly: boolean, allowances: Allowances): string | undefined => {
  const found = allowedFor(source, allowances.mounts())
  if (found === undefined) {
    return `this host does not allow containers to have ${source}: see containers.allowMounts in its machine config`
  }
  return found.readOnly && !readOnly ? `this host allows containers only to read ${found.path}` : undefined
}

const deviceProblem = (path: string, allowances: Allowances): string | undefined =>
  allowances.devices().includes(path)
    ? undefined
    : `this host does not allow containers to have ${path}: see containers.allowDevices in its machine config`

/** What of a spec this host does not allow, by field. */
export const problemsOf = (
  { devices, mounts }: Pick<ContainerSpec, "mounts" | "devices">,
  allowances: Allowances
): ReadonlyArray<FieldProblem> => [
  ...mounts.flatMap(({ readOnly, source }, index) => {
    const problem = mountProblem(source, readOnly, allowances)
    return problem === undefined ? [] : [{ field: `mounts[${index}].source`, problem }]
  }),
  ...devices.flatMap(({ path }, index) => {
    const problem = deviceProblem(path, allowances)
    return problem === undefined ? [] : [{ field: `devices[${index}].path`, problem }]
  })
]

// Not in node:fs; the same on every architecture that Node runs on here (asm-generic/fcntl.h).
const O_PATH = 0o10000000

class Refused extends Error {}

const wordsOf = (error: unknown): string => {
  const code = Predicate.hasProperty(error, "code") ? error.code : undefined
  if (code === "ENOENT") return "it is not there"
  if (code === "ENOTDIR") return "something in it is no directory"
  return error instanceof Error ? error.message : String(error)
}

/** Opens `path`, which is `allowed` or in it; `seen` is how we see a path of the host. */
const openWithin = async (seen: MountPoints["seen"], allowed: string, path: string): Promise<FileHandle> => {
  let found = await open(seen(allowed), O_PATH)
  for (const name of path
    .slice(allowed.length)
    .split("/")
    .filter((part) => part !== "")) {
    const inner = await open(`/proc/self/fd/${found.fd}/${name}`, O_PATH | constants.O_NOFOLLOW).finally(() =>
      found.close()
    )
    found = inner
    if ((await inner.stat()).isSymbolicLink()) {
      await inner.close()
      throw new Refused(`"${name}" in it is a symbolic link, and none is followed below ${allowed}`)
    }
  }
  return found
}

/** What can be copied of one path: files and directories, bytes of a file, bytes of all. */
const MOST_COPIED = 256
const MOST_OF_ONE = 1_000_000
const MOST_OF_ALL = 8 * 1024 * 1024

/** All that is in what was opened, read through the descriptor: nobody can put something else into its place. */
const copied = async (handle: FileHandle): Promise<ReadonlyArray<Copied>> => {
  const found: Array<Copied> = []
  let bytes = 0
  const visit = async (opened: FileHandle, path: string): Promise<void> => {
    const stat = await opened.stat()
    if (!stat.isFile() && !stat.isDirectory()) throw new Refused(`${path || "it"} is neither a file nor a directory`)
    if (found.length === MOST_COPIED) throw new Refused(`there is more than ${MOST_COPIED} files in it`)
    const { gid, mode, uid } = stat
    if (stat.isFile()) {
      bytes += stat.size
      if (stat.size > MOST_OF_ONE) throw new Refused(`${path || "it"} has more than ${MOST_OF_ONE} bytes`)
      if (bytes > MOST_OF_ALL) throw new Refused(`there is more than ${MOST_OF_ALL} bytes in it`)
      const content = await readFile(`/proc/self/fd/${opened.fd}`)
      if (content.length > MOST_OF_ONE) throw new Refused(`${path || "it"} grows while it is read`)
      found.push({ path, uid, gid, mode: mode & 0o7777, content })
      return
    }
    found.push({ path, uid, gid, mode: mode & 0o7777, content: undefined })
    for (const name of (await readdir(`/proc/self/fd/${opened.fd}`)).toSorted()) {
      const inner = await open(`/proc/self/fd/${opened.fd}/${name}`, O_PATH | constants.O_NOFOLLOW)
      await visit(inner, `${path}/${name}`).finally(() => inner.close())
    }
  }
  await visit(handle, "")
  return found
}

const deviceOf = async (seen: MountPoints["seen"], wanted: ContainerSpec["devices"][number]): Promise<Device> => {
  const stat = await lstat(seen(wanted.path), { bigint: true })
  if (!stat.isCharacterDevice() && !stat.isBlockDevice()) throw new Refused("it is no device")
  return {
    path: wanted.target ?? wanted.path,
    type: stat.isBlockDevice() ? "b" : "c",
    major: Number(((stat.rdev >> 8n) & 0xfffn) | ((stat.rdev >> 32n) & ~0xfffn)),
    minor: Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & ~0xffn)),
    fileMode: Number(stat.mode & 0o777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    access: wanted.access
  }
}

export const make = (points: MountPoints, allowances: Allowances): HostPaths => {
  const refused = (name: string, path: string) => (error: unknown) =>
    error instanceof HostPathRefused ? error : new HostPathRefused({ name, path, problem: wordsOf(error) })

  const opened: HostPaths["open"] = (name, { readOnly, source }) =>
    Effect.gen(function* () {
      const allowed = allowedFor(source, allowances.mounts())
      const problem = mountProblem(source, readOnly, allowances)
      if (allowed === undefined || problem !== undefined) {
        return yield* new HostPathRefused({ name, path: source, problem: problem ?? "it is not allowed" })
      }
      return yield* Effect.acquireRelease(
        Effect.tryPromise({
          try: () => openWithin(points.seen, allowed.path, source),
          catch: refused(name, source)
        }),
        (handle) => Effect.promise(() => handle.close())
      )
    })

  const put = (name: string, stage: Stage, users: UserNamespace | undefined, mount: ContainerSpec["mounts"][number]) =>
    Effect.scoped(
      Effect.gen(function* () {
        const { mapIds, readOnly, source } = mount
        const handle = yield* opened(name, mount)
        return yield* Effect.mapError(stage.put(handle, { users, mapIds, readOnly }), refused(name, source))
      })
    )

  return {
    open: opened,
    stage: Effect.fnUntraced(function* (stage, { mounts, name }, users) {
      return yield* Effect.forEach(mounts, (wanted) =>
        Effect.map(put(name, stage, users, wanted), (source) => ({
          source,
          target: wanted.target,
          readOnly: wanted.readOnly
        }))
      )
    }),
    contents: ({ mounts, name }) =>
      Effect.forEach(mounts, (mount) =>
        Effect.scoped(
          Effect.gen(function* () {
            const { readOnly, source } = mount
            if (!readOnly) {
              return yield* new HostPathRefused({ name, path: source, problem: "only read-only it can be copied" })
            }
            const handle = yield* opened(name, mount)
            return yield* Effect.tryPromise({ try: () => copied(handle), catch: refused(name, source) })
          })
        )
      ),
    devices: ({ devices, name }) =>
      Effect.forEach(devices, (wanted) => {
        const problem = deviceProblem(wanted.path, allowances)
        if (problem !== undefined) return Effect.fail(new HostPathRefused({ name, path: wanted.path, problem }))
        return Effect.tryPromise({ try: () => deviceOf(points.seen, wanted), catch: refused(name, wanted.path) })
      })
  }
}
