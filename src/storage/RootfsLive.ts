/**
 * The real `Rootfs`: overlay mounts that taproot makes, one directory per root file system under `RUNTIME/rootfs`:
 * `<key>/rootfs` (the mount), `<key>/upper` and `<key>/work` (the writable layer) and `<key>/rootfs.json`, written before the mount, which
 * says what it is. A directory without a readable `rootfs.json` is half-made and worth nothing.
 *
 * The mount's options name everything relative to the layers' directory, because the kernel takes no more than a page.
 *
 * For a user namespace the layers are seen through it while the overlay is mounted, at `RUNTIME/rootfs.layers/<key>` (the overlay keeps
 * what it needs of that), and the writable layer belongs to the namespace's users on the disk, too. It is mounted in `/run`, because its
 * root must find the way there, and the state is for root of the host alone.
 *
 * Traps: what is below `rootfs.layers` is the store itself, mounted: it is never removed but as an empty directory. `rootfs.json` is not synced: a power cut within seconds of a container's creation can cost it a writable layer that
 * had nothing on the disk yet either.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import type { Stats } from "node:fs"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import * as IdMap from "../taproot/IdMap.ts"
import { Processes, type UnmountFailed } from "../taproot/Processes.ts"
import { Content } from "./Content.ts"
import { RootfsConflict, RootfsKeyInvalid, StorageFailed } from "./ContentError.ts"
import { Digest, short } from "./Digest.ts"
import * as Files from "./Files.ts"
import * as KeyedLock from "./KeyedLock.ts"
import { Layers } from "./Layers.ts"
import * as MountTable from "./MountTable.ts"
import { Rootfs, type RootfsMount, type RootfsOptions as AcquireOptions } from "./Rootfs.ts"

export interface RootfsOptions {
  /** Where root file systems live: `STATE/runtime/rootfs`. Made when it is not there. */
  readonly directory: string
}

const RootfsRecord = Schema.Struct({
  image: Digest,
  readonly: Schema.Boolean,
  /** Of its user namespace, where it has one. */
  firstUser: Schema.optionalKey(Schema.Int)
})
type RootfsRecord = typeof RootfsRecord.Type
const RootfsRecordJson = Schema.fromJsonString(RootfsRecord)

const keyPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/

// mount(2) and umount2(2)
const MS_RDONLY = 1n
const MS_NOSUID = 2n
const MS_NODEV = 4n
const MNT_DETACH = 2
const EBUSY = 16

/** In overlay options a comma separates options, a colon layers, and a backslash takes their meaning away. */
const escape = (option: string): string => option.replace(/[\\,:]/g, "\\$&")

