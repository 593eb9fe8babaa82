/**
 * Where snapshots are kept: `snapshots/<machine>/<snapshot>/`, each a directory with its manifest and its files. One is written under
 * a name that begins with a point, and gets its own when all of it is on the disk: it is there whole, or not at all.
 *
 * Trap: directories that begin with a point are of no use to anybody after the death of who was writing them
 * ({@link clearAsides}).
 */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import type { StorageFailed } from "../storage/ContentError.ts"
import { Digest } from "../storage/Digest.ts"
import * as Files from "../storage/Files.ts"
import { SnapshotNotFound, SnapshotUnusable } from "./SnapshotError.ts"
import { filesOf, type SnapshotFile, SnapshotManifest } from "./SnapshotManifest.ts"
import type { VmPaths } from "./VmPaths.ts"

const MANIFEST = "manifest.json"
/** What the name of one that is not whole begins with; no name of a snapshot does. */
const ASIDE = "."
const MOST_MANIFEST = 1_048_576
/** What is read at once. */
const PIECE = 1_048_576

export const directoryOf = (paths: VmPaths, name: string, snapshot: string): string =>
  join(paths.snapshots, name, snapshot)
export const asideOf = (paths: VmPaths, name: string, snapshot: string): string =>
  join(paths.snapshots, name, `${ASIDE}${snapshot}`)

const Text = Schema.fromJsonString(Schema.toCodecJson(SnapshotManifest))

/** The names of a machine's snapshots, in their order. */
export const names = (paths: VmPaths, name: string): Effect.Effect<ReadonlyArray<string>, StorageFailed> =>
  Effect.map(Files.names(join(paths.snapshots, name)), (found) =>
    found.filter((one) => !one.startsWith(ASIDE)).toSorted()
  )

export const read = (
  paths: VmPaths,
  name: string,
  snapshot: string
): Effect.Effect<SnapshotManifest, SnapshotNotFound | SnapshotUnusable> => {
  const unusable = (problem: string) => new SnapshotUnusable({ name, snapshot, problem })
  const file = join(directoryOf(paths, name, snapshot), MANIFEST)
  return Effect.gen(function* () {
    if (snapshot.startsWith(ASIDE)) return yield* new SnapshotNotFound({ name, snapshot })
    const found = yield* names(paths, name)
    if (!found.includes(snapshot)) return yield* new SnapshotNotFound({ name, snapshot })
    const stat = yield* Files.attempt("look at", file, () => fs.stat(file))
    if (stat.size > MOST_MANIFEST) return yield* unusable(`${file} is too long`)
    const text = yield* Files.attempt("read", file, () => fs.readFile(file, "utf8"))
    const manifest = yield* Schema.decodeEffect(Text)(text)
    // a directory that was copied or renamed: its paths would be another one's
    const own = [manifest.name, manifest.spec.name, manifest.snapshot]
    if (!Equal.equals(own, [name, name, snapshot])) {
      return yield* unusable(`${file} is of snapshot ${manifest.snapshot} of ${manifest.name}`)
    }
    return manifest
  }).pipe(
    Effect.catchTags({
      StorageFailed: ({ message }) => unusable(message),
      SchemaError: ({ message }) => unusable(`${file}: ${message}`)
    })
  )
}

/** A file's length and what is in it. One piece is read while another one is hashed: memory is hundreds of them. */
export const describe = (directory: string, name: string): Effect.Effect<SnapshotFile, StorageFailed> => {
  const path = join(directory, name)
  return Effect.gen(function* () {
    const file = yield* Files.open(path, "r")
    const hash = createHash("sha256")
    const buffers = [Buffer.allocUnsafe(PIECE), Buffer.allocUnsafe(PIECE)] as const
    const readInto = (buffer: Buffer) =>
      Effect.map(
        Files.attempt("read", path, () => file.read(buffer, 0, PIECE, null)),
        ({ bytesRead }) => buffer.subarray(0, bytesRead)
      )
    let size = 0
    let piece = yield* readInto(buffers[0])
    for (let turn = 1; piece.length > 0; turn++) {
      const present = piece
      const hashed = Effect.sync(() => hash.update(present))
      const [next] = yield* Effect.all([readInto(buffers[turn % 2 === 0 ? 0 : 1]), hashed], { concurrency: 2 })
      size += present.length
      piece = next
    }
    return { name, size, digest: Digest.make(`sha256:${hash.digest("hex")}`) }
  }).pipe(Effect.scoped)
}

