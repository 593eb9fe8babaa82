/**
 * Root file systems for microVMs: the layers of an image as one squashfs file, made in user space, without a mount and without
 * being root, straight from the layers' blobs. One file for each chain of layers, shared by all images and guests that have it.
 *
 * A kept tool packs (`tar2sqfs` of squashfs-tools-ng, zstd level 1); it is fed with one archive of all layers merged
 * (`MergedTree.ts`). The blobs are read twice: once for what is in them, once for the contents that count. Nothing of an image is
 * ever in memory but the names in it.
 *
 * Traps: a file is there whole or not at all; who has it open keeps it when it is removed. `Content` removes those whose images
 * are gone.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { describe, isSuccess } from "../taproot/ProcessExit.ts"
import { type Process, type Processes, SpawnRefused } from "../taproot/Processes.ts"
import type { Blobs } from "./Blobs.ts"
import { decompress } from "./Compression.ts"
import type { Image, ImageLayer } from "./Content.ts"
import { BlobCorrupt, LayerRefused, RootImageFailed, StorageFailed } from "./ContentError.ts"
import { Digest, isDigest, parts, short } from "./Digest.ts"
import * as Files from "./Files.ts"
import * as KeyedLock from "./KeyedLock.ts"
import { defaultLimits, type LayerFilter, type LayerLimits, limitsFor, makeLayerFilter } from "./LayerFilter.ts"
import { type MergedArchive, makeMergedTree, paddingOf } from "./MergedTree.ts"
import { layerCompression } from "./OciImage.ts"
import { fromBinary, type TarEntry } from "./Tar.ts"
import type { TarFault } from "./TarReader.ts"

/** A root file system. */
export interface RootImage {
  /** The topmost layer's chain id; of an image without layers the digest of nothing. */
  readonly chainId: Digest
  /** The squashfs file, absolute. */
  readonly path: string
  readonly bytes: number
}

export type RootImageError = BlobCorrupt | LayerRefused | RootImageFailed | StorageFailed

export interface RootImages {
  /** Makes it when it is not there. Asked for twice at once, it works once. */
  readonly make: (image: Image) => Effect.Effect<RootImage, RootImageError>
  readonly list: Effect.Effect<ReadonlyArray<{ readonly chainId: Digest; readonly bytes: number }>, StorageFailed>
  readonly remove: (chainId: Digest) => Effect.Effect<void, StorageFailed>
}

export interface Options {
  /** Where they are kept; made when it is not there. */
  readonly directory: string
  /** Where half-made ones are, on the same file system; emptied at start by somebody else. */
  readonly temporary: string
  readonly limits?: () => Partial<LayerLimits>
}

