/**
 * `SystemFiles`: the files and processes of a system that containers run on, as far as running them takes: this host (`ofHost`),
 * or a guest, where a small program does the same (`files` beside its taproot).
 *
 * Use it for everything that lies where the containers run: bundles, the OCI runtime's state, cgroups, /proc. What belongs to
 * Ironwood itself (images, logs, the database) is on the host and no business of this.
 *
 * Trap: a name means what it means there: paths and pids of a guest are not this host's.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type FSWatcher, watch } from "node:fs"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import { kill } from "node:process"

/** A file operation did not succeed; `code` is the errno's name (`ENOENT`). */
export class FileFailed extends Schema.TaggedError<FileFailed>()("FileFailed", {
  path: Schema.String,
  code: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.problem}`
  }
}

/** There is no such thing, or the whole system is not there any more. */
export const isGone = ({ code }: FileFailed): boolean =>
  ["ENOENT", "ENODEV", "ENOTDIR", "ESRCH", "ENOTCONN"].includes(code)

/** What /proc has of a process: its `stat`, its `status` and its words, which end with NUL each. */
export interface ProcessFacts {
  readonly pid: number
  readonly stat: string
  readonly status: string
  readonly command: string
}

export interface SystemFiles {
  /** All of a file; at most a mebibyte. */
  readonly read: (path: string) => Effect.Effect<Buffer, FileFailed>
  /** In place of what was there. */
  readonly write: (path: string, content: string | Uint8Array, mode?: number) => Effect.Effect<void, FileFailed>
  readonly list: (
    path: string
  ) => Effect.Effect<ReadonlyArray<{ readonly name: string; readonly isDirectory: boolean }>, FileFailed>
  /** With all below it; none is fine. */
  readonly remove: (path: string) => Effect.Effect<void, FileFailed>
  readonly removeDirectory: (path: string) => Effect.Effect<void, FileFailed>
  /** With those above it, closed to others; one that is there is fine. */
  readonly makeDirectory: (path: string) => Effect.Effect<void, FileFailed>
  /** SIGKILL. */
  readonly kill: (pid: number) => Effect.Effect<void, FileFailed>
  /** Of these processes, or of all; those that have ended are left out. */
  readonly processes: (pids?: ReadonlyArray<number>) => Effect.Effect<ReadonlyArray<ProcessFacts>>
  /** Seconds since it was booted. */
  readonly uptime: Effect.Effect<number>
  /** Calls `told` in the scope, from now on, whenever the content of a file may have changed. */
  readonly onChange: (path: string, told: () => void) => Effect.Effect<void, never, Scope.Scope>
}

const codeOf = (error: unknown): string =>
  Predicate.hasProperty(error, "code") && typeof error.code === "string" ? error.code : "EUNKNOWN"

const attempt = <A>(path: string, operation: () => Promise<A>): Effect.Effect<A, FileFailed> =>
  Effect.tryPromise({
    try: operation,
    catch: (error) =>
      new FileFailed({
        path,
        code: codeOf(error),
        problem: error instanceof Error ? error.message : String(error)
      })
  })

const factsOf = async (pid: number): Promise<ProcessFacts | undefined> => {
  try {
    const [stat, status, command] = await Promise.all([
      fs.readFile(`/proc/${pid}/stat`, "latin1"),
      fs.readFile(`/proc/${pid}/status`, "latin1"),
      fs.readFile(`/proc/${pid}/cmdline`, "utf8")
    ])
    return { pid, stat, status, command }
  } catch {
    // it has ended
    return undefined
  }
}

/** Calls `told` when the kernel has news about a file; undefined where there is no such file. */
const watched = (file: string, told: () => void): FSWatcher | undefined => {
  try {
    const watcher = watch(file, { persistent: false }, told)
    // it is gone, which nobody waits for
    watcher.on("error", () => {})
    return watcher
  } catch {
    return undefined
  }
}

/** Those of this host, as the brain sees them. */
export const ofHost: SystemFiles = {
  read: (path) => attempt(path, () => fs.readFile(path)),
  write: (path, content, mode = 0o600) => attempt(path, () => fs.writeFile(path, content, { mode })),
  list: (path) =>
    Effect.map(
      attempt(path, () => fs.readdir(path, { withFileTypes: true })),
      (entries) => entries.map((entry) => ({ name: entry.name, isDirectory: entry.isDirectory() }))
    ),
  remove: (path) =>
    attempt(path, async () => {
      try {
        await fs.unlink(path)
      } catch (error) {
        if (codeOf(error) !== "ENOENT") await fs.rm(path, { recursive: true, force: true })
      }
    }),
  removeDirectory: (path) => attempt(path, () => fs.rmdir(path)),
  makeDirectory: (path) => Effect.asVoid(attempt(path, () => fs.mkdir(path, { recursive: true, mode: 0o700 }))),
  kill: (pid) =>
    attempt(`/proc/${pid}`, async () => {
      kill(pid, "SIGKILL")
    }),
  processes: (pids) =>
    Effect.promise(async () => {
      const wanted = pids ?? (await fs.readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number)
      return (await Promise.all(wanted.map(factsOf))).filter((facts) => facts !== undefined)
    }),
  // a look of some microseconds, where a file that is read takes a turn of the thread pool
  uptime: Effect.sync(() => os.uptime()),
  onChange: (path, told) =>
    Effect.asVoid(
      Effect.acquireRelease(
        Effect.sync(() => watched(path, told)),
        (watcher) => Effect.sync(() => watcher?.close())
      )
    )
}

/** The text of a file; empty when there is none. */
export const textOf = ({ read }: SystemFiles, path: string): Effect.Effect<string, FileFailed> =>
  read(path).pipe(
    Effect.map((bytes) => bytes.toString("latin1")),
    Effect.catchIf(isGone, () => Effect.succeed(""))
  )
