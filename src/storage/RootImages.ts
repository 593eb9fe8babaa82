/**
 * Root file systems for microVMs: the layers of an image as one squashfs file, made in user space, without a mount and without
 * being root, straight from the layers' blobs. One file for each chain of layers, shared by all images and guests that have it.
 *
 * A kept tool packs (`tar2sqfs` of squashfs-tools-ng, zstd level 1); it is fed with one archive of all layers merged
 * (`MergedTree.ts`). The blobs are read twice, both times by the program that unpacks layers (`Unpacking.ts`): once for what is in
 * them, once for the contents that count, which it hands to the packer itself, through a named pipe. Nothing of an image is
 * ever in memory here but the names in it.
 *
 * Traps: a file is there whole or not at all; who has it open keeps it when it is removed. `Content` removes those whose images
 * are gone.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { describe, isSuccess } from "../taproot/ProcessExit.ts"
import { type Process, type Processes, SpawnRefused } from "../taproot/Processes.ts"
import type { Blobs, Coming } from "./Blobs.ts"
import type { Image, ImageLayer } from "./Content.ts"
import { type BlobCorrupt, LayerRefused, RootImageFailed, StorageFailed } from "./ContentError.ts"
import { Digest, isDigest, parts, short } from "./Digest.ts"
import * as Files from "./Files.ts"
import * as KeyedLock from "./KeyedLock.ts"
import { defaultLimits, type LayerFilter, type LayerLimits, type LayerSink, limitsFor } from "./LayerFilter.ts"
import { type MergedArchive, makeMergedTree } from "./MergedTree.ts"
import { type Compression, layerCompression } from "./OciImage.ts"
import * as Unpacking from "./unpack/Unpacking.ts"
import type { Commands } from "./unpack/UnpackProtocol.ts"

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
/** More than there are processors gains nothing. */
const layersAtOnce = 2

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

  /** Where one root file system is made: empty, but for the pipe to the packer. */
  interface Site {
    readonly image: Digest
    readonly home: string
    readonly pipe: string
  }

  const failedFor = (image: Digest) => (problem: string) => new RootImageFailed({ image, problem })

  /** A layer in the program that unpacks; `passing`: into the pipe. */
  const opened = Effect.fnUntraced(function* (
    { home, image, pipe }: Site,
    layer: {
      readonly digest: Digest
      readonly size: number
      readonly compression: Compression
      readonly coming: Coming
    },
    sink: (commands: Commands) => LayerSink,
    passing: boolean
  ) {
    const { coming, compression, digest, size } = layer
    return yield* Unpacking.open(processes, {
      blob: digest,
      coming,
      compression,
      tree: home,
      limits: limitsFor({ ...defaultLimits, ...options.limits?.() }, size),
      sink,
      ...(passing ? { archive: pipe } : {})
    }).pipe(Effect.mapError(({ problem }) => failedFor(image)(problem)))
  })

  /** Reads a layer to its end; what becomes of its entries is the sink's to say. */
  const readLayer = Effect.fnUntraced(function* (
    site: Site,
    { digest, mediaType, size }: ImageLayer,
    sink: (commands: Commands) => LayerSink,
    passing: boolean
  ): Effect.fn.Return<LayerFilter, RootImageError, Scope.Scope> {
    const compression = layerCompression(mediaType)
    if (compression === undefined) {
      return yield* new LayerRefused({ layer: digest, entry: "", problem: `is of the type ${mediaType}` })
    }
    const coming = yield* blobs.open(digest, size)
    const unpacking = yield* opened(site, { digest, size, compression, coming }, sink, passing)
    const read = Effect.andThen(unpacking.read, passing ? unpacking.sync : Effect.void)
    yield* Effect.catchTag(read, "UnpackFailed", ({ problem }) => failedFor(site.image)(problem))
    return unpacking.filter
  })

  /** What all layers together are. Some are read side by side, each is laid over those below it. */
  const merge = Effect.fnUntraced(function* (
    site: Site,
    image: Image
  ): Effect.fn.Return<MergedArchive, RootImageError> {
    const tree = makeMergedTree()
    const trees = image.layers.map((item) => ({ item, layer: tree.layer(), laid: Deferred.makeUnsafe<void>() }))
    yield* Effect.forEach(
      trees,
      ({ item, laid, layer }, position) =>
        Effect.gen(function* () {
          let number = 0
          const sink = (commands: Commands): LayerSink => ({
            entry: (entry) => {
              if (entry.size > 0) commands.drop(entry.size)
              return layer.take(entry, number++)
            },
            data: () => {},
            dropped: commands.drop
          })
          const filter = yield* Effect.scoped(readLayer(site, item, sink, false))
          const refused = (entry: string, problem: string) => new LayerRefused({ layer: item.digest, entry, problem })
          for (const entry of filter.tail()) {
            const problem = layer.take(entry, -1)
            if (problem !== undefined) return yield* refused(entry.name, problem)
          }
          const below = trees[position - 1]
          if (below !== undefined) yield* Deferred.await(below.laid)
          const implicit = filter.implicit()
          const problem = layer.close(implicit, filter.closing(new Map()))
          if (problem !== undefined) return yield* refused("", problem)
          yield* Deferred.succeed(laid, undefined)
        }),
      { concurrency: layersAtOnce, discard: true }
    )
    const archive = tree.archive()
    return typeof archive === "string" ? yield* failedFor(site.image)(archive) : archive
  })

  /** Passes on what has no content, by a layer of no bytes. */
  const passAll = Effect.fnUntraced(function* (site: Site, pieces: Iterable<Uint8Array>) {
    const coming = { file: "/dev/null", size: 0, beyond: () => Effect.never }
    const none = () => ({ entry: () => undefined, data: () => {}, dropped: () => {} })
    const nothing = { digest: noLayers, size: 0, compression: "none", coming } as const
    const unpacking = yield* opened(site, nothing, none, true)
    const passed = Effect.gen(function* () {
      yield* unpacking.read
      yield* unpacking.pass(pieces)
      yield* unpacking.sync
    })
    yield* Effect.catchTag(passed, "UnpackFailed", ({ problem }) => failedFor(site.image)(problem))
  }, Effect.scoped)

  /** Feeds the packer. */
  const feed = Effect.fnUntraced(function* (
    site: Site,
    image: Image,
    archive: MergedArchive
  ): Effect.fn.Return<void, RootImageError> {
    yield* passAll(site, archive.head())
    for (const [position, item] of image.layers.entries()) {
      if (!archive.has(position)) continue
      let number = 0
      const sink = (commands: Commands): LayerSink => ({
        entry: (entry) => {
          const header = archive.fileOf(position, number++)
          if (header !== undefined) commands.pass(header, entry.size)
          else if (entry.size > 0) commands.drop(entry.size)
          return undefined
        },
        data: () => {},
        dropped: commands.drop
      })
      yield* Effect.scoped(readLayer(site, item, sink, true))
    }
    yield* passAll(site, archive.tail())
  })

  /** The archive goes from one program to the other; held open here, as several write to it in turn. */
  const pipeTo = Effect.fnUntraced(function* ({ image, pipe }: Site) {
    const { exit, stderr } = yield* processes.run({ label: `${labelPrefix}pipe`, argv: ["mkfifo", "--mode=600", pipe] })
    if (!isSuccess(exit)) {
      return yield* failedFor(image)(`mkfifo ${describe(exit)}: ${new TextDecoder().decode(stderr)}`)
    }
    return yield* Files.open(pipe, "r+")
  })

  /** Its standard input is open as soon as it is the packer. */
  const reads = (process: Process) =>
    Files.attempt("read", "cmdline", () => fs.readFile(`/proc/${process.pid}/cmdline`, "latin1")).pipe(
      Effect.orElseSucceed(() => ""),
      Effect.repeat({ until: (words) => words.startsWith(`${packer}\0`), schedule: Schedule.spaced("1 millis") })
    )

  const pack = (image: Image, file: string, home: string): Effect.Effect<void, RootImageError> => {
    const site: Site = { image: image.digest, home, pipe: path.join(home, "archive") }
    const failed = failedFor(image.digest)
    return Effect.gen(function* () {
      yield* Files.makeDirectory(home)
      const archive = yield* merge(site, image)
      const held = yield* pipeTo(site)
      yield* Effect.acquireUseRelease(
        processes.spawn({
          label: `${labelPrefix}${short(image.digest)}`,
          argv: [packer, "-c", "zstd", "-X", "level=1", "-j", "2", "-s", "-q", "-f", file],
          environment: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
          stdin: { _tag: "File", path: site.pipe },
          stderr: { _tag: "Stream" }
        }),
        Effect.fnUntraced(function* (process): Effect.fn.Return<void, RootImageError> {
          const complaints = yield* Effect.forkChild(complaintsOf(process))
          // who has stopped reading lets everybody wait
          const fed = yield* Effect.exit(
            Effect.raceFirst(feed(site, image, archive), Effect.andThen(process.exit, failed("it stopped reading")))
          )
          if (fed._tag === "Failure" && (yield* Effect.map(process.exitNow, ({ _tag }) => _tag === "None"))) {
            // half an archive must not become a file system
            yield* Effect.ignore(process.signal("SIGKILL", { group: true }))
          }
          // nobody would open what is empty and held by nobody, or find what was in it
          yield* Effect.raceFirst(reads(process), process.exit)
          yield* Effect.ignore(Files.attempt("close", site.pipe, () => held.close()))
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
    }).pipe(
      Effect.scoped,
      Effect.catchIf(isSpawnRefused, ({ message }) => failed(message)),
      Effect.ensuring(Effect.ignore(Files.remove(home)))
    )
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
        const home = path.join(temporary, `root-${made++}`)
        const partial = `${home}${suffix}`
        const publish = Effect.gen(function* () {
          yield* pack(image, partial, home)
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
