/**
 * Images out of the store: as an OCI layout directory or one tar archive of it, which `Content.importFrom`, docker, podman and
 * skopeo read. Every byte is checked on its way out, and the target appears whole or not at all.
 *
 * Trap: what exists under the target's name already is left alone, and the export refused.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import type { Blobs } from "./Blobs.ts"
import type { Exported, ImageRecord } from "./Content.ts"
import { BlobCorrupt, StorageFailed } from "./ContentError.ts"
import { type Digest, finish, hasher, parts } from "./Digest.ts"
import * as Files from "./Files.ts"
import { decode, ImageManifest, mediaTypes } from "./OciImage.ts"
import { paddingAfter } from "./Tar.ts"
import { encodeEntry, endOfArchive } from "./TarWriter.ts"

/** What is written, file by file, in the order in which it is best read. */
interface Output {
  readonly file: (
    name: string,
    size: number,
    bytes: Stream.Stream<Uint8Array, StorageFailed | BlobCorrupt>
  ) => Effect.Effect<void, StorageFailed | BlobCorrupt>
}

const directoryOutput = (root: string): Output => ({
  file: (name, _size, bytes) =>
    Effect.gen(function* () {
      const file = path.join(root, name)
      yield* Files.makeDirectory(path.dirname(file))
      const handle = yield* Files.open(file, "wx")
      yield* Stream.runForEach(bytes, (piece) => Files.writeAll(handle, file, piece))
      yield* Files.attempt("sync", file, () => handle.sync())
    }).pipe(Effect.scoped)
})

const header = (name: string, size: number) =>
  encodeEntry({
    name,
    type: "file",
    mode: 0o644,
    uid: 0,
    gid: 0,
    size,
    modified: { seconds: 0, nanoseconds: 0 },
    linkName: "",
    major: 0,
    minor: 0,
    xattrs: new Map()
  })

const archiveOutput = (handle: fs.FileHandle, file: string): Output => ({
  file: (name, size, bytes) =>
    Effect.gen(function* () {
      yield* Files.writeAll(handle, file, header(name, size))
      yield* Stream.runForEach(bytes, (piece) => Files.writeAll(handle, file, piece))
      yield* Files.writeAll(handle, file, new Uint8Array(paddingAfter(size)))
    })
})

/** A blob's bytes; fails at its end when they are not what its name says. */
const checked = (blobs: Blobs, digest: Digest): Stream.Stream<Uint8Array, StorageFailed | BlobCorrupt> =>
  Stream.suspend(() => {
    const hash = hasher(digest)
    const end = Effect.suspend(() => {
      const actual = finish(hash, digest)
      return actual === digest
        ? Effect.void
        : Effect.fail(new BlobCorrupt({ digest, problem: `in the store its bytes have the digest ${actual}` }))
    })
    return blobs.read(digest).pipe(
      Stream.tap((piece) => Effect.sync(() => void hash.update(piece))),
      Stream.concat(Stream.fromEffectDrain(end))
    )
  })

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

/** Writes the layout of these images. */
const write = Effect.fnUntraced(function* (output: Output, blobs: Blobs, images: ReadonlyArray<ImageRecord>) {
  const sizes = new Map((yield* blobs.list).map(({ digest, size }) => [digest, size]))
  const document = (name: string, value: unknown) => {
    const bytes = json(value)
    return output.file(name, bytes.length, Stream.succeed(bytes))
  }
  const manifests: Array<unknown> = []
  const wanted = new Set<Digest>()
  for (const image of images) {
    const bytes = Buffer.concat([...(yield* Stream.runCollect(checked(blobs, image.digest)))])
    // a manifest need not say what it is; who gave it did
    const said = yield* decode(
      ImageManifest,
      `manifest ${image.digest}`
    )(bytes).pipe(Effect.mapError(({ message }) => new BlobCorrupt({ digest: image.digest, problem: message })))
    const descriptor = {
      mediaType: said.mediaType ?? mediaTypes.manifest[0],
      digest: image.digest,
      size: bytes.length,
      platform: image.platform
    }
    const names = image.references.length > 0 ? image.references : [undefined]
    for (const name of names) {
      const annotations =
        name === undefined
          ? {}
          : {
              annotations: {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.slice(name.lastIndexOf(":") + 1)
              }
            }
      manifests.push({ ...descriptor, ...annotations })
    }
    for (const digest of [image.digest, image.configDigest, ...image.layers.map((layer) => layer.digest)]) {
      wanted.add(digest)
    }
  }
  yield* document("oci-layout", { imageLayoutVersion: "1.0.0" })
  yield* document("index.json", { schemaVersion: 2, mediaType: mediaTypes.index[0], manifests })
  let bytes = 0
  for (const digest of wanted) {
    const size = sizes.get(digest)
    if (size === undefined) return yield* new BlobCorrupt({ digest, problem: "it is not in the store" })
    const { algorithm, hex } = parts(digest)
    yield* output.file(`blobs/${algorithm}/${hex}`, size, checked(blobs, digest))
    bytes += size
  }
  return bytes
})

/** Writes the images to a path where nothing is yet. */
export const exportImages = Effect.fnUntraced(function* (
  blobs: Blobs,
  images: ReadonlyArray<ImageRecord>,
  target: string,
  archive: boolean
): Effect.fn.Return<Exported, StorageFailed | BlobCorrupt> {
  const taken = yield* Files.ifThere(Files.attempt("stat", target, () => fs.lstat(target)))
  if (taken !== undefined) {
    return yield* new StorageFailed({
      operation: "export to",
      path: target,
      code: "EEXIST",
      problem: "there is something already; name another path, or remove it first"
    })
  }
  const partial = `${target}.${randomUUID().slice(0, 8)}.partial`
  const make = archive
    ? Effect.gen(function* () {
        const handle = yield* Files.open(partial, "wx")
        const bytes = yield* write(archiveOutput(handle, partial), blobs, images)
        yield* Files.writeAll(handle, partial, endOfArchive)
        yield* Files.publish(handle, partial, target)
        return bytes
      }).pipe(Effect.scoped)
    : Effect.gen(function* () {
        yield* Files.makeDirectory(partial)
        const bytes = yield* write(directoryOutput(partial), blobs, images)
        yield* Files.rename(partial, target)
        yield* Files.syncDirectory(path.dirname(target))
        return bytes
      })
  const bytes = yield* Effect.onError(make, () => Effect.ignore(Files.remove(partial)))
  return { path: target, bytes, images: images.map(({ digest }) => digest) }
})
