/**
 * The real `Rootfs`: overlay mounts that taproot makes, one directory per root file system under `RUNTIME/rootfs`:
 * `<key>/rootfs` (the mount), `<key>/upper` and `<key>/work` (the writable layer) and `<key>/rootfs.json`, written before the mount, which
 * says what it is. A directory without a readable `rootfs.json` is half-made and worth nothing.
 *
 * The mount's options name everything relative to the layers' directory, because the kernel takes no more than a page.
 *
 * Trap: `rootfs.json` is not synced: a power cut within seconds of a container's creation can cost it a writable layer that
 * had nothing on the disk yet either.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { Stats } from "node:fs"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { Processes, type UnmountFailed } from "../taproot/Processes.ts"
import { Content } from "./Content.ts"
import { RootfsConflict, RootfsKeyInvalid, StorageFailed } from "./ContentError.ts"
import { Digest, short } from "./Digest.ts"
import * as Files from "./Files.ts"
import * as KeyedLock from "./KeyedLock.ts"
import { Layers } from "./Layers.ts"
import * as MountTable from "./MountTable.ts"
import { Rootfs, type RootfsMount } from "./Rootfs.ts"

export interface RootfsOptions {
  /** Where root file systems live: `STATE/runtime/rootfs`. Made when it is not there. */
  readonly directory: string
}

const RootfsRecord = Schema.Struct({ image: Digest, readonly: Schema.Boolean })
type RootfsRecord = typeof RootfsRecord.Type
const RootfsRecordJson = Schema.fromJsonString(RootfsRecord)

const keyPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/

// mount(2) and umount2(2)
const MS_RDONLY = 1n
const MS_NODEV = 4n
const MNT_DETACH = 2
const EBUSY = 16

/** In overlay options a comma separates options, a colon layers, and a backslash takes their meaning away. */
const escape = (option: string): string => option.replace(/[\\,:]/g, "\\$&")

const what = ({ image, readonly }: RootfsRecord): string => `image ${short(image)}${readonly ? ", read-only" : ""}`

export const layer = (options: RootfsOptions) => Layer.effect(Rootfs, make(options.directory))

