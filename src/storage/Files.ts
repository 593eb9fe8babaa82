/**
 * The few file operations that the content store needs, as effects that fail with `StorageFailed`: exact where Effect's
 * `FileSystem` is not (nanosecond times, exclusive creation, directories synced, names that are bytes).
 *
 * Trap: `publish` makes a *file* durable under its final name. A directory tree needs `sync -f` before its rename, which is
 * `Layers`' business.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as NodeStream from "@effect/platform-node/NodeStream"
import { createReadStream } from "node:fs"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { StorageFailed } from "./ContentError.ts"

const codeOf = (cause: unknown): string =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "EUNKNOWN"

export const storageFailed = (operation: string, file: string, cause: unknown): StorageFailed =>
  new StorageFailed({
    operation,
    path: file,
    code: codeOf(cause),
    problem: cause instanceof Error ? cause.message : String(cause)
  })

/** Runs a file operation; `operation` is the verb for the error ("write", "rename"). */
export const attempt = <A>(operation: string, file: string, run: () => Promise<A>): Effect.Effect<A, StorageFailed> =>
  Effect.tryPromise({ try: run, catch: (cause) => storageFailed(operation, file, cause) })

/** The operation's answer, or undefined when there is no such file (or a parent is none). */
export const ifThere = <A>(effect: Effect.Effect<A, StorageFailed>): Effect.Effect<A | undefined, StorageFailed> =>
  effect.pipe(
    Effect.catchIf(
      (error) => error.code === "ENOENT" || error.code === "ENOTDIR",
      () => Effect.undefined
    )
  )

/** Makes a directory and its parents, private to its owner; fine when it exists. */
export const makeDirectory = (directory: string): Effect.Effect<void, StorageFailed> =>
  attempt("create directory", directory, () => fs.mkdir(directory, { recursive: true, mode: 0o700 })).pipe(
    Effect.asVoid
  )

/** Removes a file or a tree without following symlinks; fine when there is none. */
export const remove = (file: string): Effect.Effect<void, StorageFailed> =>
  attempt("remove", file, () => fs.rm(file, { recursive: true, force: true, maxRetries: 2 }))

/** Whether there is something that can be looked at. */
export const exists = (path: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    fs.access(path).then(
      () => true,
      () => false
    )
  )

export const rename = (from: string, to: string): Effect.Effect<void, StorageFailed> =>
  attempt("rename", to, () => fs.rename(from, to))

/** The names in a directory; none when there is no such directory. */
export const names = (directory: string): Effect.Effect<ReadonlyArray<string>, StorageFailed> =>
  ifThere(attempt("read directory", directory, () => fs.readdir(directory))).pipe(Effect.map((list) => list ?? []))

/** Makes what was created, renamed or removed in a directory durable. */
export const syncDirectory = (directory: string): Effect.Effect<void, StorageFailed> =>
  attempt("sync", directory, async () => {
    const handle = await fs.open(directory, "r")
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  })

/** An open file until the scope closes. */
export const open = (file: string, flags: string | number): Effect.Effect<fs.FileHandle, StorageFailed, Scope.Scope> =>
  Effect.acquireRelease(
    attempt("open", file, () => fs.open(file, flags, 0o600)),
    (handle) => Effect.ignore(Effect.tryPromise(() => handle.close()))
  )

/** Writes all of the bytes at the file's position. */
export const writeAll = (handle: fs.FileHandle, file: string, bytes: Uint8Array): Effect.Effect<void, StorageFailed> =>
  attempt("write", file, () => handle.writeFile(bytes))

/** The same of several pieces, at once where the disk has room for all of them. */
export const writePieces = (
  handle: fs.FileHandle,
  file: string,
  pieces: ReadonlyArray<Uint8Array>
): Effect.Effect<void, StorageFailed> =>
  attempt("write", file, async () => {
    const { bytesWritten } = await handle.writev([...pieces])
    if (bytesWritten < pieces.reduce((sum, { length }) => sum + length, 0)) {
      await handle.writeFile(Buffer.concat(pieces).subarray(bytesWritten))
    }
  })

/** Syncs an open file, renames it and makes the new name durable: after this a power cut finds it whole or not at all. */
export const publish = Effect.fnUntraced(function* (
  handle: fs.FileHandle,
  from: string,
  to: string
): Effect.fn.Return<void, StorageFailed> {
  yield* attempt("sync", from, () => handle.sync())
  yield* rename(from, to)
  yield* syncDirectory(path.dirname(to))
})

/** A part of a file as a stream of pieces of at most 256 KiB; `length` undefined: to its end. */
export const read = (
  file: string,
  options: { readonly offset?: number; readonly length?: number } = {}
): Stream.Stream<Uint8Array, StorageFailed> =>
  options.length === 0
    ? Stream.empty
    : NodeStream.fromReadable({
        evaluate: () =>
          createReadStream(file, {
            start: options.offset ?? 0,
            ...(options.length === undefined ? {} : { end: (options.offset ?? 0) + options.length - 1 }),
            highWaterMark: 256 * 1024
          }),
        onError: (cause) => storageFailed("read", file, cause)
      })
