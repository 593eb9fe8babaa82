/**
 * The real `Content`: blobs and layers on the disk, the index of images and names in `State`.
 *
 * What keeps concurrent work apart: a lock per blob and per layer (the second who wants one finds it done), *pins* (what a
 * running import has or is about to have, which no clean-up may take), and one lock over the index for the short
 * moments in which records are written or garbage is found.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as path from "node:path"
import { Processes } from "../taproot/Processes.ts"
import * as Blobs from "./Blobs.ts"
import {
  Content,
  type Damage,
  Image,
  type ImageLayer,
  type ImageRecord,
  type ImageUsers,
  type ImportedImage,
  type ImportOptions,
  type ImportProgress,
  type IndexError,
  type PullOptions
} from "./Content.ts"
import {
  type ImageError,
  ImageInUse,
  ImageNotFound,
  type ReferenceInvalid,
  SourceInvalid,
  type StorageFailed,
  type UnpackFailed
} from "./ContentError.ts"
import { Digest, parts } from "./Digest.ts"
import { resolve, type ResolvedImage } from "./ImageResolver.ts"
import * as ImageCollection from "./ImageCollection.ts"
import { exportImages } from "./ImageExport.ts"
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
import { State, type StateRecord } from "./State.ts"
import { StateConflict } from "./StateErrors.ts"

export interface ContentOptions {
  /** The store: `STATE/content`. Made when it is not there, closed to others. */
  readonly directory: string
  /** What layers may hold, asked for each. */
  readonly limits?: () => Partial<LayerLimits>
  /** How registries are reached, asked at each pull. The same object means that nothing has changed. */
  readonly registries?: () => RegistrySettings
}

/** Layers of one image that are unpacked side by side: more than there are cores to unpack gzip gains nothing. */
const parallelLayers = 3
/** Progress is told at least every so many bytes. */
const progressStep = 1024 * 1024

