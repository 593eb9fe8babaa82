/** Root file systems for real: overlay mounts in the mount namespace of a real taproot. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdirSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { Content } from "../../src/storage/Content.ts"
import { Layers } from "../../src/storage/Layers.ts"
import * as MountTable from "../../src/storage/MountTable.ts"
import { Rootfs } from "../../src/storage/Rootfs.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { directory, file, type LayerInput, opaque, symlink, whiteout } from "../support/images.ts"
import * as Store from "../support/store.ts"
import * as Taproot from "../support/taproot.ts"
import { command } from "../support/trees.ts"

const mounted = Effect.gen(function* () {
  const { directory: home } = yield* Store.Store
  const mounts = yield* MountTable.read((yield* Processes).hello.taprootPid)
  return mounts
    .filter(({ target }) => target.startsWith(home))
    .map(({ target, type }) => `${type} ${target.slice(home.length)}`)
})

const at = (home: string, key: string) => ({
  key,
  path: join(home, "runtime/rootfs", key, "rootfs"),
  upper: join(home, "runtime/rootfs", key, "upper")
})

const layers: ReadonlyArray<LayerInput> = [
  [
    directory("./", { mode: 0o711 }),
    directory("etc"),
    file("etc/a", "lower"),
    file("etc/b", "lower"),
    file("opt/x", "x")
  ],
  [file("etc/b", "upper"), whiteout("etc/a"), opaque("opt"), file("opt/y", "y"), symlink("l", "etc/b")]
]

describe("Rootfs", () => {
  it.live("shows the layers as one tree, with whiteouts and opaque directories, and keeps what is written", () =>
    Effect.gen(function* () {
      const image = yield* Store.importImage("web", layers)
      const rootfs = yield* Rootfs
      const mount = yield* rootfs.acquire(image.digest, "web-1")
      assert.strictEqual(
        yield* command("sh", "-c", `cd ${mount.path} && echo * etc/* opt/* && cat l`),
        "etc l opt etc/b opt/y\nupper"
      )
      assert.strictEqual(yield* command("stat", "-c", "%a", mount.path), "711\n")
      yield* command("sh", "-c", `echo kept >${mount.path}/etc/new; rm ${mount.path}/etc/b`)
      // Again: the same mount, nothing new.
      assert.deepStrictEqual(yield* rootfs.acquire(image.digest, "web-1"), mount)
      assert.deepStrictEqual(yield* mounted, ["overlay /runtime/rootfs/web-1/rootfs"])
      assert.strictEqual(yield* command("sh", "-c", `cd ${mount.path}/etc && echo *`), "new\n")
      // Layers are shared and untouched.
      const names = yield* (yield* Layers).lowerNames(image.layers.map(({ chainId }) => chainId))
      const top = join((yield* Layers).directory, names?.[0] ?? "")
      assert.deepStrictEqual(readdirSync(join(top, "etc")).sort(), ["a", "b"])

      yield* rootfs.release("web-1")
      assert.deepStrictEqual(yield* mounted, [])
      const { directory: home } = yield* Store.Store
      assert.deepStrictEqual(readdirSync(join(home, "runtime/rootfs")), [])
      yield* rootfs.release("web-1")
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("read-only, also of one layer and of none", () =>
    Effect.gen(function* () {
      const rootfs = yield* Rootfs
      const one = yield* Store.importImage("one", [[file("f", "1")]])
      const none = yield* Store.importImage("none", [])
      const first = yield* rootfs.acquire(one.digest, "one", { readonly: true })
      const second = yield* rootfs.acquire(none.digest, "none", { readonly: true })
      const third = yield* rootfs.acquire(none.digest, "none-writable")
      assert.strictEqual(first.upper, undefined)
      const script = `cat ${first.path}/f; touch ${first.path}/g 2>/dev/null || echo refused; touch ${second.path}/g 2>/dev/null || echo refused; touch ${third.path}/g && echo written`
      assert.strictEqual(yield* command("sh", "-c", script), "1refused\nrefused\nwritten\n")
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("refuses another image or mode under the same name, and names that are no file names", () =>
    Effect.gen(function* () {
      const rootfs = yield* Rootfs
      const one = yield* Store.importImage("one", [[file("f", "1")]])
      const two = yield* Store.importImage("two", [[file("f", "2")]])
      yield* rootfs.acquire(one.digest, "c")
      const conflict = yield* Effect.flip(rootfs.acquire(two.digest, "c"))
      assert.strictEqual(conflict._tag, "RootfsConflict")
      assert.strictEqual(
        (yield* Effect.flip(rootfs.acquire(one.digest, "c", { readonly: true })))._tag,
        "RootfsConflict"
      )
      for (const key of ["", ".", "..", "a/b", "-a", "a".repeat(129), "a,b"]) {
        assert.strictEqual((yield* Effect.flip(rootfs.acquire(one.digest, key)))._tag, "RootfsKeyInvalid", key)
      }
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("an image that a root file system stands on cannot be removed", () =>
    Effect.gen(function* () {
      const rootfs = yield* Rootfs
      const content = yield* Content
      const image = yield* Store.importImage("used", [[file("f", "1")]])
      yield* rootfs.acquire(image.digest, "c")
      const refused = yield* Effect.flip(content.remove("used"))
      assert.strictEqual(refused.message, "image used is in use by root file system c; remove those first")
      yield* rootfs.release("c")
      yield* content.remove("used")
      assert.strictEqual((yield* Effect.flip(rootfs.acquire(image.digest, "c")))._tag, "ImageNotFound")
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("survives the brain: the next one finds the mounts, and removes those that nobody wants", () =>
    Effect.gen(function* () {
      const home = yield* Store.scratch
      const brain = Effect.provide(Store.inDirectory(home), { local: true })
      const before = yield* Effect.gen(function* () {
        const rootfs = yield* Rootfs
        const image = yield* Store.importImage("web", layers)
        yield* rootfs.acquire(image.digest, "gone")
        const kept = yield* rootfs.acquire(image.digest, "kept")
        yield* command("sh", "-c", `echo mine >${kept.path}/mine`)
        return kept
      }).pipe(brain)
      // Half-made: a directory without its record, as a kill between two steps leaves it.
      mkdirSync(join(home, "runtime/rootfs/half/upper"), { recursive: true })
      yield* Effect.gen(function* () {
        const rootfs = yield* Rootfs
        assert.deepStrictEqual(yield* rootfs.list, [before, { ...before, ...at(home, "gone") }].toReversed())
        assert.deepStrictEqual([...(yield* rootfs.reconcile(new Set(["kept"])))].sort(), ["gone", "half"])
        assert.deepStrictEqual(yield* mounted, ["overlay /runtime/rootfs/kept/rootfs"])
        assert.deepStrictEqual(yield* rootfs.acquire(before.image, "kept"), before)
        assert.strictEqual(yield* command("cat", join(before.path, "mine")), "mine\n")
        // A machine that restarted has no mounts; the writable layer is there.
        yield* (yield* Processes).unmount(before.path)
        yield* rootfs.acquire(before.image, "kept")
        assert.strictEqual(yield* command("cat", join(before.path, "mine")), "mine\n")
        assert.strictEqual((yield* Effect.flip((yield* Content).remove("web")))._tag, "ImageInUse")
      }).pipe(brain)
    }).pipe(Effect.provide(Taproot.layer()))
  )

  it.live("acquiring at the same time mounts once", () =>
    Effect.gen(function* () {
      const image = yield* Store.importImage("web", layers)
      const rootfs = yield* Rootfs
      yield* Effect.forEach([1, 2, 3, 4, 5, 6], () => rootfs.acquire(image.digest, "c"), { concurrency: 6 })
      assert.deepStrictEqual(yield* mounted, ["overlay /runtime/rootfs/c/rootfs"])
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("releases while a process still looks into it", () =>
    Effect.gen(function* () {
      const image = yield* Store.importImage("web", layers)
      const rootfs = yield* Rootfs
      const processes = yield* Processes
      const mount = yield* rootfs.acquire(image.digest, "busy")
      const looker = yield* processes.spawn({ label: "looker", argv: ["sleep", "60"], directory: mount.path })
      yield* rootfs.release("busy")
      assert.deepStrictEqual(yield* mounted, [])
      yield* looker.signal("SIGKILL")
      yield* looker.exit
      yield* looker.acknowledge
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("127 layers fit one mount", () =>
    Effect.gen(function* () {
      const many = Array.from({ length: 127 }, (_, number) => [
        file(`f${number}`, String(number)),
        file("last", String(number))
      ])
      const image = yield* Store.importImage("many", many)
      const mount = yield* (yield* Rootfs).acquire(image.digest, "k".repeat(128))
      assert.strictEqual(yield* command("sh", "-c", `cat ${mount.path}/last; ls ${mount.path} | wc -l`), "126128\n")
    }).pipe(Effect.provide(Store.layer()))
  )
})

describe("MountTable", () => {
  it("reads targets with spaces, backslashes and optional fields", () => {
    const lines = [
      "36 35 98:0 /mnt1 /mnt/with\\040space rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue",
      "37 35 0:5 / /a\\134b rw - overlay overlay rw",
      "38 35 0:5 / /\\303\\244 rw shared:3 - tmpfs tmpfs rw",
      ""
    ]
    assert.deepStrictEqual(MountTable.parse(lines.join("\n")), [
      { target: "/mnt/with space", type: "ext3" },
      { target: "/a\\b", type: "overlay" },
      { target: "/ä", type: "tmpfs" }
    ])
  })
})
