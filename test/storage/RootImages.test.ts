/** Root file systems for microVMs, mounted and compared with what overlayfs shows of the same layers, unpacked. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { existsSync, mkdirSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { Content } from "../../src/storage/Content.ts"
import { Rootfs } from "../../src/storage/Rootfs.ts"
import {
  binaryName,
  buildImage,
  device,
  directory,
  fifo,
  file,
  hardlink,
  type LayerEntry,
  type LayerInput,
  opaque,
  symlink,
  whiteout,
  writeLayout
} from "../support/images.ts"
import * as Store from "../support/store.ts"
import { SeededRandom } from "../actor/simulation/SeededRandom.ts"
import { command, tree } from "../support/trees.ts"

/** Squashfs has whole seconds, and a directory no size; the writable layer of a mount is overlayfs' own. */
const comparable = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.map((line) => line.replace(/ (\d+)\.\d+/g, " $1").replace(/ trusted\.overlay\.\S+/g, ""))

/** What a guest sees of an image, and what a container on the host does. */
const both = Effect.fnUntraced(function* (name: string, layers: ReadonlyArray<LayerInput>) {
  const { directory: home } = yield* Store.Store
  const content = yield* Content
  const image = yield* Store.importImage(name, layers)
  const root = yield* content.rootImage(image.digest)
  const mounted = join(home, `mounted-${name}`)
  mkdirSync(mounted)
  yield* Effect.acquireRelease(command("mount", "-o", "loop,ro", "-t", "squashfs", root.path, mounted), () =>
    command("umount", mounted)
  )
  const overlay = yield* (yield* Rootfs).acquire(image.digest, name, { readonly: true })
  const contents = (at: string) =>
    command("sh", "-c", `cd ${at} && find . -xdev -type f -print0 | sort -z | xargs -0 -r sha256sum`)
  const links = (at: string) => command("sh", "-c", `cd ${at} && find . -xdev ! -type d -printf '%i %P\\n' | sort -k2`)
  const grouped = (text: string) => {
    const numbers = new Map<string, number>()
    return text.split("\n").map((line) => {
      const [inode = "", ...rest] = line.split(" ")
      if (!numbers.has(inode)) numbers.set(inode, numbers.size)
      return `${numbers.get(inode)} ${rest.join(" ")}`
    })
  }
  return {
    image,
    root,
    guest: {
      tree: comparable(yield* tree(mounted)),
      contents: yield* contents(mounted),
      links: grouped(yield* links(mounted))
    },
    host: {
      tree: comparable(yield* tree(overlay.path)),
      contents: yield* contents(overlay.path),
      links: grouped(yield* links(overlay.path))
    }
  }
}, Effect.scoped)

const capability = Buffer.from("0100000200200000000000000000000000000000", "hex")

/**
 * Layers at random, over few names, so that they meet. Each takes away only what those below have, in directories that are
 * merged: of any other whiteout overlayfs itself shows the name.
 */
const randomLayers = (seed: number): ReadonlyArray<ReadonlyArray<LayerEntry>> => {
  const random = new SeededRandom(seed)
  const below = (count: number): number => random.between(0, count - 1)
  const name = (depth: number): string =>
    Array.from({ length: 1 + below(depth) }, () => random.pick(["a", "b", "c"])).join("/")
  const there = new Set<string>()
  const isIn = (path: string, above: string) => path.startsWith(`${above}/`)
  return Array.from({ length: 1 + below(4) }, (_, layer) => {
    const gone = new Set<string>()
    const opaques = new Set<string>()
    // a file system without any extended attribute has none to be asked for
    const entries: Array<LayerEntry> = [directory("./", { xattrs: { "user.mark": "root" } })]
    const kinds = new Map<string, "file" | "directory" | "other">()
    /** Whether the names above are directories of this layer, or nothing yet. */
    const fits = (path: string) =>
      path
        .split("/")
        .slice(0, -1)
        .every((_, index, all) => (kinds.get(all.slice(0, index + 1).join("/")) ?? "directory") === "directory")
    for (let count = 1 + below(12); count > 0; count--) {
      const path = name(4)
      if (!fits(path)) continue
      const above = path.split("/").slice(0, -1)
      for (const index of above.keys()) kinds.set(above.slice(0, index + 1).join("/"), "directory")
      const files = [...kinds].flatMap(([known, kind]) => (kind === "file" && known !== path ? [known] : []))
      const options = { mode: 0o600 + below(64), uid: below(3), seconds: 1_000_000 + below(1000) }
      switch (below(7)) {
        case 0:
        case 1:
          if (kinds.get(path) === "directory") continue
          kinds.set(path, "file")
          entries.push(file(path, `${layer} ${"x".repeat(below(2000))}`, options))
          break
        case 2:
          if ((kinds.get(path) ?? "directory") !== "directory") continue
          kinds.set(path, "directory")
          entries.push(directory(path, { ...options, mode: 0o700 + below(64) }))
          break
        case 3:
          if (kinds.has(path)) continue
          kinds.set(path, "other")
          entries.push(symlink(path, name(3), options))
          break
        case 4: {
          const target = files[below(Math.max(files.length, 1))]
          if (target === undefined || kinds.has(path)) continue
          kinds.set(path, "file")
          entries.push(hardlink(path, target, options))
          break
        }
        case 5:
          if (!there.has(path) || kinds.has(path) || [...opaques].some((one) => isIn(path, one))) continue
          gone.add(path)
          entries.push(whiteout(path))
          break
        default:
          if (layer === 0 || (kinds.get(path) ?? "directory") !== "directory") continue
          if ([...gone].some((one) => one === path || isIn(one, path))) continue
          kinds.set(path, "directory")
          opaques.add(path)
          entries.push(opaque(path))
      }
    }
    for (const path of there) {
      const hidden = [...gone].some((one) => one === path || isIn(path, one))
      if (hidden || [...opaques].some((one) => isIn(path, one))) there.delete(path)
    }
    for (const [path, kind] of kinds) {
      if (kind !== "directory") for (const one of there) if (isIn(one, path)) there.delete(one)
      there.add(path)
    }
    return entries
  })
}

