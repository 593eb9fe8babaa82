/**
 * `Layers`: image layers as directories that overlayfs can use as lower directories. One directory per chain id (a layer on
 * those below it, as directories that a layer omits take their attributes from below), unpacked once and shared.
 *
 * `LAYERS/<name>/f` is the tree, `LAYERS/<name>/layer.json` what is known of it; `<name>` is short, because the names of up
 * to 127 layers must fit the 4096 bytes of a mount's options. A layer is unpacked elsewhere, synced and renamed in one
 * step: it is there whole or not at all.
 *
 * The bytes come through `LayerFilter`, which judges and rewrites every entry, into GNU tar, which taproot spawned: it
 * writes device nodes, attributes and links at the speed of C on a second core, and its fate is not the brain's.
 *
 * Traps: the trees hold device nodes and set-user-ID files of strangers, so `directory` is closed to others (0700). Layers
 * below an opaque root do not show: mount what `lowerNames` says, not one name per layer.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { createHash, type Hash } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { describe, isSuccess } from "../taproot/ProcessExit.ts"
import { type Process, Processes, SpawnRefused } from "../taproot/Processes.ts"
import { BlobCorrupt, LayerRefused, StorageFailed, UnpackFailed } from "./ContentError.ts"
import { Digest, finish, hasher, short } from "./Digest.ts"
import * as Files from "./Files.ts"
import * as KeyedLock from "./KeyedLock.ts"
import { defaultLimits, type LayerLimits, limitsFor, makeLayerFilter } from "./LayerFilter.ts"
import type { Attributes } from "./LayerTree.ts"
import { compareTree } from "./LayerComparison.ts"
import type { TarFault } from "./TarReader.ts"

/** What of a layer is to be applied on what. */
export interface LayerRequest<E, R, E2, R2> {
  /** The chain ids of the image up to and with this layer, lowest first. */
  readonly chain: ReadonlyArray<Digest>
  /** The blob that the layer comes from: what errors call it. */
  readonly blob: Digest
  /** Its bytes: a layer that is very many times larger is a bomb. */
  readonly blobBytes: number
  /** The digest that the uncompressed tar must have. */
  readonly diffId: Digest
  /** The uncompressed tar. Read only when the layer is not there yet. */
  readonly tar: Stream.Stream<Uint8Array, E, R>
  /** Succeeds when the layers below are applied; awaited last, so that layers of one image unpack side by side. */
  readonly below: Effect.Effect<void, E2, R2>
}

export interface LayersOptions {
  /** Where layers live: `LAYERS`. Made when it is not there. */
  readonly directory: string
  /** Where half-made things live, on the same file system; emptied at start. */
  readonly temporary: string
  /** Asked for each layer. */
  readonly limits?: () => Partial<LayerLimits>
}

/** `layer.json`: what the directory tree itself does not tell. Paths are binary strings. */
const LayerRecord = Schema.Struct({
  chainId: Digest,
  diffId: Digest,
  entries: Schema.Int,
  /** Of all files. */
  bytes: Schema.Int,
  special: Schema.Array(
    Schema.Struct({
      path: Schema.String,
      opaque: Schema.Boolean,
      xattrs: Schema.Record(Schema.String, Schema.Uint8ArrayFromBase64)
    })
  )
})
const LayerRecordJson = Schema.fromJsonString(LayerRecord)

/** A layer that is there, for look-ups by the layers above. */
interface Known {
  readonly chainId: Digest
  readonly special: ReadonlyMap<string, { readonly opaque: boolean; readonly xattrs: ReadonlyMap<string, Uint8Array> }>
}

/** Processes that unpack carry this label, so that a next brain can end those that a dead one left behind. */
const labelPrefix = "unpack/"

const nameOf = (chainId: Digest): string => `${createHash("sha256").update(chainId).digest("base64url").slice(0, 22)}/f`

/** `Files` has no business with bytes as names; only look-ups by the names of entries need them. */
const inTree = (tree: string, binaryPath: string): Buffer =>
  Buffer.concat([Buffer.from(`${tree}/`), Buffer.from(binaryPath, "latin1")])

