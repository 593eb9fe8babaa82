/** Layers on a real file system: a real taproot, the program that unpacks, tmpfs; what a layer becomes, entry by entry. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { chainIds, Digest } from "../../src/storage/Digest.ts"
import type { LayerLimits } from "../../src/storage/LayerFilter.ts"
import { Layers } from "../../src/storage/Layers.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import {
  binaryName,
  device,
  directory,
  fifo,
  file,
  hardlink,
  type LayerEntry,
  opaque,
  sha256,
  symlink,
  tar,
  whiteout
} from "../support/images.ts"
import * as Store from "../support/store.ts"
import * as Taproot from "../support/taproot.ts"
import { command, tree } from "../support/trees.ts"

const inDirectory = (home: string, limits: Partial<LayerLimits> = {}) =>
  Layers.layer({ directory: join(home, "layers"), temporary: join(home, "temporary"), limits: () => limits })

/** Runs a test with a store of its own; `home` is its directory. */
const withLayers = <A, E>(
  test: (home: string) => Effect.Effect<A, E, Layers | Processes | Taproot.Taproot>,
  limits?: Partial<LayerLimits>
) =>
  Effect.gen(function* () {
    const home = yield* Store.scratch
    return yield* test(home).pipe(Effect.provide(inDirectory(home, limits), { local: true }))
  }).pipe(Effect.provide(Taproot.layer()))

/** Applies layers on top of each other; answers their chain ids. */
const apply = Effect.fnUntraced(function* (stack: ReadonlyArray<ReadonlyArray<LayerEntry>>) {
  const layers = yield* Layers
  const tars = stack.map(tar)
  const diffIds = tars.map((bytes) => Digest.make(sha256(bytes)))
  const chain = chainIds(diffIds)
  for (const [index, diffId] of diffIds.entries()) {
    const bytes = tars[index] ?? Buffer.alloc(0)
    yield* layers.apply({
      chain: chain.slice(0, index + 1),
      blob: diffId,
      blobBytes: 1,
      diffId,
      compression: "none",
      open: Store.coming(bytes),
      below: Effect.void
    })
  }
  return chain
})

/** The lower directories of these layers, topmost first, as paths. */
const lower = Effect.fnUntraced(function* (chain: ReadonlyArray<Digest>) {
  const layers = yield* Layers
  return ((yield* layers.lowerNames(chain)) ?? []).map((name) => join(layers.directory, name))
})

const capability = Buffer.from("0100000200200000000000000000000000000000", "hex")