describe("RootImages", () => {
  it.live("show what a mount of the layers shows: every kind of entry, attributes, links, what layers take away", () =>
    Effect.gen(function* () {
      const deep = `deep/${"0123456789/".repeat(30)}end`
      const { guest, host, root } = yield* both("feature", [
        [
          directory("./", { mode: 0o750, uid: 1, gid: 2, seconds: 50 }),
          directory("plain", { mode: 0o711, uid: 5, seconds: 100 }),
          file("plain/file", "content", { mode: 0o640, uid: 1000, gid: 3_000_000_000, seconds: 200 }),
          file("plain/empty", ""),
          file("plain/large", Buffer.alloc(1_500_000, "some text that is packed")),
          file("plain/capable", "x", { mode: 0o755, xattrs: { "security.capability": capability } }),
          file("plain/marked", "x", { xattrs: { "user.mark": "yes" } }),
          directory("marked", { xattrs: { "user.mark": "directory" } }),
          file("plain/setuid", "x", { mode: 0o4755 }),
          symlink("link", "plain/file"),
          hardlink("again", "plain/file"),
          hardlink("thrice", "plain/file"),
          file(deep, "deep"),
          device("null", "character", 1, 3, { mode: 0o666 }),
          device("disk", "block", 8, 1),
          fifo("pipe"),
          binaryName(file("x"), "bytes-\xff\xfe"),
          file("étoile/日本", "unicode"),
          file("gone/below", "x"),
          file("hidden/below", "x"),
          file("hidden/kept", "old"),
          file("becomes-directory", "x"),
          file("becomes-file/inside", "x"),
          file("lib/x", "x")
        ],
        [
          whiteout("gone"),
          opaque("hidden"),
          file("hidden/kept", "new"),
          file("becomes-directory/inside", "y"),
          file("becomes-file", "y"),
          // its first name goes, the others stay
          whiteout("plain/file"),
          directory("implicit-above/x", { mode: 0o700 }),
          file("marked/new", "x")
        ],
        [whiteout("thrice"), file("plain/later", "z"), file("gone/again", "back")]
      ])
      assert.isAbove(root.bytes, 0)
      assert.isAbove(host.tree.length, 30)
      assert.deepStrictEqual(guest.tree, host.tree)
      assert.strictEqual(guest.contents, host.contents)
      assert.deepStrictEqual(guest.links, host.links)
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("the same of layers at random", () =>
    Effect.gen(function* () {
      for (let seed = 1; seed <= 12; seed++) {
        const { guest, host } = yield* both(`random-${seed}`, randomLayers(seed))
        assert.deepStrictEqual(guest.tree, host.tree, `seed ${seed}`)
        assert.strictEqual(guest.contents, host.contents, `seed ${seed}`)
      }
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("is made once for a chain of layers, also when many ask, and goes with the last image that has it", () =>
    Effect.gen(function* () {
      const content = yield* Content
      const { directory: home } = yield* Store.Store
      const layers = [[file("a", "1")], [file("b", "2")]]
      const one = yield* Store.importImage("one", layers)
      const many = yield* Effect.forEach([1, 2, 3, 4, 5], () => content.rootImage(one.digest), {
        concurrency: "unbounded"
      })
      assert.strictEqual(new Set(many.map(({ path }) => path)).size, 1)
      const path = join(home, "layout-other")
      writeLayout(path, [{ image: buildImage({ layers, config: { Cmd: ["/other"] } }), name: "other:latest" }])
      const [other] = yield* content.importFrom(path)
      assert.notStrictEqual(other?.digest, one.digest)
      const shared = yield* content.rootImage(other?.digest ?? one.digest)
      assert.strictEqual(shared.path, many[0]?.path)
      yield* content.remove("one")
      assert.isTrue(existsSync(shared.path))
      yield* content.remove("other")
      assert.isFalse(existsSync(shared.path))
      assert.deepStrictEqual(readdirSync(join(home, "content/temporary")), [])
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("of an image without layers it is an empty directory", () =>
    Effect.gen(function* () {
      const image = yield* Store.importImage("none", [])
      const root = yield* (yield* Content).rootImage(image.digest)
      assert.strictEqual(yield* command("unsquashfs", "-quiet", "-ls", root.path), "squashfs-root\n")
    }).pipe(Effect.provide(Store.layer()))
  )

  it.live("says what is missing where nothing packs", () =>
    Effect.gen(function* () {
      const image = yield* Store.importImage("one", [[file("a", "1")]])
      const { directory: home } = yield* Store.Store
      mkdirSync(join(home, "content/temporary/root-0.squashfs"), { recursive: true })
      const failed = yield* Effect.flip((yield* Content).rootImage(image.digest))
      assert.strictEqual(failed._tag, "RootImageFailed")
      assert.deepStrictEqual(readdirSync(join(home, "content/roots")), [])
    }).pipe(Effect.provide(Store.layer()))
  )
})
