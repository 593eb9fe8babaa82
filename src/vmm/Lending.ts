/**
 * What a hypervisor's process has the right to beyond the descriptors that it was started with: files that it opens by their names, and
 * what it is lent while it runs (`lend.h`). Which rights were given is remembered in the machine's directory before they are, so that
 * whoever comes later takes them back.
 *
 * Traps:
 * - What a program has open stays open to it when it is taken back.
 * - Callers take turns (`VmRun.devices`).
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { helperPath } from "../taproot/Helper.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { Process, Processes } from "../taproot/Processes.ts"
import { ControlLost, type Place, PlaceFailed } from "./Hypervisor.ts"
import * as VmPaths from "./VmPaths.ts"

/** Whether machines run as users of their own. */
export const isRoot = process.geteuid?.() === 0

/** The descriptor of the directory in which a program without a room finds what it is lent. */
export const DESCRIPTOR = 250

/**
 * Where a program finds what it is lent: `room`: in its own root; `directory`: in one that it has as a descriptor; `host`: where it is,
 * because it is who we are.
 */
const Way = Schema.Literals(["room", "directory", "host"])
export type Way = typeof Way.Type

/** Of a program that is about to be started; `sees`: as `Start.sees`. */
export const wayOf = (sees: ReadonlyArray<string> | undefined): Way =>
  !isRoot ? "host" : sees === undefined ? "directory" : "room"

/** What is above the places, for the program; nothing: there is no such. */
export const seen: Readonly<Record<Way, string | undefined>> = {
  room: "/lent",
  directory: `/proc/self/fd/${DESCRIPTOR}`,
  host: undefined
}

/** The same for whoever has the program's mounts. */
export const mounted = (way: Way, directory: string): string | undefined =>
  ({ room: "/lent", directory: join(directory, "lent"), host: undefined })[way]

const RECORD = "granted"
const Granted = Schema.fromJsonString(
  Schema.Struct({
    user: Schema.Int,
    paths: Schema.Array(Schema.String),
    cgroup: Schema.String,
    /** Not said: an earlier Ironwood started it, without a place for what it is lent. */
    way: Schema.optionalKey(Way),
    /** What it is lent, by its name. */
    lent: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
  })
)
type Granted = typeof Granted.Type

const read = (directory: string) =>
  Effect.flatMap(
    Effect.tryPromise(() => fs.readFile(join(directory, RECORD), "utf8")),
    Schema.decodeUnknownEffect(Granted)
  )

const write = async (directory: string, granted: Granted): Promise<void> => {
  const path = join(directory, RECORD)
  await fs.writeFile(`${path}.new`, Schema.encodeSync(Granted)(granted), { mode: 0o600 })
  await fs.rename(`${path}.new`, path)
}

/** Remembers what a program that is about to be started is given; its directory is there. */
export const begin = ({ cgroup, directory, user }: Place, paths: ReadonlyArray<string>, way: Way) =>
  Effect.tryPromise({
    try: async () => {
      if (way === "directory") await fs.mkdir(join(directory, "lent"), { recursive: true, mode: 0o700 })
      await write(directory, { user, paths, cgroup, way, lent: {} })
    },
    catch: (error) => new PlaceFailed({ detail: String(error) })
  })

const launch = (processes: Processes["Service"], label: string, words: ReadonlyArray<string>) =>
  Effect.gen(function* (): Effect.fn.Return<void, string> {
    const argv = [helperPath(processes.hello.taprootPid, "launch"), ...words] as const
    const ran = yield* Effect.mapError(
      processes.run({ label: `${VmPaths.toolLabel}${label}`, argv, environment: {} }),
      ({ message }) => message
    )
    if (ProcessExit.isSuccess(ran.exit)) return
    const said = Buffer.from(ran.stderr).toString("utf8").trim()
    return yield* Effect.fail(said === "" ? ProcessExit.describe(ran.exit) : said)
  })

const withdraw = (processes: Processes["Service"], user: number, paths: ReadonlyArray<string>) =>
  isRoot && paths.length > 0
    ? Effect.catch(launch(processes, "withdraw", ["--withdraw", String(user), ...paths]), (problem) =>
        Effect.logWarning(`rights of a machine's user ${user} are left: ${problem}`)
      )
    : Effect.void