/** Of an image without layers: sha256 of nothing. */
const noLayers = Digest.make("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
const suffix = ".squashfs"
const labelPrefix = "root-image/"
const packer = "tar2sqfs"

export const chainOf = ({ layers }: Image): Digest => layers.at(-1)?.chainId ?? noLayers

const isSpawnRefused = (error: unknown): error is SpawnRefused => error instanceof SpawnRefused

/** Ends a process that may still run, and forgets it. */
const end = (process: Process): Effect.Effect<void> =>
  process
    .signal("SIGKILL", { group: true })
    .pipe(Effect.ignore, Effect.andThen(process.exit), Effect.andThen(process.acknowledge))

const complaintsOf = (process: Process): Effect.Effect<string> =>
  Stream.runFold(
    process.output("stderr"),
    () => "",
    (said, { bytes }) => (said.length > 2000 ? said : said + new TextDecoder().decode(bytes))
  ).pipe(Effect.map((said) => said.trim().slice(0, 2000)))

/** Bytes that are collected and handed on in one piece; what was handed on is good until the next is collected. */
const makeStaging = () => {
  let bytes = Buffer.alloc(512 * 1024)
  let used = 0
  return {
    add: (more: Uint8Array): void => {
      if (used + more.length > bytes.length) {
        bytes = Buffer.concat([bytes.subarray(0, used)], Math.max(bytes.length * 2, used + more.length))
      }
      bytes.set(more, used)
      used += more.length
    },
    take: (): Uint8Array => {
      const all = bytes.subarray(0, used)
      used = 0
      return all
    }
  }
}

/** Hears of the entries that a layer becomes; may refuse each, in words. */
interface Reader {
  readonly entry: (entry: TarEntry) => string | undefined
  readonly data: (bytes: Uint8Array) => void
}

export const make = Effect.fnUntraced(function* (
  processes: Processes["Service"],
  blobs: Blobs,
  options: Options
): Effect.fn.Return<RootImages, StorageFailed> {
  const { directory, temporary } = options
  const locks = KeyedLock.make()
  let made = 0
  for (const leftover of yield* processes.takeAll(labelPrefix)) yield* end(leftover)
  yield* Files.makeDirectory(directory)

  const fileOf = (chainId: Digest): string => {
    const { algorithm, hex } = parts(chainId)
    return path.join(directory, `${algorithm}-${hex}${suffix}`)
  }

  /** Reads a layer through the filter. */
  const readLayer = Effect.fnUntraced(function* (
    { digest, mediaType, size }: ImageLayer,
    reader: Reader,
    afterEach: Effect.Effect<void, RootImageFailed | StorageFailed>
  ): Effect.fn.Return<LayerFilter, RootImageError> {
    const compression = layerCompression(mediaType)
    if (compression === undefined) {
      return yield* new LayerRefused({ layer: digest, entry: "", problem: `is of the type ${mediaType}` })
    }
    const limits = limitsFor({ ...defaultLimits, ...options.limits?.() }, size)
    let inner: TarFault | undefined = undefined
    const filter = makeLayerFilter(limits, {
      entry: (entry) => {
        const problem = reader.entry(entry)
        if (problem !== undefined) inner ??= { entry: fromBinary(entry.name), problem }
      },
      data: reader.data,
      dropped: () => {}
    })
    const checked = (fault: TarFault | undefined): Effect.Effect<void, RootImageError> => {
      const first = fault ?? inner
      return first === undefined ? afterEach : Effect.fail(new LayerRefused({ layer: digest, ...first }))
    }
    const tar = decompress(blobs.read(digest), compression, (problem) => new BlobCorrupt({ digest, problem }))
    yield* Stream.runForEach(tar, (bytes) => Effect.suspend(() => checked(filter.push(bytes))))
    yield* Effect.suspend(() => checked(filter.end()))
    return filter
  })

  /** What all layers together are. */
  const merge = Effect.fnUntraced(function* (image: Image): Effect.fn.Return<MergedArchive, RootImageError> {
    const tree = makeMergedTree()
    for (const item of image.layers) {
      const layer = tree.layer()
      let number = 0
      const filter = yield* readLayer(
        item,
        { entry: (entry) => layer.take(entry, number++), data: () => {} },
        Effect.void
      )
      const refused = (entry: string, problem: string) => new LayerRefused({ layer: item.digest, entry, problem })
      for (const entry of filter.tail()) {
        const problem = layer.take(entry, -1)
        if (problem !== undefined) return yield* refused(entry.name, problem)
      }
      const implicit = filter.implicit()
      const problem = layer.close(implicit, filter.closing(new Map()))
      if (problem !== undefined) return yield* refused("", problem)
    }
    const archive = tree.archive()
    if (typeof archive === "string") {
      return yield* new RootImageFailed({ image: image.digest, problem: archive })
    }
    return archive
  })

  /** Feeds the packer. It may end early: then what it said counts, and nobody has to wait. */
  const feed = Effect.fnUntraced(function* (
    image: Image,
    archive: MergedArchive,
    write: (bytes: Uint8Array) => Effect.Effect<void, RootImageFailed>
  ): Effect.fn.Return<void, RootImageError> {
    const staging = makeStaging()
    const flush = Effect.suspend(() => {
      const bytes = staging.take()
      return bytes.length === 0 ? Effect.void : write(bytes)
    })
    const pieces = (all: Iterable<Uint8Array>) =>
      Stream.runForEach(Stream.fromIterable(all, { chunkSize: 64 }), (bytes) => {
        staging.add(bytes)
        return flush
      })
    yield* pieces(archive.head())
    for (const [position, item] of image.layers.entries()) {
      if (!archive.has(position)) continue
      let number = 0
      let left = 0
      let size = 0
      const reader: Reader = {
        entry: (entry) => {
          const header = archive.fileOf(position, number++)
          left = header === undefined ? 0 : entry.size
          size = entry.size
          if (header !== undefined) staging.add(header)
          return undefined
        },
        data: (bytes) => {
          if (left === 0) return
          staging.add(bytes)
          left -= bytes.length
          if (left === 0) staging.add(paddingOf(size))
        }
      }
      yield* readLayer(item, reader, flush)
    }
    yield* pieces(archive.tail())
  })

  const pack = (image: Image, file: string): Effect.Effect<void, RootImageError> => {
    const failed = (problem: string) => new RootImageFailed({ image: image.digest, problem })
    return Effect.gen(function* () {
      const archive = yield* merge(image)
      yield* Effect.acquireUseRelease(
        processes.spawn({
          label: `${labelPrefix}${short(image.digest)}`,
          argv: [packer, "-c", "zstd", "-X", "level=1", "-j", "2", "-s", "-q", "-f", file],
          environment: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
          stdin: { _tag: "Stream" },
          stderr: { _tag: "Stream" }
        }),
        Effect.fnUntraced(function* (process): Effect.fn.Return<void, RootImageError> {
          const complaints = yield* Effect.forkChild(complaintsOf(process))
          const write = (bytes: Uint8Array) => Effect.mapError(process.write(bytes), () => failed("it stopped reading"))
          const fed = yield* Effect.exit(feed(image, archive, write))
          yield* process.closeStdin
          if (fed._tag === "Failure" && (yield* Effect.map(process.exitNow, ({ _tag }) => _tag === "None"))) {
            // half an archive must not become a file system
            yield* Effect.ignore(process.signal("SIGKILL", { group: true }))
          }
          const exit = yield* process.exit
          const said = yield* Fiber.join(complaints)
          if (exit._tag === "NotExecuted") {
            return yield* failed(
              `${packer} ${describe(exit)}; it is part of squashfs-tools-ng, which is to be installed`
            )
          }
          if (/No space left on device|Disk quota exceeded/.test(said)) {
            return yield* new StorageFailed({ operation: "write", path: file, code: "ENOSPC", problem: said })
          }
          // why it ended matters more than what it did not read
          if (exit._tag === "Exited" && exit.code !== 0) return yield* failed(`${packer} ${describe(exit)}: ${said}`)
          yield* fed
          if (!isSuccess(exit)) return yield* failed(`${packer} ${describe(exit)}${said === "" ? "" : `: ${said}`}`)
        }),
        end
      )
    }).pipe(Effect.catchIf(isSpawnRefused, ({ message }) => failed(message)))
  }

  const sizeOf = (file: string) =>
    Effect.map(Files.ifThere(Files.attempt("stat", file, () => fs.stat(file))), (found) => found?.size)

  return {
    make: Effect.fn("RootImages.make")(function* (image) {
      const chainId = chainOf(image)
      const file = fileOf(chainId)
      const once = Effect.gen(function* () {
        const there = yield* sizeOf(file)
        if (there !== undefined) return { chainId, path: file, bytes: there }
        const partial = path.join(temporary, `root-${made++}${suffix}`)
        const publish = Effect.gen(function* () {
          yield* pack(image, partial)
          const handle = yield* Files.open(partial, "r")
          yield* Files.publish(handle, partial, file)
        }).pipe(Effect.scoped)
        yield* Effect.onError(publish, () => Effect.ignore(Files.remove(partial)))
        return { chainId, path: file, bytes: (yield* sizeOf(file)) ?? 0 }
      })
      return yield* locks.withLock(chainId)(once)
    }),
    list: Effect.gen(function* () {
      const found: Array<{ readonly chainId: Digest; readonly bytes: number }> = []
      for (const name of yield* Files.names(directory)) {
        const chainId = name.slice(0, -suffix.length).replace("-", ":")
        const bytes = yield* sizeOf(path.join(directory, name))
        if (name.endsWith(suffix) && isDigest(chainId) && bytes !== undefined) found.push({ chainId, bytes })
      }
      return found
    }),
    remove: (chainId) => Files.remove(fileOf(chainId))
  }
})