export class Layers extends Context.Service<
  Layers,
  {
    /** The directory that holds the layers: overlay mounts change into it, so that names stay short. */
    readonly directory: string
    /** Relative to `directory`: two empty directories, as a mount without a writable layer needs at least two lower ones, and never one twice. */
    readonly emptyNames: readonly [string, string]
    /** The lower directories for these chain ids, relative to `directory`, topmost first (as overlayfs wants them). Undefined when a layer is not there. */
    readonly lowerNames: (
      chain: ReadonlyArray<Digest>
    ) => Effect.Effect<ReadonlyArray<string> | undefined, StorageFailed>
    readonly has: (chainId: Digest) => Effect.Effect<boolean, StorageFailed>
    /** Unpacks the layer unless it is there. All or nothing, also over a kill; asked for twice at once, it works once. */
    readonly apply: <E, R, E2, R2>(
      request: LayerRequest<E, R, E2, R2>
    ) => Effect.Effect<void, E | E2 | LayerRefused | BlobCorrupt | UnpackFailed | StorageFailed, R | R2>
    /** What in the tree differs from what the layer's tar says, in words; the first few. Says nothing of attributes of directories. */
    readonly compare: <E, R>(
      request: LayerRequest<E, R, never, never>
    ) => Effect.Effect<ReadonlyArray<string>, E | LayerRefused | BlobCorrupt | UnpackFailed | StorageFailed, R>
    /** Every layer, and the bytes of its files. */
    readonly list: Effect.Effect<ReadonlyArray<{ readonly chainId: Digest; readonly bytes: number }>, StorageFailed>
    /** Removes a layer that no mount uses; fine when there is none. */
    readonly remove: (chainId: Digest) => Effect.Effect<void, StorageFailed>
  }
>()("ironwood/storage/Layers") {
  /** Cleans up after a brain that died, then serves. */
  static readonly layer = (options: LayersOptions) => Layer.effect(Layers, make(options))
}

const emptyNames = ["empty-1", "empty-2"] as const

