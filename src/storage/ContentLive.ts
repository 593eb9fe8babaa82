/**
 * The real `Content`: blobs and layers on the disk, the index of images and names in `State`.
 *
 * What keeps concurrent work apart: a lock per blob and per layer (the second who wants one finds it done), *pins* (what a
 * running import has or is about to have, which no clean-up may take), and one lock over the index for the short
 * moments in which records are written or garbage is found.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Semaphore from "effect/Semaphore"
import * as path from "node:path"
import { Processes } from "../taproot/Processes.ts"
import * as Artifacts from "./Artifacts.ts"
import * as Blobs from "./Blobs.ts"
import {
  Content,
  type Damage,
  type ImageRecord,
  type ImageUsers,
  type ImportedImage,
  type ImportOptions,
  type IndexError,
  type PullOptions
} from "./Content.ts"
import {
  type ImageError,
  ImageInUse,
  ImageNotFound,
  type ReferenceInvalid,
  SourceInvalid,
  type UnpackFailed
} from "./ContentError.ts"
import type { Digest } from "./Digest.ts"
import { resolve, type ResolvedImage } from "./ImageResolver.ts"
import * as ImageCollection from "./ImageCollection.ts"
import { exportImages } from "./ImageExport.ts"
import * as ImageImport from "./ImageImport.ts"
import * as ImageIndex from "./ImageIndex.ts"
import * as ImageSource from "./ImageSource.ts"
import { verify } from "./ImageVerification.ts"
import * as KeyedLock from "./KeyedLock.ts"
import type { LayerLimits } from "./LayerFilter.ts"
import { Layers } from "./Layers.ts"
import * as Reference from "./Reference.ts"
import * as RootImages from "./RootImages.ts"
import * as RegistryClient from "./registry/RegistryClient.ts"
import { PullNotAllowed, type RegistryError } from "./registry/RegistryError.ts"
import * as RegistrySource from "./registry/RegistrySource.ts"
import { type RegistrySettings, usualSettings } from "./registry/RegistrySettings.ts"
import * as RemoteName from "./registry/RemoteName.ts"
import { State } from "./State.ts"

export interface ContentOptions {
  /** The store: `STATE/content`. Made when it is not there, closed to others. */
  readonly directory: string
  /** What layers may hold, asked for each. */
  readonly limits?: () => Partial<LayerLimits>
  /** How registries are reached, asked at each pull. The same object means that nothing has changed. */
  readonly registries?: () => RegistrySettings
}

/** `Content` and the `Layers` it stands on. */
export const layer = (options: ContentOptions): Layer.Layer<Content | Layers, IndexError, Processes | State> => {
  const temporary = path.join(options.directory, "temporary")
  return Layer.effect(Content, make(options, temporary)).pipe(
    Layer.provideMerge(
      Layers.layer({
        directory: path.join(options.directory, "layers"),
        temporary,
        ...(options.limits === undefined ? {} : { limits: options.limits })
      })
    )
  )
}

