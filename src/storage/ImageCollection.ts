/**
 * What the images of this host take up, and the removal of those that nobody uses: by age, until the disk has room again, or
 * only what has lost its name.
 *
 * An image that somebody uses (see `Content.registerUsers`) is never taken, and one that a running pull or import is about to
 * have neither. When an image was last used is noted by whoever looks (`noteUse`), about once an hour, so an age is right to
 * the hour.
 *
 * Trap: all of it runs under the lock over the index, which the caller holds.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Blobs } from "./Blobs.ts"
import type { CollectOptions, CollectReport, ContentUsage, ImageRecord, IndexError } from "./Content.ts"
import type { StorageFailed } from "./ContentError.ts"
import type { Digest } from "./Digest.ts"
import * as DiskRoom from "./DiskRoom.ts"
import type { Layers } from "./Layers.ts"
import type { State } from "./State.ts"
import type { StateConflict } from "./StateErrors.ts"

/** What the store lends. */
export interface Lent {
  readonly directory: string
  readonly state: State["Service"]
  readonly blobs: Blobs
  readonly layers: Layers["Service"]
  readonly list: Effect.Effect<ReadonlyArray<ImageRecord>, IndexError>
  readonly usersOf: (digest: Digest) => Effect.Effect<ReadonlyArray<string>>
  /** Takes an image's record and all its names. */
  readonly forget: (image: ImageRecord) => Effect.Effect<void, IndexError>
  /** Blobs that stay although no image has them: somebody's disks were made of them. */
  readonly kept: Effect.Effect<ReadonlyArray<Digest>>
  /** Removes blobs and layers that no record has. */
  readonly sweep: Effect.Effect<Pick<CollectReport, "blobs" | "layers" | "freedBytes">, IndexError>
}

const hour = 3_600_000

const Use = Schema.Struct({ at: Schema.Finite })