const make = Effect.fnUntraced(function* (options: LayersOptions) {
  const processes = yield* Processes
  const { directory, temporary } = options
  const limits = (blobBytes: number): LayerLimits => limitsFor({ ...defaultLimits, ...options.limits?.() }, blobBytes)
  const locks = KeyedLock.make()
  const known = new Map<Digest, Known>()
  let made = 0

  // A tar of a dead brain waits for ever for the rest of its input: end it before its directory goes.
  for (const leftover of yield* processes.takeAll(labelPrefix)) yield* end(leftover)
  yield* Files.makeDirectory(directory)
  for (const name of emptyNames) yield* Files.makeDirectory(path.join(directory, name))
  yield* Files.makeDirectory(temporary)
  for (const name of yield* Files.names(temporary)) yield* Files.remove(path.join(temporary, name))

  const readRecord = Effect.fnUntraced(function* (
    home: string
  ): Effect.fn.Return<typeof LayerRecord.Type | undefined, StorageFailed> {
    const file = path.join(home, "layer.json")
    const text = yield* Files.ifThere(Files.attempt("read", file, () => fs.readFile(file, "utf8")))
    if (text === undefined) return undefined
    return yield* Schema.decodeEffect(LayerRecordJson)(text).pipe(
      Effect.mapError(
        (error) => new StorageFailed({ operation: "read", path: file, code: "EINVAL", problem: error.message })
      )
    )
  })

  const remember = (record: typeof LayerRecord.Type): Known => {
    const layer: Known = {
      chainId: record.chainId,
      special: new Map(
        record.special.map(({ opaque, path, xattrs }) => [path, { opaque, xattrs: new Map(Object.entries(xattrs)) }])
      )
    }
    known.set(record.chainId, layer)
    return layer
  }

  const find = Effect.fnUntraced(function* (chainId: Digest): Effect.fn.Return<Known | undefined, StorageFailed> {
    const cached = known.get(chainId)
    if (cached !== undefined) return cached
    const record = yield* readRecord(path.join(directory, path.dirname(nameOf(chainId))))
    return record === undefined || record.chainId !== chainId ? undefined : remember(record)
  })

  /** The attributes that `binaryPath` shows through the layers below, topmost first; none when it is no directory there. */
  const inheritedAttributes = Effect.fnUntraced(function* (
    below: ReadonlyArray<Known>,
    binaryPath: string
  ): Effect.fn.Return<Attributes | undefined, StorageFailed> {
    const list = binaryPath === "" ? [] : binaryPath.split("/")
    // Every prefix is looked at, so that no symlink of a layer is ever followed.
    const prefixes = [...list.map((_, index) => list.slice(0, index).join("/")), binaryPath]
    for (const layer of below) {
      const tree = path.join(directory, nameOf(layer.chainId))
      for (const prefix of prefixes) {
        const stat = yield* Files.ifThere(
          Files.attempt("stat", `${tree}/${prefix}`, () => fs.lstat(inTree(tree, prefix), { bigint: true }))
        )
        if (stat === undefined) break
        if (!stat.isDirectory()) return undefined
        if (prefix !== binaryPath) continue
        return {
          mode: Number(stat.mode & 0o7777n),
          uid: Number(stat.uid),
          gid: Number(stat.gid),
          modified: {
            seconds: Number(stat.mtimeNs / 1_000_000_000n),
            nanoseconds: Number(stat.mtimeNs % 1_000_000_000n)
          },
          xattrs: layer.special.get(binaryPath)?.xattrs ?? new Map()
        }
      }
      if (prefixes.some((prefix) => layer.special.get(prefix)?.opaque === true)) return undefined
    }
    return undefined
  })

  /** Extracts an archive of our own making into `tree`. */
  const extract = <E, R>(
    layer: Digest,
    tree: string,
    options: ReadonlyArray<string>,
    archive: Stream.Stream<Uint8Array, E, R>
  ): Effect.Effect<void, E | UnpackFailed | StorageFailed, R> =>
    Effect.acquireUseRelease(
      processes.spawn({
        label: `${labelPrefix}${short(layer)}`,
        argv: [
          "tar",
          "--extract",
          "--file=-",
          "--blocking-factor=128",
          "--same-permissions",
          "--same-owner",
          "--numeric-owner",
          "--xattrs",
          "--xattrs-include=*",
          "--delay-directory-restore",
          "--warning=no-timestamp",
          ...options
        ],
        environment: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
        directory: tree,
        stdin: { _tag: "Stream" },
        stderr: { _tag: "Stream" }
      }),
      Effect.fnUntraced(function* (tar): Effect.fn.Return<void, E | UnpackFailed | StorageFailed, R> {
        const complaints = yield* Effect.forkChild(complaintsOf(tar))
        // When tar has gone, why it went matters more than what it did not read.
        yield* Stream.runForEachWhile(archive, (bytes) =>
          tar.write(bytes).pipe(
            Effect.as(true),
            Effect.orElseSucceed(() => false)
          )
        )
        yield* tar.closeStdin
        const exit = yield* tar.exit
        const complained = yield* Fiber.join(complaints)
        const problem = `tar ${describe(exit)}${complained === "" ? "" : `: ${complained}`}`
        // A write that the file system took only in part is how tar meets the end of a disk.
        const full = /No space left on device|Disk quota exceeded|Wrote only \d+ of/.test(complained)
        return yield* isSuccess(exit) && complained === ""
          ? Effect.void
          : full
            ? new StorageFailed({ operation: "unpack a layer into", path: tree, code: "ENOSPC", problem })
            : new UnpackFailed({ layer, problem })
      }),
      end
    ).pipe(Effect.catchIf(isSpawnRefused, (refused) => new UnpackFailed({ layer, problem: refused.message })))

  /**
   * The layer's tar through the filter, hashed on its way. Every piece of the archive is a view of the same memory, good until
   * the next one is pulled: buffers of this size, allocated by the thousand, would keep the garbage collector busy.
   */
  const filtered = <E, R>(tar: Stream.Stream<Uint8Array, E, R>, layer: Digest, blobBytes: number, hash: Hash) => {
    let staging = Buffer.alloc(512 * 1024)
    let used = 0
    const filter = makeLayerFilter(limits(blobBytes), (bytes) => {
      if (used + bytes.length > staging.length) {
        staging = Buffer.concat([staging.subarray(0, used)], Math.max(staging.length * 2, used + bytes.length))
      }
      staging.set(bytes, used)
      used += bytes.length
    })
    const result = (fault: TarFault | undefined) => {
      if (fault !== undefined) return Effect.fail(new LayerRefused({ layer, ...fault }))
      const archive = staging.subarray(0, used)
      used = 0
      return Effect.succeed(archive)
    }
    const archive = tar.pipe(
      Stream.mapEffect((bytes) => {
        hash.update(bytes)
        return result(filter.push(bytes))
      }),
      Stream.concat(Stream.fromEffect(Effect.suspend(() => result(filter.end())))),
      Stream.concat(Stream.suspend(() => Stream.fromIterable(filter.tail(), { chunkSize: 1 })))
    )
    return { filter, archive }
  }

  const unpack = Effect.fnUntraced(function* <E, R, E2, R2>(
    chainId: Digest,
    home: string,
    request: LayerRequest<E, R, E2, R2>
  ): Effect.fn.Return<
    typeof LayerRecord.Type,
    E | E2 | LayerRefused | BlobCorrupt | UnpackFailed | StorageFailed,
    R | R2
  > {
    const { blob, blobBytes, diffId } = request
    const tree = path.join(home, "f")
    yield* Files.makeDirectory(tree)
    const hash = hasher(diffId)
    const { archive, filter } = filtered(request.tar, blob, blobBytes, hash)
    yield* extract(blob, tree, ["--recursive-unlink"], archive)
    const actual = finish(hash, diffId)
    if (actual !== diffId) {
      return yield* new BlobCorrupt({
        digest: blob,
        problem: `its tar has the digest ${actual}, not the diff id ${diffId}`
      })
    }

    yield* request.below
    const below: Array<Known> = []
    for (const lower of request.chain.slice(0, -1).toReversed()) {
      const layer = yield* find(lower)
      if (layer === undefined) {
        return yield* new UnpackFailed({ layer: blob, problem: `the layer ${lower} below it is not there` })
      }
      below.push(layer)
    }
    const inherited = new Map<string, Attributes>()
    for (const directoryPath of filter.implicit()) {
      const attributes = yield* inheritedAttributes(below, directoryPath)
      if (attributes !== undefined) inherited.set(directoryPath, attributes)
    }
    yield* extract(blob, tree, [], Stream.fromIterable(filter.closing(inherited), { chunkSize: 1 }))

    const record: typeof LayerRecord.Type = {
      chainId,
      diffId,
      entries: filter.entries(),
      bytes: filter.bytes(),
      special: filter
        .special()
        .map(({ opaque, path, xattrs }) => ({ path, opaque, xattrs: Object.fromEntries(xattrs) }))
    }
    const file = path.join(home, "layer.json")
    const text = yield* Effect.orDie(Schema.encodeEffect(LayerRecordJson)(record))
    yield* Files.attempt("write", file, () => fs.writeFile(file, text, { mode: 0o600 }))
    yield* sync(blob, home)
    const final = path.join(directory, path.dirname(nameOf(chainId)))
    yield* Files.remove(final)
    yield* Files.rename(home, final)
    yield* Files.syncDirectory(directory)
    return record
  })

  /** Everything written to the file system so far reaches the disk: a tree has too many files to sync one by one. */
  const sync = (layer: Digest, home: string): Effect.Effect<void, UnpackFailed> => {
    const failed = (problem: string) => new UnpackFailed({ layer, problem: `syncing it failed: ${problem}` })
    return processes.run({ label: "sync", argv: ["sync", "--file-system", home] }).pipe(
      Effect.mapError((refused) => failed(refused.message)),
      Effect.flatMap(({ exit, stderr }) =>
        isSuccess(exit) ? Effect.void : failed(`${describe(exit)} ${new TextDecoder().decode(stderr)}`)
      )
    )
  }

  const apply = Effect.fn("Layers.apply")(function* <E, R, E2, R2>(
    request: LayerRequest<E, R, E2, R2>
  ): Effect.fn.Return<void, E | E2 | LayerRefused | BlobCorrupt | UnpackFailed | StorageFailed, R | R2> {
    const chainId = request.chain[request.chain.length - 1]
    if (chainId === undefined) return
    const once = Effect.gen(function* () {
      if ((yield* find(chainId)) !== undefined) return
      const home = path.join(temporary, `layer-${made++}`)
      remember(yield* Effect.ensuring(unpack(chainId, home, request), Effect.ignore(Files.remove(home))))
    })
    yield* locks.withLock(chainId)(once)
  })

  const compare = Effect.fn("Layers.compare")(function* <E, R>(
    request: LayerRequest<E, R, never, never>
  ): Effect.fn.Return<ReadonlyArray<string>, E | LayerRefused | BlobCorrupt | UnpackFailed | StorageFailed, R> {
    const { blob, blobBytes, chain, diffId } = request
    const chainId = chain[chain.length - 1]
    if (chainId === undefined) return []
    const tree = path.join(directory, nameOf(chainId))
    const hash = hasher(diffId)
    const { archive } = filtered(request.tar, blob, blobBytes, hash)
    const said = yield* compareTree(processes, blob, tree, archive)
    const actual = finish(hash, diffId)
    if (actual !== diffId) return [`the tar of its blob has the digest ${actual}, not the diff id ${diffId}`]
    const differing: Array<string> = []
    for (const line of said) {
      // directories have their attributes from later entries and from the layers below; what is in them is compared by itself
      const name = line.slice(0, Math.max(line.lastIndexOf(": "), 0))
      const stat = yield* Files.ifThere(Files.attempt("stat", tree, () => fs.lstat(path.join(tree, name))))
      if (stat?.isDirectory() !== true) differing.push(line)
    }
    return differing
  })

  const lowerNames = Effect.fnUntraced(function* (chain: ReadonlyArray<Digest>) {
    const list: Array<string> = []
    for (const chainId of chain.toReversed()) {
      const layer = yield* find(chainId)
      if (layer === undefined) return undefined
      list.push(nameOf(chainId))
      // overlayfs does not ask whether the root of a layer is opaque.
      if (layer.special.get("")?.opaque === true) break
    }
    return list
  })

  const list = Effect.gen(function* () {
    const found: Array<{ readonly chainId: Digest; readonly bytes: number }> = []
    for (const name of yield* Files.names(directory)) {
      const record = yield* readRecord(path.join(directory, name))
      if (record !== undefined) found.push({ chainId: record.chainId, bytes: record.bytes })
    }
    return found
  })

  const remove = Effect.fn("Layers.remove")(function* (chainId: Digest) {
    const home = path.join(temporary, `removed-${made++}`)
    const present = yield* locks.withLock(chainId)(
      Effect.suspend(() => {
        known.delete(chainId)
        return Files.ifThere(Effect.as(Files.rename(path.join(directory, path.dirname(nameOf(chainId))), home), true))
      })
    )
    if (present === true) yield* Files.remove(home)
  })

  return Layers.of({
    directory,
    emptyNames,
    lowerNames,
    has: (chainId) => Effect.map(find(chainId), (layer) => layer !== undefined),
    apply,
    compare,
    list,
    remove
  })
})

const isSpawnRefused = (error: unknown): error is SpawnRefused => error instanceof SpawnRefused

/** What tar said, shortened. It says nothing when all is well. */
const complaintsOf = (tar: Process): Effect.Effect<string> =>
  Stream.runFold(
    tar.output("stderr"),
    () => "",
    (said, chunk) => (said.length > 2000 ? said : said + new TextDecoder().decode(chunk.bytes))
  ).pipe(Effect.map((said) => said.trim().slice(0, 2000)))

/** Ends a process that may still run, and forgets it. */
const end = (process: Process): Effect.Effect<void> =>
  process
    .signal("SIGKILL", { group: true })
    .pipe(Effect.ignore, Effect.andThen(process.exit), Effect.andThen(process.acknowledge))