const make = Effect.fnUntraced(function* (
  { directory, limits, registries = () => usualSettings }: ContentOptions,
  temporary: string
) {
  const state = yield* State
  const layers = yield* Layers
  const blobs = yield* Blobs.make(path.join(directory, "blobs"), temporary)
  const roots = yield* RootImages.make(yield* Processes, blobs, {
    directory: path.join(directory, "roots"),
    temporary,
    ...(limits === undefined ? {} : { limits })
  })
  const records = yield* ImageIndex.make(state)
  const { byDigest, get, images, list, names } = records
  const locks = KeyedLock.make()
  const index = Semaphore.makeUnsafe(1)
  const importImage = ImageImport.make({ state, records, blobs, layers, locks, index })
  const pins = new Map<string, number>()
  const users = new Set<ImageUsers>()
  const usersBehind = new Set<ImageUsers>()

  /** The name under which something is to be stored. */
  const storedName = Effect.fnUntraced(function* (text: string) {
    const name = Reference.tagged(yield* Reference.parse(text))
    return name ?? (yield* Reference.notAName(text))
  })

  // ---- import

  const pinned = <A, E, R>(keys: ReadonlyArray<string>, effect: Effect.Effect<A, E, R>) =>
    Effect.acquireUseRelease(
      Effect.sync(() => {
        for (const key of keys) pins.set(key, (pins.get(key) ?? 0) + 1)
      }),
      () => effect,
      () =>
        Effect.sync(() => {
          for (const key of keys) {
            const count = (pins.get(key) ?? 1) - 1
            if (count === 0) pins.delete(key)
            else pins.set(key, count)
          }
        })
    )

  /** What an import stores, which no clean-up may take meanwhile. */
  const keysOf = ({ documents, image }: ResolvedImage): ReadonlyArray<string> => [
    ...documents.map(({ digest }) => digest),
    ...image.layers.flatMap(({ chainId, digest }) => [digest, ImageImport.chainKey(chainId)])
  ]

  /** What came in before it failed is whole, but nobody asked for a part. */
  const orClear = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.onError(effect, () => Effect.ignore(index.withPermit(collect)))

  const importFrom = Effect.fn("Content.importFrom")(function* (
    from: string,
    options: ImportOptions = {}
  ): Effect.fn.Return<ReadonlyArray<ImportedImage>, ImageError | ReferenceInvalid | UnpackFailed | IndexError> {
    const onProgress = options.onProgress ?? (() => Effect.void)
    const given = options.name === undefined ? undefined : yield* storedName(options.name)
    const run = Effect.gen(function* () {
      const source = yield* ImageSource.open(from, temporary)
      const found = yield* resolve(source, { select: options.select })
      if (given !== undefined && found.length > 1) {
        const problem = `it holds ${found.length} images (${found.flatMap(({ names }) => names).join(", ")}); select the one that is to be called ${given}`
        return yield* new SourceInvalid({ path: from, problem })
      }
      const imported: Array<ImportedImage> = []
      for (const resolved of found) {
        const references = given !== undefined ? [given] : yield* Effect.forEach(resolved.names, storedName)
        if (options.dryRun === true) {
          const known = yield* byDigest(resolved.image.digest)
          imported.push({
            ...resolved.image,
            references,
            digests: known?.digests ?? [],
            importedAt: known?.importedAt ?? 0,
            unchanged: known !== undefined && references.every((name) => known.references.includes(name))
          })
          continue
        }
        imported.push(yield* pinned(keysOf(resolved), importImage(source, resolved, references, onProgress)))
      }
      return imported
    })
    return yield* options.dryRun === true ? Effect.scoped(run) : orClear(Effect.scoped(run))
  })

  // ---- pull

  let client: { readonly settings: RegistrySettings; readonly client: RegistryClient.RegistryClient } | undefined
  const registryClient = Effect.sync(() => {
    const settings = registries()
    if (client?.settings !== settings) client = { settings, client: RegistryClient.make(settings) }
    return client.client
  })

  const artifacts = yield* Artifacts.make({
    state,
    blobs,
    locks,
    pinned,
    repository: (name) => Effect.map(registryClient, (found) => found.repository(name, undefined))
  })

  const pull = Effect.fn("Content.pull")(function* (
    reference: string,
    { credentials, onProgress = () => Effect.void, platform, policy = "always" }: PullOptions = {}
  ): Effect.fn.Return<
    ImportedImage,
    ImageError | RegistryError | PullNotAllowed | ReferenceInvalid | UnpackFailed | IndexError
  > {
    // a digest that is here needs no registry to say what it is
    const here = yield* Effect.catchTag(get(reference), "ImageNotFound", () => Effect.undefined)
    if (here !== undefined && policy !== "always") return { ...here, unchanged: true }
    if (policy === "never") return yield* new PullNotAllowed({ reference })
    const name = yield* RemoteName.parse(reference)
    const repository = (yield* registryClient).repository(name, credentials)
    if (here !== undefined && platform === undefined) {
      const digest = name.digest ?? (yield* repository.currentDigest)
      if (digest !== undefined && ImageIndex.isCalled(here, Reference.pinned(name.name, digest))) {
        return { ...here, unchanged: true }
      }
    }
    const found = yield* repository.find
    const source = RegistrySource.make(repository, name, found)
    const [resolved] = yield* resolve(source, platform === undefined ? {} : { host: platform })
    if (resolved === undefined) return yield* new SourceInvalid({ path: reference, problem: "it holds no image" })
    const references = [...resolved.names, Reference.pinned(name.name, found.descriptor.digest)]
    return yield* orClear(pinned(keysOf(resolved), importImage(source, resolved, references, onProgress)))
  })

  // ---- removal

  const usersOf = Effect.fnUntraced(function* (digest: Digest) {
    for (const asked of [users, usersBehind]) {
      const answers = yield* Effect.forEach([...asked], (ask) => ask(digest))
      const found = [...new Set(answers.flat())].toSorted()
      if (found.length > 0) return found
    }
    return []
  })

  /** Removes blobs and layers that no record and no running import has. The index must be locked. */
  const collect = Effect.gen(function* () {
    const wanted = new Set<string>([...pins.keys(), ...(yield* artifacts.kept)])
    for (const { value } of yield* images.list) {
      wanted.add(value.digest).add(value.configDigest)
      for (const { chainId, digest } of value.layers) wanted.add(digest).add(ImageImport.chainKey(chainId))
      wanted.add(rootKey(RootImages.chainOf(value)))
    }
    const report = { blobs: 0, layers: 0, freedBytes: 0 }
    // An import may have pinned more since: the answer counts at the moment of removal, under the thing's own lock.
    const unlessWanted = <E>(key: string, remove: Effect.Effect<void, E>) =>
      locks.withLock(key)(
        Effect.suspend(() => (wanted.has(key) || pins.has(key) ? Effect.succeed(false) : Effect.as(remove, true)))
      )
    for (const { digest, size } of yield* blobs.list) {
      if (!(yield* unlessWanted(digest, blobs.remove(digest)))) continue
      report.blobs++
      report.freedBytes += size
    }
    for (const { bytes, chainId } of yield* layers.list) {
      if (!(yield* unlessWanted(ImageImport.chainKey(chainId), layers.remove(chainId)))) continue
      report.layers++
      report.freedBytes += bytes
    }
    for (const { bytes, chainId } of yield* roots.list) {
      if (!(yield* unlessWanted(rootKey(chainId), roots.remove(chainId)))) continue
      report.freedBytes += bytes
    }
    return report
  })

  /** Nothing that it is made of, nor itself, may go meanwhile. */
  const rootImage = Effect.fn("Content.rootImage")(function* (digest: Digest) {
    const image = yield* byDigest(digest)
    if (image === undefined) return yield* new ImageNotFound({ reference: digest })
    const keys = [rootKey(RootImages.chainOf(image)), ...image.layers.map((layer) => layer.digest)]
    return yield* pinned(keys, roots.make(image))
  })

  const tag = Effect.fn("Content.tag")(function* (reference: string, name: string) {
    const stored = yield* storedName(name)
    const move = Effect.gen(function* () {
      const image = yield* get(reference)
      yield* ImageImport.noConflict(names.put(stored, { digest: image.digest }))
      return (yield* byDigest(image.digest)) ?? image
    })
    return yield* index.withPermit(move)
  })

  const remove = Effect.fn("Content.remove")(function* (reference: string) {
    const take = Effect.gen(function* () {
      const image = yield* get(reference)
      const named = Reference.tagged(yield* Reference.parse(reference))
      const taken = named !== undefined && image.references.includes(named) ? [named] : image.references
      const isLast = taken.length === image.references.length
      const going = isLast ? [...image.references, ...image.digests] : taken
      if (isLast) {
        const needed = yield* usersOf(image.digest)
        if (needed.length > 0) return yield* new ImageInUse({ reference, users: needed })
      }
      yield* ImageImport.noConflict(
        state.transaction([
          ...going.map((name) => names.removing(name)),
          ...(isLast ? [images.removing(image.digest)] : [])
        ])
      )
      const { freedBytes } = isLast ? yield* collect : { freedBytes: 0 }
      return { references: going, removed: isLast ? image.digest : undefined, freedBytes }
    })
    return yield* index.withPermit(take)
  })

  /** Takes an image's record and all its names. */
  const forget = ({ digest, digests, references }: ImageRecord) =>
    Effect.asVoid(
      ImageImport.noConflict(
        state.transaction([...[...references, ...digests].map((name) => names.removing(name)), images.removing(digest)])
      )
    )

  const care = yield* ImageCollection.make({
    directory,
    state,
    blobs,
    layers,
    list,
    usersOf,
    forget,
    kept: artifacts.kept,
    sweep: collect
  })

  /** What is damaged goes with the images that have it, unless somebody has begun to use one meanwhile. */
  const drop = (damage: Damage, having: ReadonlyArray<ImageRecord>) =>
    index.withPermit(
      Effect.gen(function* () {
        for (const { digest } of having) if ((yield* usersOf(digest)).length > 0) return
        for (const image of having) yield* forget(image)
        yield* damage.kind === "blob" ? blobs.remove(damage.digest) : layers.remove(damage.digest)
        yield* collect
      })
    )

  // What a dead brain had imported in part is whole blobs and layers that no record names.
  yield* collect

  return Content.of({
    importFrom,
    pull,
    list,
    get,
    rootImage,
    useArtifact: artifacts.use,
    isArtifactUsed: artifacts.isUsed,
    releaseArtifacts: artifacts.release,
    tag,
    remove,
    collect: (options = {}) => index.withPermit(care.collect(options)),
    usage: index.withPermit(care.usage),
    verify: (options = {}) => verify({ blobs, layers, list, usersOf, drop }, options),
    exportTo: Effect.fn("Content.exportTo")(function* (target, references, { archive }) {
      const found = new Map<Digest, ImageRecord>()
      for (const reference of references) {
        const image = yield* get(reference)
        found.set(image.digest, image)
      }
      // nothing of them may go meanwhile
      const keys = [...found.values()].flatMap(({ configDigest, digest, layers: own }) => [
        digest,
        configDigest,
        ...own.map((layer) => layer.digest)
      ])
      return yield* pinned(keys, exportImages(blobs, [...found.values()], target, archive))
    }),
    registerUsers: (ask, { behindOthers = false } = {}) => {
      const asked = behindOthers ? usersBehind : users
      return Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => asked.add(ask)),
          () => Effect.sync(() => asked.delete(ask))
        )
      )
    }
  })
})

/** Of the file with all layers up to one. */
const rootKey = (chainId: Digest): string => `root ${chainId}`
