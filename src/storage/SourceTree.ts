/**
 * The files of an image source by name, wherever they are: below a directory, or inside a tar file that is indexed and
 * not unpacked (one pass over the headers; a file is then read where it lies).
 *
 * Trap: a tar file that is packed as a whole (`.tar.gz`) cannot be read in the middle: `unpacked` first.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { decompress } from "./Compression.ts"
import { SourceInvalid, type StorageFailed } from "./ContentError.ts"
import * as Files from "./Files.ts"
import { makeTarReader } from "./TarReader.ts"

/** Files by name, wherever they are. */
export interface SourceTree {
  readonly find: (
    name: string
  ) => Effect.Effect<
    { readonly size: number; readonly read: (limit?: number) => Stream.Stream<Uint8Array, StorageFailed> } | undefined,
    StorageFailed
  >
}

/** The files below a directory. */
export const directoryTree = (root: string): SourceTree => ({
  find: (name) => {
    const file = path.join(root, name)
    // Layouts made of symlinks exist (Bazel); what is no regular file in the end (a fifo) would block.
    return Files.ifThere(Files.attempt("stat", file, () => fs.stat(file))).pipe(
      Effect.map((stat) =>
        stat?.isFile() === true
          ? {
              size: stat.size,
              read: (limit?: number) => Files.read(file, { length: Math.min(stat.size, limit ?? stat.size) })
            }
          : undefined
      )
    )
  }
})

const archiveLimits = { headerBytes: 1024 * 1024, entries: 200_000, links: 32 }

type ArchiveEntry =
  | { readonly _tag: "File"; readonly offset: number; readonly size: number }
  | { readonly _tag: "Link"; readonly to: string }

/** Reads the headers of a tar file, contents skipped. */
export const archiveTree = Effect.fnUntraced(function* (
  file: string,
  shownPath: string
): Effect.fn.Return<SourceTree, SourceInvalid | StorageFailed> {
  const invalid = (problem: string) => new SourceInvalid({ path: shownPath, problem })
  const index = Effect.gen(function* () {
    const entries = new Map<string, ArchiveEntry>()
    const handle = yield* Files.open(file, "r")
    const { size } = yield* Files.attempt("stat", file, () => handle.stat())
    const buffer = Buffer.alloc(16 * 1024)
    const reader = makeTarReader(
      {
        entry: (entry) => {
          if (entries.size >= archiveLimits.entries) return `is one of more than ${archiveLimits.entries} entries`
          if (reader.offset() + entry.size > size) return "is cut off: the archive ends before its content does"
          const name = path.posix.normalize(entry.name)
          if (entry.type === "file") entries.set(name, { _tag: "File", offset: reader.offset(), size: entry.size })
          else if (entry.type === "hardlink") {
            entries.set(name, { _tag: "Link", to: path.posix.normalize(entry.linkName) })
          } else if (entry.type === "symlink") {
            entries.set(name, { _tag: "Link", to: path.posix.join(path.posix.dirname(name), entry.linkName) })
          }
          return undefined
        },
        data: () => {}
      },
      archiveLimits
    )
    let position = 0
    while (!reader.ended()) {
      const { bytesRead } = yield* Files.attempt("read", file, () => handle.read(buffer, 0, buffer.length, position))
      const fault = bytesRead === 0 ? reader.end() : reader.push(buffer.subarray(0, bytesRead))
      if (fault !== undefined) {
        return yield* invalid(
          entries.size === 0
            ? `it is neither a directory nor a tar archive: "${fault.entry}" ${fault.problem}`
            : `entry "${fault.entry}" ${fault.problem}`
        )
      }
      if (bytesRead === 0) break
      position += bytesRead + reader.skippable()
      reader.skip()
    }
    return entries
  })
  const entries = yield* Effect.scoped(index)

  const resolve = (name: string, followed = 0): ArchiveEntry | undefined => {
    const entry = entries.get(name)
    return entry?._tag === "Link" && followed < archiveLimits.links ? resolve(entry.to, followed + 1) : entry
  }
  return {
    find: (name) => {
      const entry = resolve(path.posix.normalize(name))
      return Effect.succeed(
        entry?._tag !== "File"
          ? undefined
          : {
              size: entry.size,
              read: (limit?: number) =>
                Files.read(file, { offset: entry.offset, length: Math.min(entry.size, limit ?? entry.size) })
            }
      )
    }
  }
})

/** How much a packed archive may become. */
const maximumArchiveBytes = 256 * 1024 ** 3

/** Unpacks a gzip or zstd file beside the store, so that it can be indexed; removed with the scope. */
export const unpacked = Effect.fnUntraced(function* (
  source: string,
  compression: "gzip" | "zstd",
  temporary: string
): Effect.fn.Return<string, SourceInvalid | StorageFailed, Scope.Scope> {
  const file = yield* Effect.acquireRelease(
    Effect.sync(() => path.join(temporary, `archive-${randomUUID()}`)),
    (made) => Effect.ignore(Files.remove(made))
  )
  const handle = yield* Files.open(file, "wx")
  let count = 0
  yield* Files.read(source).pipe(
    (bytes) => decompress(bytes, compression, (problem) => new SourceInvalid({ path: source, problem })),
    Stream.runForEach((bytes): Effect.Effect<void, SourceInvalid | StorageFailed> => {
      count += bytes.length
      return count > maximumArchiveBytes
        ? Effect.fail(
            new SourceInvalid({ path: source, problem: `it unpacks to more than ${maximumArchiveBytes} bytes` })
          )
        : Files.writeAll(handle, file, bytes)
    })
  )
  return file
})