/** Takes back the rights that the life in a cgroup was given; fine when there are none, or they are another life's. */
export const release = Effect.fnUntraced(function* (
  processes: Processes["Service"],
  directory: string,
  cgroup: string
) {
  const given = yield* Effect.option(read(directory))
  if (Option.isNone(given) || given.value.cgroup !== cgroup) return
  const { lent = {}, paths, user } = given.value
  yield* withdraw(processes, user, [...paths, ...Object.values(lent)])
  yield* Effect.ignore(Effect.tryPromise(() => fs.rm(join(directory, RECORD), { force: true })))
})

export interface Lending {
  /** Nothing: it can be lent nothing, an earlier Ironwood started it. */
  readonly isPossible: Effect.Effect<boolean>
  /**
   * Lends a file to be read (`ro`) or written (`rw`), or a directory that was made for the program (`dir`) and becomes its user's; the
   * path by which the program finds it. What was lent under that name is taken back first.
   */
  readonly lend: (name: string, kind: "ro" | "rw" | "dir", path: string) => Effect.Effect<string, ControlLost>
  /** Lends files to be read, by these names in a directory; the path by which the program finds that. */
  readonly lendAll: (name: string, files: Readonly<Record<string, string>>) => Effect.Effect<string, ControlLost>
  /** Fine when nothing is lent under that name. */
  readonly takeBack: (name: string) => Effect.Effect<void>
  readonly takeBackAll: (name: string, files: Readonly<Record<string, string>>) => Effect.Effect<void>
}

/** What is lent to a machine's process, whose directory it is. */
export const make = (processes: Processes["Service"], directory: string, { pid }: Pick<Process, "pid">): Lending => {
  const lost = (detail: string) => new ControlLost({ command: "lend", detail })
  const given = Effect.mapError(read(directory), ({ message }) => lost(message))
  const note = (granted: Granted) =>
    Effect.tryPromise({ try: () => write(directory, granted), catch: (error) => lost(String(error)) })

  const takeBack = (name: string) =>
    Effect.gen(function* () {
      const { lent = {}, ...granted } = yield* given
      const { [name]: path, ...others } = lent
      if (path === undefined) return
      const above = mounted(granted.way ?? "host", directory)
      if (above !== undefined) {
        yield* Effect.mapError(launch(processes, "take back", ["--take-back", String(pid), `${above}/${name}`]), lost)
      }
      const isElsewhere = granted.paths.includes(path) || Object.values(others).includes(path)
      yield* withdraw(processes, granted.user, isElsewhere ? [] : [path])
      yield* note({ ...granted, lent: others })
    })

  const lend = Effect.fnUntraced(function* (name: string, kind: "ro" | "rw" | "dir", path: string) {
    yield* takeBack(name)
    const granted = yield* given
    const { lent = {}, user, way = "host" } = granted
    // a directory becomes the user's own: there is no right to take back
    yield* note({ ...granted, lent: { ...lent, [name]: path } })
    const above = mounted(way, directory)
    const words = ["--lend", above === undefined ? "-" : String(pid), isRoot ? String(user) : "-", `${kind}:${path}`]
    yield* Effect.mapError(launch(processes, "lend", [...words, `${above ?? ""}/${name}`]), lost)
    return way === "host" ? path : `${seen[way]}/${name}`
  })

  /** For a program that is who we are: links. */
  const linked = (name: string, files: Readonly<Record<string, string>>) =>
    Effect.tryPromise({
      try: async () => {
        const place = join(directory, "lent", name)
        await fs.rm(place, { recursive: true, force: true })
        await fs.mkdir(place, { recursive: true, mode: 0o700 })
        for (const [one, path] of Object.entries(files)) await fs.symlink(path, join(place, one))
        return place
      },
      catch: (error) => lost(String(error))
    })

  return {
    isPossible: Effect.match(given, { onFailure: () => false, onSuccess: ({ way }) => way !== undefined }),
    lend,
    lendAll: Effect.fnUntraced(function* (name, files) {
      const { way = "host" } = yield* given
      for (const [one, path] of Object.entries(files)) yield* lend(`${name}/${one}`, "ro", path)
      return way === "host" ? yield* linked(name, files) : `${seen[way]}/${name}`
    }),
    takeBack: (name) => Effect.ignore(takeBack(name), { log: "Warn" }),
    takeBackAll: (name, files) =>
      Effect.forEach(Object.keys(files), (one) => Effect.ignore(takeBack(`${name}/${one}`), { log: "Warn" }), {
        discard: true
      })
  }
}