describe("Layers", () => {
  it.live("the feature image: every kind of entry, compared with what must be there", () =>
    withLayers(() =>
      Effect.gen(function* () {
        const deep = `deep/${"0123456789/".repeat(30)}end`
        const chain = yield* apply([
          [
            directory("./", { mode: 0o750, uid: 1, gid: 2, seconds: 50 }),
            directory("plain", { mode: 0o711, seconds: 100, nanoseconds: 1 }),
            file("plain/file", "content", {
              mode: 0o640,
              uid: 1000,
              gid: 1001,
              seconds: 200,
              nanoseconds: 123_456_789
            }),
            file("plain/empty", "", { seconds: -5 }),
            hardlink("plain/again", "plain/file"),
            symlink("plain/relative", "file", { uid: 7, seconds: 300 }),
            symlink("plain/absolute", "/etc/passwd", { seconds: 300, nanoseconds: 5 }),
            symlink("plain/climbing", "../../../x", { seconds: 300 }),
            hardlink("plain/linked-symlink", "plain/absolute"),
            file("suid", "s", { mode: 0o4755, uid: 3 }),
            file("sgid", "s", { mode: 0o2755, gid: 3 }),
            directory("sticky", { mode: 0o1777 }),
            file("big-owner", "", { uid: 3_000_000, gid: 4_294_967_294 }),
            file("capable", "x", { mode: 0o755, xattrs: { "security.capability": capability } }),
            file("attributes", "", {
              xattrs: { "user.text": "v", "user.binary": Buffer.from([0, 10, 61, 255]), "trusted.overlay.opaque": "y" }
            }),
            directory("attributed", { xattrs: { "user.on": "directory" } }),
            device("null", "character", 1, 3, { mode: 0o666 }),
            device("disk", "block", 259, 70_000, { mode: 0o600, gid: 6 }),
            fifo("pipe", { mode: 0o600 }),
            file(deep, "deep"),
            file("grüße ☃\n", "unicode"),
            binaryName(file(""), "bytes-\xff\xfe\x01"),
            file("twice", "first", { seconds: 1 }),
            file("twice", "second", { seconds: 2 }),
            directory("was-directory"),
            file("was-directory/inside"),
            file("was-directory", "now a file"),
            file("was-file"),
            directory("was-file", { mode: 0o700 }),
            file("was-file/inside"),
            directory("again", { mode: 0o777 }),
            file("again/kept"),
            directory("again", { mode: 0o755, seconds: 77 }),
            whiteout("plain/gone"),
            whiteout("top-gone"),
            opaque("sticky"),
            directory("future", { seconds: 9_000_000_000 })
          ]
        ])
        const [root] = yield* lower(chain)
        const listed = yield* tree(root ?? "")
        assert.deepStrictEqual(
          listed.filter((line) => !line.startsWith("/deep/0123456789/0") && !line.startsWith("/deep/0123456789 ")),
          [
            "/ d 750 1:2 50.000000000",
            "/again d 755 0:0 77.000000000",
            "/again/kept f 644 0:0 0 1000000000.000000000",
            "/attributed d 755 0:0 1000000000.000000000 user.on=0x6469726563746f7279",
            "/attributes f 644 0:0 0 1000000000.000000000 user.binary=0x000a3dff user.text=0x76",
            "/big-owner f 644 3000000:4294967294 0 1000000000.000000000",
            "/bytes-\xff\xfe\x01 f 644 0:0 0 1000000000.000000000",
            `/capable f 755 0:0 1 1000000000.000000000 security.capability=0x${capability.toString("hex")}`,
            "/deep d 755 0:0 0.000000000",
            "/disk b 600 0:6 1000000000.000000000",
            "/future d 755 0:0 9000000000.000000000",
            `/${Buffer.from("grüße ☃\n").toString("latin1")} f 644 0:0 7 1000000000.000000000`,
            "/null c 666 0:0 1000000000.000000000",
            "/pipe p 600 0:0 1000000000.000000000",
            "/plain d 711 0:0 100.000000001",
            "/plain/absolute l 777 0:0 -> /etc/passwd 300.000000005",
            "/plain/again f 640 1000:1001 7 200.123456789",
            "/plain/climbing l 777 0:0 -> ../../../x 300.000000000",
            "/plain/empty f 644 0:0 0 -5.000000000",
            "/plain/file f 640 1000:1001 7 200.123456789",
            "/plain/gone c 0 0:0 0.000000000",
            "/plain/linked-symlink l 777 0:0 -> /etc/passwd 300.000000005",
            "/plain/relative l 777 7:0 -> file 300.000000000",
            "/sgid f 2755 0:3 1 1000000000.000000000",
            "/sticky d 1777 0:0 1000000000.000000000 trusted.overlay.opaque=0x79",
            "/suid f 4755 3:0 1 1000000000.000000000",
            "/top-gone c 0 0:0 0.000000000",
            "/twice f 644 0:0 6 2.000000000",
            "/was-directory f 644 0:0 10 1000000000.000000000",
            "/was-file d 700 0:0 1000000000.000000000",
            "/was-file/inside f 644 0:0 0 1000000000.000000000"
          ].sort()
        )
        const at = (name: string) => statSync(join(root ?? "", name))
        assert.strictEqual(at("plain/file").ino, at("plain/again").ino)
        assert.strictEqual(at("null").rdev, 0x103)
        assert.strictEqual(
          yield* command("stat", "-c", "%t:%T", join(root ?? "", "disk"), join(root ?? "", "top-gone")),
          "103:11170\n0:0\n"
        )
        assert.strictEqual(yield* command("cat", join(root ?? "", deep)), "deep")
        // What strangers made is closed to other users of this host.
        assert.strictEqual(statSync((yield* Layers).directory).mode & 0o777, 0o700)
      })
    )
  )

  it.live("directories that a layer omits look as they do below, through whiteouts and opaque directories", () =>
    withLayers(() =>
      Effect.gen(function* () {
        const chain = yield* apply([
          [
            directory("./", { mode: 0o711, seconds: 9 }),
            directory("a", { mode: 0o1777, uid: 5, seconds: 10, nanoseconds: 11, xattrs: { "user.k": "v" } }),
            directory("a/b", { mode: 0o700, gid: 6 }),
            directory("hidden", { mode: 0o700 }),
            directory("hidden/x", { mode: 0o700 }),
            directory("link-target", { mode: 0o700 }),
            symlink("link", "link-target"),
            directory("gone", { mode: 0o700 })
          ],
          [opaque("hidden"), directory("hidden", { mode: 0o755 }), whiteout("gone")],
          [file("a/b/new"), file("hidden/x/new"), file("link/new"), file("gone/new"), file("nowhere/new")],
          [file("a/b/newer")]
        ])
        const names = yield* lower(chain)
        const listing = (yield* tree(names[1] ?? "")).filter((line) => line.includes(" d "))
        assert.deepStrictEqual(listing, [
          "/ d 711 0:0 9.000000000",
          "/a d 1777 5:0 10.000000011 user.k=0x76",
          "/a/b d 700 0:6 1000000000.000000000",
          "/gone d 755 0:0 0.000000000",
          "/hidden d 755 0:0 1000000000.000000000",
          "/hidden/x d 755 0:0 0.000000000",
          "/link d 755 0:0 0.000000000",
          "/nowhere d 755 0:0 0.000000000"
        ])
        // And once more above: inherited attributes are inherited again.
        assert.deepStrictEqual(
          (yield* tree(names[0] ?? "")).filter((line) => line.includes(" d ")),
          listing.slice(0, 3)
        )
      })
    )
  )

  it.live("an opaque root cuts off what is below, which overlayfs would not do", () =>
    withLayers(() =>
      Effect.gen(function* () {
        const chain = yield* apply([[file("old")], [opaque(""), file("new")], [file("newer")]])
        assert.strictEqual((yield* lower(chain)).length, 2)
      })
    )
  )

  it.live("a refused entry leaves nothing behind, and the layer can be tried again", () =>
    withLayers((home) =>
      Effect.gen(function* () {
        const outside = join(home, "outside")
        mkdirSync(outside)
        writeFileSync(join(outside, "file"), "mine")
        for (const attack of [
          [file("a", "x".repeat(300_000)), symlink("e", outside), file("e/pwn")],
          [file("a"), file("../outside/pwn")],
          [file("a"), hardlink("h", "../outside/file")],
          [file("a"), file(`${outside}/pwn`)]
        ]) {
          const refused = yield* Effect.flip(apply([attack]))
          assert.strictEqual(refused._tag, "LayerRefused")
        }
        assert.deepStrictEqual(readdirSync(outside), ["file"])
        assert.deepStrictEqual(readdirSync(join(home, "temporary")), [])
        assert.deepStrictEqual(yield* (yield* Layers).list, [])
        assert.strictEqual((yield* (yield* Processes).status).processes, 0)
      })
    )
  )

  it.live("a tar with another digest than the diff id is not kept", () =>
    withLayers((home) =>
      Effect.gen(function* () {
        const layers = yield* Layers
        const other = Digest.make(sha256(Buffer.from("other")))
        const error = yield* Effect.flip(
          layers.apply({
            chain: [other],
            blob: other,
            blobBytes: 1,
            diffId: other,
            compression: "none",
            open: Store.coming(tar([file("a")])),
            below: Effect.void
          })
        )
        assert.strictEqual(error._tag, "BlobCorrupt")
        assert.deepStrictEqual(readdirSync(join(home, "temporary")), [])
        assert.isFalse(yield* layers.has(other))
      })
    )
  )

  it.live("asked for many times at once, it reads the layer once", () =>
    withLayers(() =>
      Effect.gen(function* () {
        const layers = yield* Layers
        const bytes = tar([file("a", "x".repeat(100_000))])
        const diffId = Digest.make(sha256(bytes))
        let reads = 0
        const request = {
          chain: [diffId],
          blob: diffId,
          blobBytes: 1,
          diffId,
          compression: "none",
          open: Effect.suspend(() => {
            reads++
            return Store.coming(bytes)
          }),
          below: Effect.void
        } as const
        yield* Effect.forEach(Array.from({ length: 8 }), () => layers.apply(request), { concurrency: 8 })
        assert.strictEqual(reads, 1)
      })
    )
  )

  it.live(
    "interrupted, or with an input that fails, it leaves no file and no process, and the next in line does the work",
    () =>
      withLayers((home) =>
        Effect.gen(function* () {
          const layers = yield* Layers
          const bytes = tar([file("a", "x".repeat(1_000_000)), file("b")])
          const diffId = Digest.make(sha256(bytes))
          const request = {
            chain: [diffId],
            blob: diffId,
            blobBytes: 1,
            diffId,
            compression: "none",
            below: Effect.void
          } as const
          const partly = <E>(rest: Effect.Effect<number, E>) =>
            Store.coming(bytes.subarray(0, 700_000), { rest, size: bytes.length })
          const first = yield* Effect.forkChild(layers.apply({ ...request, open: partly(Effect.never) }))
          yield* Effect.suspend(() =>
            existsSync(join(home, "temporary/layer-0/f/a")) ? Effect.void : Effect.fail("not yet")
          ).pipe(Effect.eventually, Effect.timeout("20 seconds"))
          const second = yield* Effect.forkChild(
            Effect.flip(layers.apply({ ...request, open: partly(Effect.fail("cut")) }))
          )
          yield* Fiber.interrupt(first)
          assert.strictEqual(yield* Fiber.join(second), "cut")
          assert.deepStrictEqual(readdirSync(join(home, "temporary")), [])
          assert.strictEqual((yield* (yield* Processes).status).processes, 0)
          yield* layers.apply({ ...request, open: Store.coming(bytes) })
          assert.isTrue(yield* layers.has(diffId))
        })
      )
  )

  it.live("after a brain was killed while it unpacked, the next one ends its program and removes its files", () =>
    Effect.gen(function* () {
      const home = yield* Store.scratch
      mkdirSync(join(home, "temporary/layer-0/f"), { recursive: true })
      writeFileSync(join(home, "temporary/layer-0/f/a"), "half")
      const processes = yield* Processes
      const left = yield* processes.spawn({
        label: "unpack/0123",
        argv: ["tar", "-x", "-f", "-"],
        directory: join(home, "temporary/layer-0/f"),
        stdin: { _tag: "Stream" }
      })
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* left.exit)._tag, "Signaled")
        assert.deepStrictEqual(readdirSync(join(home, "temporary")), [])
        assert.strictEqual((yield* processes.status).processes, 0)
      }).pipe(Effect.provide(inDirectory(home), { local: true }))
    }).pipe(Effect.provide(Taproot.layer()))
  )

  it.live("on a full file system it says so, and leaves nothing", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const taproot = yield* Taproot.Taproot
      const home = yield* Store.scratch
      // A small file system in taproot's namespace, which this process can reach only through /proc.
      mkdirSync(join(home, "small"))
      yield* processes.mount({ source: "tmpfs", target: join(home, "small"), type: "tmpfs", data: "size=1m" })
      const small = `/proc/${taproot.pid}/root${join(home, "small")}`
      yield* Effect.gen(function* () {
        const failed = yield* Effect.flip(apply([[file("big", "x".repeat(2_000_000))]]))
        assert.strictEqual(failed._tag, "StorageFailed", failed.message)
        assert.include(failed.message, "the disk is full")
        assert.deepStrictEqual(readdirSync(join(small, "temporary")), [])
        yield* apply([[file("little", "x")]])
      }).pipe(Effect.provide(inDirectory(small), { local: true }))
    }).pipe(Effect.provide(Taproot.layer()))
  )

  it.live("removes a layer, and knows what is there after a restart", () =>
    Effect.gen(function* () {
      const home = yield* Store.scratch
      const brain = Effect.provide(inDirectory(home), { local: true })
      const chain = yield* brain(apply([[directory("a", { mode: 0o700, xattrs: { "user.k": "v" } })], [file("b")]]))
      yield* Effect.gen(function* () {
        const layers = yield* Layers
        assert.deepStrictEqual((yield* layers.list).map(({ chainId }) => chainId).sort(), [...chain].sort())
        const [, last] = chain
        if (last !== undefined) yield* layers.remove(last)
        assert.deepStrictEqual(
          (yield* layers.list).map(({ chainId }) => chainId),
          chain.slice(0, 1)
        )
        assert.isUndefined(yield* layers.lowerNames(chain))
        if (last !== undefined) yield* layers.remove(last)
        assert.deepStrictEqual(readdirSync(join(home, "temporary")), [])
      }).pipe(brain)
    }).pipe(Effect.provide(Taproot.layer()))
  )
})
