/**
 * The blobs of the content store: files named by the digest of their bytes, as in an OCI layout (`blobs/sha256/<hex>`).
 *
 * `receive` verifies size and digest while the bytes stream through, and gives a blob its name only when it is whole and
 * on the disk; so a blob that is there is right, and nobody ever reads a byte of one that is not. Until then it is a file in
 * the temporary directory, which is emptied at start.
 *
 * Trap: `receive` and `remove` of one digest must not overlap; `Content` holds a lock per digest.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { BlobCorrupt, type StorageFailed } from "./ContentError.ts"
import { Digest, finish, hasher, isDigest, parts } from "./Digest.ts"
import * as Files from "./Files.ts"

export interface Blobs {
  /** Whether the blob is there with this size. */
  readonly has: (digest: Digest, size: number) => Effect.Effect<boolean, StorageFailed>
  /** Stores the bytes when they are `size` and have the digest. `onBytes` hears of each piece that was written. */
  readonly receive: <E, R>(
    digest: Digest,
    size: number,
    bytes: Stream.Stream<Uint8Array, E, R>,
    onBytes: (count: number) => Effect.Effect<void>
  ) => Effect.Effect<void, E | BlobCorrupt | StorageFailed, R>
  readonly read: (digest: Digest) => Stream.Stream<Uint8Array, StorageFailed>
  /** Every blob with its size. */
  readonly list: Effect.Effect<ReadonlyArray<{ readonly digest: Digest; readonly size: number }>, StorageFailed>
  readonly remove: (digest: Digest) => Effect.Effect<void, StorageFailed>
}

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
    onBytes: (count: number) => Effect.Effect<void>
  ) {
    const file = path.join(temporary, `blob-${received++}`)
    const hash = hasher(digest)
    let count = 0
    const store = Effect.gen(function* () {
      const handle = yield* Files.open(file, "wx")
      yield* Stream.runForEach(bytes, (piece): Effect.Effect<void, BlobCorrupt | StorageFailed> => {
        count += piece.length
        if (count > size) {
          return Effect.fail(new BlobCorrupt({ digest, problem: `it has more than the ${size} bytes declared` }))
        }
        hash.update(piece)
        return Effect.andThen(Files.writeAll(handle, file, piece), onBytes(piece.length))
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
