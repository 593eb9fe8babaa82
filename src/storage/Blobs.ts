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
import { collectYoung } from "./YoungCollection.ts"
import { BlobCorrupt, type StorageFailed } from "./ContentError.ts"
import { Digest, finish, hasher, isDigest, parts } from "./Digest.ts"
import * as Files from "./Files.ts"

export interface Blobs {
  /** Whether the blob is there with this size. */
  readonly has: (digest: Digest, size: number) => Effect.Effect<boolean, StorageFailed>
  /**
   * Stores the bytes when they are `size` and have the digest. `onBytes` hears of each piece that was written. `onFile` can
   * open what is to be read meanwhile.
   */
  readonly receive: <E, R>(
    digest: Digest,
    size: number,
    bytes: Stream.Stream<Uint8Array, E, R>,
    onBytes: (count: number) => Effect.Effect<void>,
    onFile?: (open: Opened) => Effect.Effect<void, StorageFailed>
  ) => Effect.Effect<void, E | BlobCorrupt | StorageFailed, R>
  /** A blob that is there, as one that has come. */
  readonly open: (digest: Digest, size: number) => Opened
  readonly read: (digest: Digest) => Stream.Stream<Uint8Array, StorageFailed>
  /** Every blob with its size. */
  readonly list: Effect.Effect<ReadonlyArray<{ readonly digest: Digest; readonly size: number }>, StorageFailed>
  readonly remove: (digest: Digest) => Effect.Effect<void, StorageFailed>
}

/** Bytes that may lie about in buffers that nobody has any more. */
const COLLECT_EVERY = 8 * 1024 * 1024

/** A file that other programs can open while the rest of it is still to come, whatever becomes of its name. */
export interface Coming<E = never, R = never> {
  /** Good while the scope is open that opened it. */
  readonly file: string
  readonly size: number
  /** How many bytes there are, as soon as these are more than `position`: waits for ever when the rest does not come. */
  readonly beyond: (position: number) => Effect.Effect<number, E, R>
}

type Opened = Effect.Effect<Coming, StorageFailed, Scope.Scope>

/** How far a file has come, for who reads it meanwhile. */
interface Growth {
  readonly add: (count: number) => void
  readonly beyond: (position: number) => Effect.Effect<number>
}

const makeGrowth = (): Growth => {
  let written = 0
  const waiting = new Set<() => void>()
  return {
    add: (count) => {
      written += count
      for (const look of waiting) look()
    },
    beyond: (position) =>
      Effect.callback((resume) => {
        const look = () => {
          if (written <= position) return
          waiting.delete(look)
          resume(Effect.succeed(written))
        }
        waiting.add(look)
        look()
        return Effect.sync(() => void waiting.delete(look))
      })
  }
}

const opened = (file: string, size: number, beyond: Growth["beyond"]): Opened =>
  Effect.map(Files.open(file, "r"), ({ fd }) => ({ file: `/proc/${process.pid}/fd/${fd}`, size, beyond }))

const algorithms = ["sha256", "sha512"] as const

/** `directory` holds the blobs and `temporary` what is not yet one, on the same file system. */
export const make = Effect.fnUntraced(function* (
  directory: string,
  temporary: string
): Effect.fn.Return<Blobs, StorageFailed> {
  for (const algorithm of algorithms) yield* Files.makeDirectory(path.join(directory, algorithm))
  let received = 0
  /** Bytes that have come in buffers since the last collection of them. */
  let uncollected = 0

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
    onFile?: (open: Opened) => Effect.Effect<void, StorageFailed>
  ) {
    const file = path.join(temporary, `blob-${received++}`)
    const hash = hasher(digest)
    let count = 0
    const store = Effect.gen(function* () {
      const handle = yield* Files.open(file, "wx")
      const growth = makeGrowth()
      if (onFile !== undefined) yield* onFile(opened(file, size, growth.beyond))
      yield* Stream.runForEachArray(bytes, (pieces): Effect.Effect<void, BlobCorrupt | StorageFailed> => {
        let brought = 0
        for (const piece of pieces) {
          brought += piece.length
          if (count + brought > size) {
            return Effect.fail(new BlobCorrupt({ digest, problem: `it has more than the ${size} bytes declared` }))
          }
          hash.update(piece)
        }
        count += brought
        uncollected += brought
        if (uncollected >= COLLECT_EVERY) {
          uncollected = 0
          collectYoung()
        }
        return Effect.andThen(Files.writePieces(handle, file, pieces), () => {
          growth.add(brought)
          return onBytes(brought)
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
    open: (digest, size) => opened(fileOf(digest), size, () => Effect.succeed(size)),
    read: (digest) => Files.read(fileOf(digest)),
    list,
    remove: (digest) => Files.remove(fileOf(digest))
  }
})
