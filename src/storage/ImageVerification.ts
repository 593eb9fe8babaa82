/**
 * Looks through the whole store: is every blob what its name says, is all there that the images' records promise, and is every
 * unpacked layer still what its blob says. For after an unclean end, for a disk that is not trusted, for whoever wants to know.
 *
 * `quick` asks only for presence and sizes, which takes milliseconds; else every byte is read. With `repair` what is damaged and
 * unused goes, with the records of the images that had it, so that the next pull or import brings it anew; what a container
 * uses is only told.
 *
 * Trap: images come and go meanwhile: what is missing is damage only if its image is still there at the second look.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Blobs } from "./Blobs.ts"
import { decompress } from "./Compression.ts"
import type { Damage, ImageRecord, IndexError, VerifyOptions, VerifyReport } from "./Content.ts"
import { BlobCorrupt, type LayerRefused, type StorageFailed, type UnpackFailed } from "./ContentError.ts"
import { type Digest, finish, hasher } from "./Digest.ts"
import type { Layers } from "./Layers.ts"
import { layerCompression } from "./OciImage.ts"

/** What the store lends. */
export interface Lent {
  readonly blobs: Blobs
  readonly layers: Layers["Service"]
  readonly list: Effect.Effect<ReadonlyArray<ImageRecord>, IndexError>
  readonly usersOf: (digest: Digest) => Effect.Effect<ReadonlyArray<string>>
  /** Removes a record with its names, then the blob or layer, under the locks that this takes. */
  readonly drop: (damage: Damage, images: ReadonlyArray<ImageRecord>) => Effect.Effect<void, IndexError>
}

const namesOf = ({ digest, digests, references }: ImageRecord): string => references[0] ?? digests[0] ?? digest

/** Layers side by side: each keeps a process and a core busy. */
const parallel = 2

export const verify = Effect.fnUntraced(function* (
  { blobs, drop, layers, list, usersOf }: Lent,
  { onProgress = () => Effect.void, quick = false, repair = false }: VerifyOptions
): Effect.fn.Return<VerifyReport, IndexError> {
  const images = yield* list
  const damages: Array<Omit<Damage, "removed">> = []
  const damaged = (kind: Damage["kind"], digest: Digest, problem: string) => {
    const has = (image: ImageRecord) =>
      image.digest === digest ||
      image.configDigest === digest ||
      image.layers.some((layer) => layer.digest === digest || layer.chainId === digest)
    damages.push({ kind, digest, problem, images: images.filter(has).map(namesOf) })
  }

  // each once, however many images have it
  const wantedBlobs = new Map<Digest, number | undefined>()
  const wantedLayers = new Map<Digest, { readonly image: ImageRecord; readonly position: number }>()
  for (const image of images) {
    for (const digest of [image.digest, image.configDigest]) wantedBlobs.set(digest, undefined)
    for (const [position, { chainId, digest, size }] of image.layers.entries()) {
      wantedBlobs.set(digest, size)
      wantedLayers.set(chainId, { image, position })
    }
  }
  const stored = new Map((yield* blobs.list).map(({ digest, size }) => [digest, size]))
  const total = (quick ? 0 : stored.size) + wantedLayers.size
  let done = 0
  const step = Effect.suspend(() => onProgress({ done: ++done, total }))

  for (const [digest, size] of wantedBlobs) {
    const actual = stored.get(digest)
    if (actual === undefined) damaged("blob", digest, "it is not there")
    else if (size !== undefined && actual !== size) damaged("blob", digest, `it has ${actual} bytes, not ${size}`)
  }

  const hashed = (digest: Digest) =>
    Effect.suspend(() => {
      const hash = hasher(digest)
      return Effect.map(
        Stream.runForEach(blobs.read(digest), (piece) => Effect.sync(() => void hash.update(piece))),
        () => finish(hash, digest)
      )
    })
  if (!quick) {
    const bad = new Set(damages.map(({ digest }) => digest))
    yield* Effect.forEach(
      stored.keys(),
      (digest) =>
        hashed(digest).pipe(
          Effect.match({
            onSuccess: (actual) => {
              if (actual !== digest && !bad.has(digest)) damaged("blob", digest, `its bytes have the digest ${actual}`)
            },
            onFailure: (error) => {
              if (error.code !== "ENOENT") damaged("blob", digest, error.message)
            }
          }),
          Effect.andThen(step)
        ),
      { concurrency: parallel, discard: true }
    )
  }

  const badBlobs = new Set(damages.map(({ digest }) => digest))
  const problemsOf = Effect.fnUntraced(function* (
    chainId: Digest,
    image: ImageRecord,
    position: number
  ): Effect.fn.Return<ReadonlyArray<string>, LayerRefused | BlobCorrupt | UnpackFailed | StorageFailed> {
    if (!(yield* layers.has(chainId))) return ["it is not there"]
    const layer = image.layers[position]
    const compression = layer === undefined ? undefined : layerCompression(layer.mediaType)
    // without its blob nobody can tell what it should be
    if (quick || layer === undefined || compression === undefined || badBlobs.has(layer.digest)) return []
    const { diffId, digest, size } = layer
    return yield* layers.compare({
      chain: image.layers.slice(0, position + 1).map((one) => one.chainId),
      blob: digest,
      blobBytes: size,
      diffId,
      tar: decompress(blobs.read(digest), compression, (problem) => new BlobCorrupt({ digest, problem }))
    })
  })
  yield* Effect.forEach(
    wantedLayers,
    ([chainId, { image, position }]) =>
      problemsOf(chainId, image, position).pipe(
        Effect.match({
          onSuccess: ([problem]) => {
            if (problem !== undefined) damaged("layer", chainId, problem)
          },
          onFailure: ({ message }) => damaged("layer", chainId, message)
        }),
        Effect.andThen(step)
      ),
    { concurrency: parallel, discard: true }
  )

  // the second look
  const now = yield* list
  const told: Array<Damage> = []
  for (const damage of damages) {
    const having = now.filter((image) => damage.images.includes(namesOf(image)))
    if (having.length === 0 && damage.images.length > 0) continue
    const users = (yield* Effect.forEach(having, ({ digest }) => usersOf(digest))).flat()
    const removed = repair && users.length === 0
    const shown = { ...damage, removed }
    if (removed) yield* drop(shown, having)
    told.push(shown)
  }
  return { images: images.length, blobs: stored.size, layers: wantedLayers.size, damages: told }
})