const NameRecord = Schema.Struct({ digest: Digest })

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
  const images = yield* state.collection("image", Image)
  const names = yield* state.collection("image-name", NameRecord)
  const locks = KeyedLock.make()
  const index = Semaphore.makeUnsafe(1)
  const pins = new Map<string, number>()
  const users = new Set<ImageUsers>()
  const usersBehind = new Set<ImageUsers>()

  // ---- the index

  /** What every image is called, by digest. */
  const namesByDigest = Effect.map(names.list, (list) => {
    const byDigest = new Map<Digest, Array<string>>()
    for (const { name, value } of list) {
      const known = byDigest.get(value.digest)
      if (known === undefined) byDigest.set(value.digest, [name])
      else known.push(name)
    }
    return byDigest
  })

  const withNames = (record: StateRecord<Image>, called: ReadonlyArray<string> = []): ImageRecord => ({
    ...record.value,
    references: called.filter((name) => !name.includes("@")).toSorted(),
    digests: called.filter((name) => name.includes("@")).toSorted(),
    importedAt: record.createdAt
  })

  const list = Effect.gen(function* () {
    const byDigest = yield* namesByDigest
    const found = (yield* images.list).map((record) => withNames(record, byDigest.get(record.value.digest)))
    const order = ({ digest, digests, references }: ImageRecord) =>
      `${references[0] === undefined ? 1 : 0}${references[0] ?? digests[0] ?? digest}`
    return found.toSorted((left, right) => (order(left) < order(right) ? -1 : 1))
  })

  const byDigest = Effect.fnUntraced(function* (digest: Digest) {
    const record = yield* images.get(digest)
    return Option.isNone(record) ? undefined : withNames(record.value, (yield* namesByDigest).get(digest))
  })

  /** A manifest or configuration digest, or the first digits of one when only one image has them. */
  const byDigits = (digits: string) =>
    Effect.map(list, (all) => {
      const starts = (digest: Digest) => digest === digits || parts(digest).hex.startsWith(digits)
      const found = all.filter(({ configDigest, digest }) => starts(digest) || starts(configDigest))
      return found.length === 1 ? found[0] : undefined
    })

  const get = Effect.fn("Content.get")(function* (reference: string) {
    const parsed = yield* Reference.parse(reference)
    const name = Reference.tagged(parsed)
    // what a registry calls it wins over a tag, which may have moved since
    const exact =
      parsed.name === undefined || parsed.digest === undefined
        ? Option.none()
        : yield* names.get(Reference.pinned(parsed.name, parsed.digest))
    const pointer = Option.isSome(exact) || name === undefined ? exact : yield* names.get(name)
    const digest = Option.isSome(pointer) ? pointer.value.value.digest : parsed.digest
    const found =
      digest !== undefined
        ? ((yield* byDigest(digest)) ?? (yield* byDigits(digest)))
        : /^[0-9a-f]{6,64}$/.test(reference)
          ? yield* byDigits(reference)
          : undefined
    if (
      found === undefined ||
      (Option.isNone(exact) &&
        parsed.digest !== undefined &&
        parsed.digest !== found.digest &&
        parsed.name !== undefined)
    ) {
      return yield* new ImageNotFound({ reference: name ?? reference })
    }
    return found
  })

  /** The name under which something is to be stored. */
  const storedName = Effect.fnUntraced(function* (text: string) {
    const name = Reference.tagged(yield* Reference.parse(text))
    return name ?? (yield* Reference.notAName(text))
  })

  /** Nothing here says what it expects of a record, so nothing can conflict. */
  const noConflict = <A, E, R>(effect: Effect.Effect<A, E | StateConflict, R>) =>
    Effect.catchIf(effect, isConflict, (conflict) => Effect.die(conflict))

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
    let told = 0
    const tell = (step: ImportProgress["step"]) => Effect.suspend(() => onProgress({ ...progress, step }))
    const onBytes = (count: number) =>
      Effect.suspend(() => {
        progress.bytesDone += count
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
        return importLayer(
          source,
          resolved,
          position,
          lower === undefined ? Effect.void : Deferred.await(lower),
          onBytes
        ).pipe(
          Effect.andThen(mine === undefined ? Effect.void : Deferred.succeed(mine, undefined)),
          Effect.andThen(
            Effect.suspend(() => {
              progress.layersDone++
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

  /**
   * What registries call the images that lose their last tag of a repository to this one: with it they would stay for ever,
   * though nobody has asked for them by digest.
   */
  const leftBehind = Effect.fnUntraced(function* (moving: ReadonlyArray<string>, to: Digest) {
    const left: Array<string> = []
    for (const name of moving.filter((one) => !one.includes("@"))) {
      const pointer = yield* names.get(name)
      if (Option.isNone(pointer) || pointer.value.value.digest === to) continue
      const before = yield* byDigest(pointer.value.value.digest)
      if (before === undefined || before.references.some((other) => !moving.includes(other))) continue
      const repository = name.slice(0, name.lastIndexOf(":"))
      left.push(...before.digests.filter((pinned) => pinned.startsWith(`${repository}@`)))
    }
    return left
  })

  /** What an import stores, which no clean-up may take meanwhile. */
  const keysOf = ({ documents, image }: ResolvedImage): ReadonlyArray<string> => [
    ...documents.map(({ digest }) => digest),
    ...image.layers.flatMap(({ chainId, digest }) => [digest, chainKey(chainId)])
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
      if (digest !== undefined && isCalled(here, Reference.pinned(name.name, digest))) {
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
    const wanted = new Set<string>(pins.keys())
    for (const { value } of yield* images.list) {
      wanted.add(value.digest).add(value.configDigest)
      for (const { chainId, digest } of value.layers) wanted.add(digest).add(chainKey(chainId))
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
      if (!(yield* unlessWanted(chainKey(chainId), layers.remove(chainId)))) continue
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
      yield* noConflict(names.put(stored, { digest: image.digest }))
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
      yield* noConflict(
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
      noConflict(
        state.transaction([...[...references, ...digests].map((name) => names.removing(name)), images.removing(digest)])
      )
    )

  const care = yield* ImageCollection.make({ directory, state, blobs, layers, list, usersOf, forget, sweep: collect })

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

/** A chain id can be equal to the digest of an uncompressed blob, so the two have keys of different kinds. */
const chainKey = (chainId: Digest): string => `chain ${chainId}`

/** Of the file with all layers up to one. */
const rootKey = (chainId: Digest): string => `root ${chainId}`

/** Whether a name, with a tag or a digest, points to it. */
const isCalled = ({ digests, references }: ImageRecord, name: string): boolean =>
  references.includes(name) || digests.includes(name)

const isConflict = (error: unknown): error is StateConflict => error instanceof StateConflict
