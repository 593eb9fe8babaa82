/**
 * The blobs of the content store: files named by the digest of their bytes, as in an OCI layout (`blobs/sha256/<hex>`).
 *
 * `receive` verifies size and digest while the bytes stream through, and gives a blob its name only when it is whole and
 * on the disk; so a blob that is there is right. Until then it is a file in the temporary directory, which is emptied at start.
 *
 * A blob can be followed while it comes, so that a layer unpacks while it downloads: the file is the buffer between the two,
 * and neither holds up the other.
 *
 * Traps: what is followed has not been verified: nothing made of it may be kept before `receive` has succeeded. `receive` and
 * `remove` of one digest must not overlap; `Content` holds a lock per digest.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { BlobCorrupt, type StorageFailed } from "./ContentError.ts"
import { Digest, finish, hasher, isDigest, parts } from "./Digest.ts"
import * as Files from "./Files.ts"

export interface Blobs {
  /** Whether the blob is there with this size. */
  readonly has: (digest: Digest, size: number) => Effect.Effect<boolean, StorageFailed>
  /**
   * Stores the bytes when they are `size` and have the digest. `onBytes` hears of each piece that was written. `onFile` can
   * open what is to be read meanwhile: that ends with the blob, and never when the rest does not come.
   */
  readonly receive: <E, R>(
    digest: Digest,
    size: number,
    bytes: Stream.Stream<Uint8Array, E, R>,
    onBytes: (count: number) => Effect.Effect<void>,
    onFile?: (open: Following) => Effect.Effect<void, StorageFailed>
  ) => Effect.Effect<void, E | BlobCorrupt | StorageFailed, R>
  readonly read: (digest: Digest) => Stream.Stream<Uint8Array, StorageFailed>
  /** Every blob with its size. */
  readonly list: Effect.Effect<ReadonlyArray<{ readonly digest: Digest; readonly size: number }>, StorageFailed>
  readonly remove: (digest: Digest) => Effect.Effect<void, StorageFailed>
}

/** How far a file has come, for who reads it meanwhile. */
interface Growth {
  readonly size: number
  readonly written: () => number
  readonly add: (count: number) => void
  /** Until there is more than `position`. */
  readonly beyond: (position: number) => Effect.Effect<void>
}

const makeGrowth = (size: number): Growth => {
  let written = 0
  const waiting = new Set<() => void>()
  return {
    size,
    written: () => written,
    add: (count) => {
      written += count
      for (const wake of waiting) wake()
      waiting.clear()
    },
    beyond: (position) =>
      Effect.callback((resume) => {
        if (written > position) return resume(Effect.void)
        const wake = () => resume(Effect.void)
        waiting.add(wake)
        return Effect.sync(() => void waiting.delete(wake))
      })
  }
}

const pieceBytes = 256 * 1024

/** Opens a file of which the rest is still to come; it may be renamed after that. */
type Following = Effect.Effect<Stream.Stream<Uint8Array, StorageFailed>, StorageFailed, Scope.Scope>

const following = (file: string, growth: Growth): Following =>
  Effect.map(Files.open(file, "r"), (handle) =>
    Stream.unfold(0, (position) =>
      Effect.gen(function* () {
        if (position >= growth.size) return undefined
        yield* growth.beyond(position)
        const length = Math.min(growth.written() - position, pieceBytes)
        const buffer = Buffer.allocUnsafe(length)
        const { bytesRead } = yield* Files.attempt("read", file, () => handle.read(buffer, 0, length, position))
        return [buffer.subarray(0, bytesRead), position + bytesRead] as const
      })
    )
  )

const algorithms = ["sha256", "sha512"] as const

/** `directory` holds the blobs and `temporary` what is not yet one, on the same file system. */
export const make = Effect.fnUntraced(function* (
  directory: string,
  temporary: string
): Effect.fn.Return<Blobs, StorageFailed> {
  for (const algorithm of algorithms) yield* Files.makeDirectory(path.join(directory, algorithm))
  let received = 0

  const fileOf = (digest: Digest): string => {
    const { algorithm, hex } = parts(digest)
    return path.join(directory, algorithm, hex)
  }

  const sizeOf = (file: string) =>
    Files.ifThere(Files.attempt("stat", file, () => fs.lstat(file))).pipe(
      Effect.map((stat) => (stat?.isFile() === true ? stat.size : undefined))
    )

  const receive = Effect.fnUntraced(function* <E, R>(
    digest: Digest,
    size: number,
    bytes: Stream.Stream<Uint8Array, E, R>,
    onBytes: (count: number) => Effect.Effect<void>,
    onFile?: (open: Following) => Effect.Effect<void, StorageFailed>
  ) {
    const file = path.join(temporary, `blob-${received++}`)
    const hash = hasher(digest)
    let count = 0
    const store = Effect.gen(function* () {
      const handle = yield* Files.open(file, "wx")
      const growth = makeGrowth(size)
      if (onFile !== undefined) yield* onFile(following(file, growth))
      yield* Stream.runForEach(bytes, (piece): Effect.Effect<void, BlobCorrupt | StorageFailed> => {
        count += piece.length
        if (count > size) {
          return Effect.fail(new BlobCorrupt({ digest, problem: `it has more than the ${size} bytes declared` }))
        }
        hash.update(piece)
        return Effect.andThen(Files.writeAll(handle, file, piece), () => {
          growth.add(piece.length)
          return onBytes(piece.length)
        })
      })
      if (count < size) {
        return yield* new BlobCorrupt({ digest, problem: `it has ${count} bytes, not the ${size} declared` })
      }
      const actual = finish(hash, digest)
      if (actual !== digest) return yield* new BlobCorrupt({ digest, problem: `its bytes have the digest ${actual}` })
      return yield* Files.publish(handle, file, fileOf(digest))
    })
    yield* Effect.scoped(store).pipe(Effect.onError(() => Effect.ignore(Files.remove(file))))
  })

  const list = Effect.gen(function* () {
    const found: Array<{ readonly digest: Digest; readonly size: number }> = []
    for (const algorithm of algorithms) {
      for (const name of yield* Files.names(path.join(directory, algorithm))) {
        const digest = `${algorithm}:${name}`
        const size = yield* sizeOf(path.join(directory, algorithm, name))
        if (isDigest(digest) && size !== undefined) found.push({ digest, size })
      }
    }
    return found
  })

  return {
    has: (digest, size) => Effect.map(sizeOf(fileOf(digest)), (actual) => actual === size),
    receive,
    read: (digest) => Files.read(fileOf(digest)),
    list,
    remove: (digest) => Files.remove(fileOf(digest))
  }
})