const what = ({ firstUser, image, readonly }: RootfsRecord): string =>
  [
    `image ${short(image)}`,
    ...(readonly ? ["read-only"] : []),
    ...(firstUser === undefined ? [] : [`users from ${firstUser} on`])
  ].join(", ")

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
  const targetOf = (key: string, { firstUser }: Pick<RootfsRecord, "firstUser"> = {}) =>
    path.join(firstUser === undefined ? homeOf(key) : path.join(open, key), "rootfs")
  // never the state's own directories: those are for root of the host alone
  const open = `/run/ironwood-rootfs-${createHash("sha256").update(directory).digest("hex").slice(0, 8)}`
  const seenDirectory = `${directory}.layers`
  const recordOf = (key: string) => path.join(homeOf(key), "rootfs.json")

  const describe = (key: string, record: RootfsRecord): RootfsMount => ({
    key,
    image: record.image,
    readonly: record.readonly,
    path: targetOf(key, record),
    upper: record.readonly ? undefined : path.join(homeOf(key), "upper")
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
        .filter((target) =>
          [targetOf(key), path.join(open, key, "rootfs")].some(
            (root) => target === root || target.startsWith(`${root}/`)
          )
        )
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

  /** Takes the layers as a user namespace sees them out of sight again. Nothing but an empty directory is removed. */
  const unsee = (key: string) => {
    const seen = path.join(seenDirectory, key)
    return Effect.andThen(
      Effect.ignore(processes.unmount(seen, MNT_DETACH)),
      Effect.promise(() => fs.rmdir(seen).catch(() => undefined))
    )
  }

  /** Runs the effect with the directory where the layers are seen so. */
  const withLayers = <A, E, R>(
    key: string,
    users: IdMap.UserNamespace | undefined,
    use: (directory: string) => Effect.Effect<A, E, R>
  ) => {
    if (users === undefined) return use(layersDirectory)
    const seen = path.join(seenDirectory, key)
    return Effect.acquireUseRelease(
      Effect.andThen(unsee(key), Files.makeDirectory(seen)),
      () =>
        Effect.andThen(
          IdMap.mount(processes, { namespace: users, source: layersDirectory, target: seen, options: ["ro"] }),
          use(seen)
        ),
      () => unsee(key)
    )
  }

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
  const makeUpper = Effect.fnUntraced(function* (key: string, top: string, first: number) {
    const upper = path.join(homeOf(key), "upper")
    const work = path.join(homeOf(key), "work")
    yield* Files.makeDirectory(upper)
    yield* Files.makeDirectory(work)
    if (first > 0) yield* Files.attempt("set the owner of", work, () => fs.chown(work, first, first))
    const root = yield* rootOf(top)
    const [user, group] = [first + root.uid, first + root.gid]
    if (user !== process.geteuid?.() || group !== process.getegid?.()) {
      yield* Files.attempt("set the owner of", upper, () => fs.chown(upper, user, group))
    }
    yield* Files.attempt("set the mode of", upper, () => fs.chmod(upper, root.mode & 0o7777))
  })

  const mount = Effect.fnUntraced(function* (
    key: string,
    record: RootfsRecord,
    lower: ReadonlyArray<string>,
    seen: string
  ) {
    const fromLayers = (name: string) => escape(path.relative(seen, path.join(homeOf(key), name)))
    const names = [...lower, ...layers.emptyNames.slice(0, Math.max(0, (record.readonly ? 2 : 1) - lower.length))]
    const data = [
      `lowerdir=${names.join(":")}`,
      ...(record.readonly ? [] : [`upperdir=${fromLayers("upper")}`, `workdir=${fromLayers("work")}`]),
      "index=off"
    ].join(",")
    yield* processes.mount({
      source: "overlay",
      target: targetOf(key, record),
      type: "overlay",
      // An image's device nodes are not for opening: a container gets its devices from the runtime.
      flags: MS_NODEV | (record.readonly ? MS_RDONLY : 0n) | (record.firstUser === undefined ? 0n : MS_NOSUID),
      data,
      directory: seen
    })
  })

  /** Where it is mounted: for a user namespace, a place to which its root finds the way, and nobody else but the host's. */
  const makeTarget = Effect.fnUntraced(function* (key: string, record: RootfsRecord) {
    const { firstUser } = record
    const target = targetOf(key, record)
    if (firstUser === undefined) return yield* Files.makeDirectory(target)
    yield* Files.makeDirectory(target)
    yield* Files.attempt("set the mode of", target, async () => {
      await fs.chmod(open, 0o711)
      await fs.chown(path.dirname(target), 0, firstUser)
      await fs.chmod(path.dirname(target), 0o710)
    })
  })

  const removeTarget = (key: string) =>
    Effect.promise(async () => {
      for (const place of [path.join(open, key, "rootfs"), path.join(open, key), open]) {
        await fs.rmdir(place).catch(() => undefined)
      }
    })

  // what a dead brain, or an earlier boot, left
  yield* Effect.forEach(yield* Files.names(seenDirectory), unsee, { discard: true })
  yield* Effect.forEach(
    (yield* Files.names(open)).filter((key) => !known.has(key)),
    removeTarget,
    { discard: true }
  )

  /** An empty one, whatever a brain that died in the middle has left of it. Where none is, nothing is mounted. */
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
    { readonly = false, users }: AcquireOptions = {}
  ) {
    yield* checkKey(key)
    const wanted: RootfsRecord = { image, readonly, ...(users === undefined ? {} : { firstUser: users.first }) }
    const once = Effect.gen(function* () {
      const existing = known.get(key)
      if (existing !== undefined && what(existing) !== what(wanted)) {
        return yield* new RootfsConflict({ key, existing: what(existing), wanted: what(wanted) })
      }
      if (existing !== undefined && (yield* mountsOf(key)).includes(targetOf(key, wanted))) {
        return describe(key, existing)
      }

      // A digest is always a reference.
      const { layers: imageLayers } = yield* Effect.catchTag(content.get(image), "ReferenceInvalid", Effect.die)
      const lower = yield* layers.lowerNames(imageLayers.map(({ chainId }) => chainId))
      if (lower === undefined) {
        return yield* new StorageFailed({
          operation: "mount",
          path: targetOf(key, wanted),
          code: "ENOENT",
          problem: `a layer of image ${image} is missing in the store; import the image again`
        })
      }
      if (existing === undefined) {
        yield* makeHome(key)
        const top = path.join(layersDirectory, lower[0] ?? layers.emptyNames[0])
        if (!readonly) yield* makeUpper(key, top, users?.first ?? 0)
        const text = yield* Effect.orDie(Schema.encodeEffect(RootfsRecordJson)(wanted))
        yield* Files.attempt("write", recordOf(key), () => fs.writeFile(recordOf(key), text, { mode: 0o600 }))
        known.set(key, wanted)
      }
      yield* makeTarget(key, wanted)
      yield* withLayers(key, users, (seen) => mount(key, wanted, lower, seen))
      return describe(key, wanted)
    })
    return yield* locks.withLock(key)(once)
  })

  const release = Effect.fn("Rootfs.release")(function* (key: string) {
    yield* checkKey(key)
    const once = Effect.gen(function* () {
      yield* unmountAll(key)
      yield* removeTarget(key)
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
