/**
 * Puts one image into the store, from wherever its bytes come: documents and blobs, the layers unpacked beside them, and at last the
 * records that make it an image. What fails before that leaves whole blobs and layers that no record names; `Content` clears these away.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type * as Blobs from "./Blobs.ts"
import type { ImageLayer, ImportProgress } from "./Content.ts"
import type { StorageFailed } from "./ContentError.ts"
import type { Digest } from "./Digest.ts"
import { type ImageIndex, isCalled } from "./ImageIndex.ts"
import type { ResolvedImage } from "./ImageResolver.ts"
import type * as ImageSource from "./ImageSource.ts"
import type * as KeyedLock from "./KeyedLock.ts"
import type { Layers } from "./Layers.ts"
import type { State } from "./State.ts"
import { StateConflict } from "./StateErrors.ts"

/** Layers of one image that are unpacked side by side: more than there are cores to unpack gzip gains nothing. */
const parallelLayers = 3
/** Progress is told at least every so many bytes. */
const progressStep = 1024 * 1024

/** A chain id can be equal to the digest of an uncompressed blob, so the two have keys of different kinds. */
export const chainKey = (chainId: Digest): string => `chain ${chainId}`

const isConflict = (error: unknown): error is StateConflict => error instanceof StateConflict

/** Nothing here says what it expects of a record, so nothing can conflict. */
export const noConflict = <A, E, R>(effect: Effect.Effect<A, E | StateConflict, R>) =>
  Effect.catchIf(effect, isConflict, (conflict) => Effect.die(conflict))

/** Where images are put, with what keeps concurrent work apart. */
export interface Store {
  readonly state: State["Service"]
  readonly records: ImageIndex
  readonly blobs: Blobs.Blobs
  readonly layers: Layers["Service"]
  /** By digest and by `chainKey`. */
  readonly locks: KeyedLock.KeyedLock
  /** Held while records are written. */
  readonly index: Semaphore.Semaphore
}

export const make = ({ blobs, index, layers, locks, records, state }: Store) => {
  const { byDigest, images, leftBehind, names } = records

  /**
   * Puts a layer's blob into the store and its tree beside it, whichever is missing. The layer unpacks while the blob comes; it
   * is only kept once the blob is whole and on the disk. What is wrong with the blob is told before what is wrong in it.
   */
  const importLayer = Effect.fnUntraced(function* <E>(
    source: ImageSource.ImageSource<E>,
    { compressions, image }: ResolvedImage,
    position: number,
    below: Effect.Effect<void>,
    onBytes: (count: number) => Effect.Effect<void>
  ) {
    const item = image.layers[position]
    const compression = compressions[position]
    if (item === undefined || compression === undefined) return
    const { digest, size } = item
    const scope = yield* Effect.scope
    const coming = yield* Deferred.make<Blobs.Coming>()
    const follow = (open: Effect.Effect<Blobs.Coming, StorageFailed, Scope.Scope>) =>
      open.pipe(
        Effect.provideService(Scope.Scope, scope),
        Effect.flatMap((opened) => Deferred.succeed(coming, opened)),
        Effect.asVoid
      )
    const receive = Effect.gen(function* () {
      if (yield* blobs.has(digest, size)) {
        yield* follow(blobs.open(digest, size))
        return yield* onBytes(size)
      }
      const field = `manifest ${image.digest} layers[${position}]`
      return yield* blobs.receive(digest, size, source.blob(item, field), onBytes, follow)
    })
    const received = yield* Effect.forkChild(locks.withLock(digest)(receive))
    const apply = layers.apply({
      chain: image.layers.slice(0, position + 1).map((layer: ImageLayer) => layer.chainId),
      blob: digest,
      blobBytes: size,
      diffId: item.diffId,
      compression,
      open: Deferred.await(coming),
      // a failure of it ends the race below
      below: Effect.andThen(below, Effect.exit(Fiber.join(received)))
    })
    yield* locks
      .withLock(chainKey(item.chainId))(apply)
      .pipe(
        Effect.raceFirst(Effect.andThen(Fiber.join(received), Effect.never)),
        Effect.catch((error) => Effect.andThen(Fiber.join(received), Effect.fail(error)))
      )
    yield* Fiber.join(received)
  }, Effect.scoped)

  const importImage = Effect.fnUntraced(function* <E>(
    source: ImageSource.ImageSource<E>,
    resolved: ResolvedImage,
    references: ReadonlyArray<string>,
    onProgress: (progress: ImportProgress) => Effect.Effect<void>
  ) {
    const { documents, image } = resolved
    const progress = {
      image: references[0] ?? image.digest,
      layersDone: 0,
      layersTotal: image.layers.length,
      bytesDone: 0,
      bytesTotal: image.layers.reduce((sum, { size }) => sum + size, 0)
    }
    const ofLayers = image.layers.map(({ digest, size }) => ({ digest, bytesDone: 0, bytesTotal: size, done: false }))
    let told = 0
    const tell = (step: ImportProgress["step"]) =>
      Effect.suspend(() => onProgress({ ...progress, step, layers: ofLayers.map((layer) => ({ ...layer })) }))
    const onBytes = (layer: { bytesDone: number } | undefined) => (count: number) =>
      Effect.suspend(() => {
        progress.bytesDone += count
        if (layer !== undefined) layer.bytesDone += count
        if (progress.bytesDone - told < progressStep) return Effect.void
        told = progress.bytesDone
        return tell("layers")
      })

    yield* tell("layers")
    for (const { bytes, digest } of documents) {
      const store = Effect.gen(function* () {
        if (yield* blobs.has(digest, bytes.length)) return
        yield* blobs.receive(digest, bytes.length, Stream.succeed(bytes), () => Effect.void)
      })
      yield* locks.withLock(digest)(store)
    }
    // One layer is done when those below it are; a failure below interrupts the others before they could wait for ever.
    const done = yield* Effect.forEach(image.layers, () => Deferred.make<void>())
    yield* Effect.forEach(
      image.layers,
      (_, position) => {
        const lower = done[position - 1]
        const mine = done[position]
        const ofMine = ofLayers[position]
        return importLayer(
          source,
          resolved,
          position,
          lower === undefined ? Effect.void : Deferred.await(lower),
          onBytes(ofMine)
        ).pipe(
          Effect.andThen(mine === undefined ? Effect.void : Deferred.succeed(mine, undefined)),
          Effect.andThen(
            Effect.suspend(() => {
              progress.layersDone++
              if (ofMine !== undefined) ofMine.done = true
              return tell("layers")
            })
          )
        )
      },
      { concurrency: parallelLayers, discard: true }
    )

    const commit = Effect.gen(function* () {
      const known = yield* byDigest(image.digest)
      const missing = references.filter((name) => known === undefined || !isCalled(known, name))
      const left = yield* leftBehind(missing, image.digest)
      yield* noConflict(
        state.transaction([
          ...(known === undefined ? [images.putting(image.digest, image)] : []),
          ...missing.map((name) => names.putting(name, { digest: image.digest })),
          ...left.map((name) => names.removing(name))
        ])
      )
      return { record: yield* byDigest(image.digest), unchanged: known !== undefined && missing.length === 0 }
    })
    const { record, unchanged } = yield* index.withPermit(commit)
    yield* tell("done")
    return {
      ...(record ?? { ...image, references, digests: [], importedAt: yield* Clock.currentTimeMillis }),
      unchanged
    }
  })

  return importImage
}