export const make = Effect.fnUntraced(function* (lent: Lent) {
  const uses = yield* lent.state.collection("image-use", Use)

  const ignoringConflict = <A, E, R>(effect: Effect.Effect<A, E | StateConflict, R>) => Effect.ignore(effect)

  /** Notes which images are used now, and forgets what was noted of those that are gone. */
  const noteUse = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const images = yield* lent.list
    const noted = new Map((yield* uses.list).map(({ name, value }) => [name, value.at]))
    for (const { digest } of images) {
      const at = noted.get(digest)
      noted.delete(digest)
      if ((yield* lent.usersOf(digest)).length === 0 || (at !== undefined && now - at < hour)) continue
      yield* ignoringConflict(uses.put(digest, { at: now }))
    }
    for (const gone of noted.keys()) yield* ignoringConflict(uses.remove(gone))
  })

  /** When it was used last: never before it came. */
  const lastUse = Effect.fnUntraced(function* ({ digest, importedAt }: ImageRecord) {
    const noted = yield* uses.get(digest)
    return Option.match(noted, { onNone: () => importedAt, onSome: ({ value }) => Math.max(value.at, importedAt) })
  })

  /** Images that nobody uses, those unused for longest first. */
  const unused = Effect.gen(function* () {
    yield* noteUse
    const found: Array<{ readonly image: ImageRecord; readonly lastUsedAt: number }> = []
    for (const image of yield* lent.list) {
      if ((yield* lent.usersOf(image.digest)).length > 0) continue
      found.push({ image, lastUsedAt: yield* lastUse(image) })
    }
    return found.toSorted((one, other) => one.lastUsedAt - other.lastUsedAt)
  })

  const collect = Effect.fnUntraced(function* ({
    all = false,
    dryRun = false,
    unusedFor = 0,
    untilPercent
  }: CollectOptions): Effect.fn.Return<CollectReport, IndexError> {
    const now = yield* Clock.currentTimeMillis
    const isNameless = ({ digests, references }: ImageRecord) => references.length === 0 && digests.length === 0
    const wanted = (yield* unused).filter(
      ({ image, lastUsedAt }) =>
        (all || untilPercent !== undefined || isNameless(image)) && now - lastUsedAt >= unusedFor
    )
    // a disk that cannot be asked is no reason to remove anything
    const isFull = Effect.match(DiskRoom.look(lent.directory), {
      onFailure: () => false,
      onSuccess: (found) => DiskRoom.usedPercent(found) > (untilPercent ?? 0)
    })
    const taken: Array<CollectReport["images"][number]> = []
    const report = { images: taken, blobs: 0, layers: 0, freedBytes: 0 }
    const sweep = Effect.map(lent.sweep, ({ blobs, freedBytes, layers }) => {
      report.blobs += blobs
      report.layers += layers
      report.freedBytes += freedBytes
    })
    for (const item of wanted) {
      if (untilPercent !== undefined && !(yield* isFull)) break
      taken.push(item)
      if (dryRun) continue
      yield* lent.forget(item.image)
      // room is only made, and seen, once the bytes have gone
      if (untilPercent !== undefined) yield* sweep
    }
    if (!dryRun) yield* sweep
    return report
  })

  const usage = Effect.gen(function* (): Effect.fn.Return<ContentUsage, IndexError | StorageFailed> {
    yield* noteUse
    const images = yield* lent.list
    const blobBytes = new Map((yield* lent.blobs.list).map(({ digest, size }) => [digest, size]))
    const layerBytes = new Map((yield* lent.layers.list).map(({ bytes, chainId }) => [chainId, bytes]))
    const blobsOf = (image: ImageRecord) =>
      new Set([image.digest, image.configDigest, ...image.layers.map(({ digest }) => digest)])
    const layersOf = (image: ImageRecord) => new Set(image.layers.map(({ chainId }) => chainId))
    const owners = (of: (image: ImageRecord) => ReadonlySet<Digest>, which: ReadonlyArray<ImageRecord>) => {
      const counts = new Map<Digest, number>()
      for (const image of which) for (const digest of of(image)) counts.set(digest, (counts.get(digest) ?? 0) + 1)
      return counts
    }
    const [blobOwners, layerOwners] = [owners(blobsOf, images), owners(layersOf, images)]
    const sum = (
      digests: Iterable<Digest>,
      sizes: ReadonlyMap<Digest, number>,
      counts: (digest: Digest) => boolean = () => true
    ) => [...digests].reduce((total, digest) => total + (counts(digest) ? (sizes.get(digest) ?? 0) : 0), 0)
    const told: Array<ContentUsage["images"][number]> = []
    for (const image of images) {
      told.push({
        image,
        users: yield* lent.usersOf(image.digest),
        lastUsedAt: yield* lastUse(image),
        blobBytes: sum(blobsOf(image), blobBytes),
        layerBytes: sum(layersOf(image), layerBytes),
        ownBytes:
          sum(blobsOf(image), blobBytes, (digest) => blobOwners.get(digest) === 1) +
          sum(layersOf(image), layerBytes, (digest) => layerOwners.get(digest) === 1)
      })
    }
    const used = told.filter(({ users }) => users.length > 0).map(({ image }) => image)
    const usedBlobs = new Set([...owners(blobsOf, used).keys(), ...(yield* lent.kept)])
    const usedLayers = owners(layersOf, used)
    return {
      images: told,
      blobs: {
        count: blobBytes.size,
        bytes: sum(blobBytes.keys(), blobBytes),
        unusedBytes: sum(blobBytes.keys(), blobBytes, (digest) => !usedBlobs.has(digest))
      },
      layers: {
        count: layerBytes.size,
        bytes: sum(layerBytes.keys(), layerBytes),
        unusedBytes: sum(layerBytes.keys(), layerBytes, (digest) => !usedLayers.has(digest))
      },
      disk: yield* Effect.option(DiskRoom.look(lent.directory))
    }
  })

  return { collect, usage, noteUse }
})