/** Fails with the first of its files that is not what it was; `memory`: also that of its memory. */
export const verify = (
  paths: VmPaths,
  manifest: SnapshotManifest,
  memory: boolean
): Effect.Effect<void, SnapshotUnusable> => {
  const { name, snapshot } = manifest
  const directory = directoryOf(paths, name, snapshot)
  const unusable = (problem: string) => new SnapshotUnusable({ name, snapshot, problem })
  return Effect.forEach(
    filesOf(manifest, memory),
    (file) =>
      Effect.gen(function* () {
        const path = join(directory, file.name)
        const stat = yield* Files.ifThere(Files.attempt("look at", path, () => fs.stat(path)))
        if (stat === undefined) return yield* unusable(`${path} is missing`)
        if (stat.size !== file.size) return yield* unusable(`${path} has ${stat.size} bytes instead of ${file.size}`)
        const found = yield* describe(directory, file.name)
        if (found.digest !== file.digest) return yield* unusable(`${path} is damaged: it is not what was written`)
      }).pipe(Effect.catchTag("StorageFailed", ({ message }) => unusable(message))),
    { discard: true }
  )
}

/** An empty directory for one that is being written. */
export const begin = (paths: VmPaths, name: string, snapshot: string): Effect.Effect<string, StorageFailed> => {
  const aside = asideOf(paths, name, snapshot)
  return Files.remove(aside).pipe(Effect.andThen(Files.makeDirectory(aside)), Effect.as(aside))
}

/** Gives a snapshot its name; its files are on the disk by then. */
export const seal = (paths: VmPaths, manifest: SnapshotManifest): Effect.Effect<void, StorageFailed> => {
  const aside = asideOf(paths, manifest.name, manifest.snapshot)
  const file = join(aside, MANIFEST)
  return Effect.gen(function* () {
    const text = yield* Effect.orDie(Schema.encodeEffect(Text)(manifest))
    const handle = yield* Files.open(file, "wx")
    yield* Files.writeAll(handle, file, Buffer.from(`${text}\n`))
    yield* Files.attempt("sync", file, () => handle.sync())
    yield* Files.syncDirectory(aside)
    yield* Files.rename(aside, directoryOf(paths, manifest.name, manifest.snapshot))
    yield* Files.syncDirectory(join(paths.snapshots, manifest.name))
  }).pipe(Effect.scoped)
}

/** Fine when it is not there. First it loses its name. */
export const remove = (paths: VmPaths, name: string, snapshot: string): Effect.Effect<void, StorageFailed> => {
  const aside = asideOf(paths, name, snapshot)
  return Effect.gen(function* () {
    yield* Files.remove(aside)
    yield* Files.ifThere(Files.rename(directoryOf(paths, name, snapshot), aside))
    yield* Files.ifThere(Files.syncDirectory(join(paths.snapshots, name)))
    yield* Files.remove(aside)
  })
}

/** All of a machine's. */
export const removeAll = (paths: VmPaths, name: string): Effect.Effect<void, StorageFailed> =>
  Files.remove(join(paths.snapshots, name))

/** What was being written, or taken away, when an earlier brain died. */
export const clearAsides = (paths: VmPaths): Effect.Effect<void, StorageFailed> =>
  Effect.gen(function* () {
    for (const name of yield* Files.names(paths.snapshots)) {
      const directory = join(paths.snapshots, name)
      for (const one of yield* Files.names(directory)) {
        if (one.startsWith(ASIDE)) yield* Files.remove(join(directory, one))
      }
    }
  })