const make = Effect.fnUntraced(function* (configured: string) {
  const processes = yield* Processes
  const content = yield* Content
  const layers = yield* Layers
  const locks = KeyedLock.make()

  yield* Files.makeDirectory(configured)
  // The kernel lists mounts by their real path.
  const directory = yield* Files.attempt("resolve", configured, () => fs.realpath(configured))
  const layersDirectory = yield* Files.attempt("resolve", layers.directory, () => fs.realpath(layers.directory))

  const homeOf = (key: string) => path.join(directory, key)
  const targetOf = (key: string) => path.join(homeOf(key), "rootfs")
  const recordOf = (key: string) => path.join(homeOf(key), "rootfs.json")

  const describe = (key: string, { image, readonly }: RootfsRecord): RootfsMount => ({
    key,
    image,
    readonly,
    path: targetOf(key),
    upper: readonly ? undefined : path.join(homeOf(key), "upper")
  })

  const readRecord = Effect.fnUntraced(function* (key: string) {
    const text = yield* Files.ifThere(Files.attempt("read", recordOf(key), () => fs.readFile(recordOf(key), "utf8")))
    if (text === undefined) return undefined
    return yield* Schema.decodeEffect(RootfsRecordJson)(text).pipe(Effect.orElseSucceed(() => undefined))
  })

  const known = new Map<string, RootfsRecord>()
  const keys = (yield* Files.names(directory)).filter((key) => keyPattern.test(key))
  const kept = yield* Effect.forEach(keys, (key) => Effect.map(readRecord(key), (record) => [key, record] as const), {
    concurrency: 16
  })
  for (const [key, record] of kept) if (record !== undefined) known.set(key, record)
  yield* content.registerUsers(
    (digest) =>
      Effect.sync(() =>
        [...known].flatMap(([key, { image }]) => (image === digest ? [`root file system ${key}`] : []))
      ),
    { behindOthers: true }
  )

  /** What is mounted on or below the target, innermost last. */
  const mountsOf = (key: string) =>
    Effect.map(MountTable.read(processes.hello.taprootPid, `/${key}/rootfs`), (mounts) =>
      mounts
        .map(({ target }) => target)
        .filter((target) => target === targetOf(key) || target.startsWith(`${targetOf(key)}/`))
    )

  const unmountAll = Effect.fnUntraced(function* (key: string) {
    for (const target of (yield* mountsOf(key)).toReversed()) {
      yield* processes.unmount(target).pipe(
        // Somebody still looks into it: it goes out of sight now, and away when the last one leaves.
        Effect.catchIf(
          (failed: UnmountFailed) => failed.errno === EBUSY,
          () => processes.unmount(target, MNT_DETACH)
        )
      )
    }
  })

  /** What the roots of layers look like: these never change. */
  const roots = new Map<string, Stats>()
  const rootOf = Effect.fnUntraced(function* (top: string) {
    const seen = roots.get(top)
    if (seen !== undefined) return seen
    const root = yield* Files.attempt("stat", top, () => fs.lstat(top))
    roots.set(top, root)
    return root
  })

  /** The writable layer's root is what the container sees as "/": it must look like the image's. */
  const makeUpper = Effect.fnUntraced(function* (key: string, top: string) {
    const upper = path.join(homeOf(key), "upper")
    const root = yield* rootOf(top)
    const mode = root.mode & 0o7777
    yield* Files.attempt("create directory", upper, () => fs.mkdir(upper, 0o700))
    yield* Files.makeDirectory(path.join(homeOf(key), "work"))
    if (root.uid !== process.geteuid?.() || root.gid !== process.getegid?.()) {
      yield* Files.attempt("set the owner of", upper, () => fs.chown(upper, root.uid, root.gid))
    }
    yield* Files.attempt("set the mode of", upper, () => fs.chmod(upper, mode))
  })

  const mount = Effect.fnUntraced(function* (key: string, record: RootfsRecord, lower: ReadonlyArray<string>) {
    const fromLayers = (name: string) => escape(path.relative(layersDirectory, path.join(homeOf(key), name)))
    const names = [...lower, ...layers.emptyNames.slice(0, Math.max(0, (record.readonly ? 2 : 1) - lower.length))]
    const data = [
      `lowerdir=${names.join(":")}`,
      ...(record.readonly ? [] : [`upperdir=${fromLayers("upper")}`, `workdir=${fromLayers("work")}`]),
      "index=off"
    ].join(",")
    yield* processes.mount({
      source: "overlay",
      target: targetOf(key),
      type: "overlay",
      // An image's device nodes are not for opening: a container gets its devices from the runtime.
      flags: record.readonly ? MS_NODEV | MS_RDONLY : MS_NODEV,
      data,
      directory: layersDirectory
    })
  })

  /** An empty one, whatever a brain that died in the middle has left of it. Where nothing is, nothing is mounted. */
  const makeHome = Effect.fnUntraced(function* (key: string) {
    const home = homeOf(key)
    const makeIt = Files.attempt("create directory", home, () => fs.mkdir(home, 0o700))
    yield* Effect.catchIf(
      makeIt,
      ({ code }) => code === "EEXIST",
      () => unmountAll(key).pipe(Effect.andThen(Files.remove(home)), Effect.andThen(makeIt))
    )
  })

  const checkKey = (key: string) => (keyPattern.test(key) ? Effect.void : Effect.fail(new RootfsKeyInvalid({ key })))

  const acquire = Effect.fn("Rootfs.acquire")(function* (
    image: Digest,
    key: string,
    options: { readonly readonly?: boolean } = {}
  ) {
    yield* checkKey(key)
    const wanted: RootfsRecord = { image, readonly: options.readonly ?? false }
    const once = Effect.gen(function* () {
      const existing = known.get(key)
      if (existing !== undefined && (existing.image !== image || existing.readonly !== wanted.readonly)) {
        return yield* new RootfsConflict({ key, existing: what(existing), wanted: what(wanted) })
      }
      if (existing !== undefined && (yield* mountsOf(key)).includes(targetOf(key))) return describe(key, existing)

      // A digest is always a reference.
      const { layers: imageLayers } = yield* Effect.catchTag(content.get(image), "ReferenceInvalid", Effect.die)
      const lower = yield* layers.lowerNames(imageLayers.map(({ chainId }) => chainId))
      if (lower === undefined) {
        return yield* new StorageFailed({
          operation: "mount",
          path: targetOf(key),
          code: "ENOENT",
          problem: `a layer of image ${image} is missing in the store; import the image again`
        })
      }
      if (existing === undefined) {
        yield* makeHome(key)
        yield* Files.makeDirectory(targetOf(key))
        if (!wanted.readonly) yield* makeUpper(key, path.join(layersDirectory, lower[0] ?? layers.emptyNames[0]))
        const text = yield* Effect.orDie(Schema.encodeEffect(RootfsRecordJson)(wanted))
        yield* Files.attempt("write", recordOf(key), () => fs.writeFile(recordOf(key), text, { mode: 0o600 }))
        known.set(key, wanted)
      }
      yield* mount(key, wanted, lower)
      return describe(key, wanted)
    })
    return yield* locks.withLock(key)(once)
  })

  const release = Effect.fn("Rootfs.release")(function* (key: string) {
    yield* checkKey(key)
    const once = Effect.gen(function* () {
      yield* unmountAll(key)
      // First what says that it is one: a half-removed writable layer must not be mounted again.
      yield* Files.remove(recordOf(key))
      known.delete(key)
      yield* Files.remove(homeOf(key))
    })
    yield* locks.withLock(key)(once)
  })

  const reconcile = Effect.fn("Rootfs.reconcile")(function* (wanted: ReadonlySet<string>) {
    const unwanted = (yield* Files.names(directory)).filter((key) => keyPattern.test(key) && !wanted.has(key))
    yield* Effect.forEach(unwanted, (key) => Effect.catchTag(release(key), "RootfsKeyInvalid", () => Effect.void), {
      concurrency: 8,
      discard: true
    })
    return unwanted
  })

  return Rootfs.of({
    acquire,
    release,
    reconcile,
    list: Effect.sync(() => [...known].map(([key, record]) => describe(key, record)))
  })
})
