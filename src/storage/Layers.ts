/**
 * `Layers`: image layers as directories that overlayfs can use as lower directories. One directory per chain id (a layer on
 * those below it, as directories that a layer omits take their attributes from below), unpacked once and shared.
 *
 * `LAYERS/<name>/f` is the tree, `LAYERS/<name>/layer.json` what is known of it; `<name>` is short, because the names of up
 * to 127 layers must fit the 4096 bytes of a mount's options. A layer is unpacked elsewhere, synced and renamed in one
 * step: it is there whole or not at all.
 *
 * `Unpacking` does it: a program that taproot spawned has the bytes, `LayerFilter` judges every entry here.
 *
 * Traps: the trees hold device nodes and set-user-ID files of strangers, so `directory` is closed to others (0700). Layers
 * below an opaque root do not show: mount what `lowerNames` says, not one name per layer.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash, type Hash } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { Processes } from "../taproot/Processes.ts"
import type { Coming } from "./Blobs.ts"
import { BlobCorrupt, LayerRefused, StorageFailed, UnpackFailed } from "./ContentError.ts"
import { Digest, finish, hasher, parts } from "./Digest.ts"
import * as Files from "./Files.ts"
import * as KeyedLock from "./KeyedLock.ts"
import { makeLayerArchive } from "./LayerArchive.ts"
import { defaultLimits, type LayerLimits, limitsFor } from "./LayerFilter.ts"
import type { Attributes } from "./LayerTree.ts"
import { compareTree } from "./LayerComparison.ts"
import type { Compression } from "./OciImage.ts"
import type { TarFault } from "./TarReader.ts"
import * as Unpacking from "./unpack/Unpacking.ts"

/** What every question about a layer has. */
interface LayerQuestion {
  /** The chain ids of the image up to and with this layer, lowest first. */
  readonly chain: ReadonlyArray<Digest>
  /** The blob that the layer comes from: what errors call it. */
  readonly blob: Digest
  /** Its bytes: a layer that is very many times larger is a bomb. */
  readonly blobBytes: number
  /** The digest that the uncompressed tar must have. */
  readonly diffId: Digest
}

/** What of a layer is to be applied on what. */
export interface LayerRequest<E, R, E2, R2> extends LayerQuestion {
  readonly compression: Compression
  /** The blob, opened. Asked for only when the layer is not there yet. */
  readonly open: Effect.Effect<Coming<E, R>, E, R | Scope.Scope>
  /** Succeeds when the layers below are applied; awaited last, so that layers of one image unpack side by side. */
  readonly below: Effect.Effect<void, E2, R2>
}

/** What a layer on the disk is to be compared with. */
export interface LayerComparison<E, R> extends LayerQuestion {
  /** The uncompressed tar. */
  readonly tar: Stream.Stream<Uint8Array, E, R>
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
      request: LayerComparison<E, R>
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

  // One of a dead brain waits for ever for the rest of its input: end it before its directory goes.
  for (const leftover of yield* processes.takeAll(Unpacking.labelPrefix)) yield* Unpacking.end(leftover)
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

  const unpack = Effect.fnUntraced(function* <E, R, E2, R2>(
    chainId: Digest,
    home: string,
    request: LayerRequest<E, R, E2, R2>
  ): Effect.fn.Return<
    typeof LayerRecord.Type,
    E | E2 | LayerRefused | BlobCorrupt | UnpackFailed | StorageFailed,
    R | R2 | Scope.Scope
  > {
    const { blob, blobBytes, compression, diffId } = request
    const tree = path.join(home, "f")
    yield* Files.makeDirectory(tree)
    const coming = yield* request.open
    const unpacking = yield* Unpacking.open(processes, {
      blob,
      coming,
      compression,
      diffId,
      tree,
      limits: limits(blobBytes)
    })
    const actual = `${parts(diffId).algorithm}:${yield* unpacking.read}`
    if (actual !== diffId) {
      return yield* new BlobCorrupt({
        digest: blob,
        problem: `its tar has the digest ${actual}, not the diff id ${diffId}`
      })
    }
    const { filter } = unpacking
    yield* unpacking.make(filter.tail())

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
    yield* unpacking.give(filter.closingAll(inherited))

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
    // all of the file system, this record too: a tree has too many files to sync one by one
    yield* unpacking.sync
    const final = path.join(directory, path.dirname(nameOf(chainId)))
    yield* Files.remove(final)
    yield* Files.rename(home, final)
    yield* Files.syncDirectory(directory)
    return record
  }, Effect.scoped)

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

  /**
   * The layer's tar as what it becomes, hashed on its way. Every piece of the archive is a view of the same memory, good until
   * the next one is pulled: buffers of this size, allocated by the thousand, would keep the garbage collector busy.
   */
  const filtered = <E, R>(tar: Stream.Stream<Uint8Array, E, R>, layer: Digest, blobBytes: number, hash: Hash) => {
    let staging = Buffer.alloc(512 * 1024)
    let used = 0
    const filter = makeLayerArchive(limits(blobBytes), (bytes) => {
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
    return tar.pipe(
      Stream.mapEffect((bytes) => {
        hash.update(bytes)
        return result(filter.push(bytes))
      }),
      Stream.concat(Stream.fromEffect(Effect.suspend(() => result(filter.end())))),
      Stream.concat(Stream.suspend(() => Stream.fromIterable(filter.tail(), { chunkSize: 1 })))
    )
  }

  const compare = Effect.fn("Layers.compare")(function* <E, R>(
    request: LayerComparison<E, R>
  ): Effect.fn.Return<ReadonlyArray<string>, E | LayerRefused | BlobCorrupt | UnpackFailed | StorageFailed, R> {
    const { blob, blobBytes, chain, diffId } = request
    const chainId = chain[chain.length - 1]
    if (chainId === undefined) return []
    const tree = path.join(directory, nameOf(chainId))
    const hash = hasher(diffId)
    const said = yield* compareTree(processes, blob, tree, filtered(request.tar, blob, blobBytes, hash))
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
