/** The filter between a stranger's layer and the disk: what passes, what it becomes, and a corpus of what must not pass. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { makeLayerArchive } from "../../src/storage/LayerArchive.ts"
import { defaultLimits, type LayerLimits, limitsFor, ratioFloor } from "../../src/storage/LayerFilter.ts"
import { fromBinary, type TarEntry } from "../../src/storage/Tar.ts"
import { makeTarReader } from "../../src/storage/TarReader.ts"
import { hostile } from "../support/hostileLayers.ts"
import { directory, fifo, file, hardlink, type LayerEntry, opaque, symlink, tar, whiteout } from "../support/images.ts"

const entriesOf = (archive: Uint8Array): ReadonlyArray<TarEntry> => {
  const entries: Array<TarEntry> = []
  const reader = makeTarReader({ entry: (entry) => void entries.push(entry), data: () => {} }, { headerBytes: 1 << 20 })
  const fault = reader.push(archive) ?? reader.end()
  assert.isUndefined(fault)
  return entries
}

const filter = (entries: ReadonlyArray<LayerEntry>, limits: Partial<LayerLimits> = {}) => {
  const pieces: Array<Uint8Array> = []
  const made = makeLayerArchive({ ...defaultLimits, ...limits }, (bytes) => void pieces.push(Uint8Array.from(bytes)))
  const fault = made.push(tar(entries)) ?? made.end()
  return { fault, made, main: Buffer.concat([...pieces, ...(fault === undefined ? made.tail() : [])]) }
}

/** The entries that a layer becomes: of the main archive, then of the closing one. */
const passed = (entries: ReadonlyArray<LayerEntry>) => {
  const { fault, made, main } = filter(entries)
  assert.isUndefined(fault)
  const show = (entry: TarEntry) =>
    [
      entry.name,
      entry.type,
      ...(entry.linkName === "" ? [] : [`-> ${entry.linkName}`]),
      ...[...entry.xattrs].map(([key, value]) => `${key}=${Buffer.from(value).toString()}`)
    ].join(" ")
  return {
    main: entriesOf(main).map(show),
    closing: entriesOf(Buffer.concat([...made.closing(new Map())])).map(show),
    made
  }
}

const refusal = (entries: ReadonlyArray<LayerEntry>, limits: Partial<LayerLimits> = {}): string => {
  const { fault } = filter(entries, limits)
  return fault === undefined ? "passed" : `${fault.entry} ${fault.problem}`
}

describe("LayerFilter", () => {
  it("writes names anew: no leading ./, no double slashes, a trailing one for directories", () => {
    const { main } = passed([
      directory("./"),
      directory("./a//b"),
      file(".//a/./b/c"),
      symlink("a/l", "../../anywhere")
    ])
    assert.deepStrictEqual(main, ["a/ directory", "a/b/ directory", "a/b/c file", "a/l symlink -> ../../anywhere"])
  })

  it("turns whiteouts into devices 0:0 and opaque markers into the attribute, content ignored", () => {
    const { closing, main } = passed([
      directory("a"),
      opaque("a"),
      whiteout("a/x"),
      file(".wh.top", "content"),
      file("b", "1")
    ])
    assert.deepStrictEqual(main, ["a/ directory", "b file", "top character", "a/x character"])
    assert.deepStrictEqual(closing, ["./ directory", "a/ directory trusted.overlay.opaque=y"])
  })

  it("whiteouts speak of lower layers only, before or after what the same layer has", () => {
    const before = passed([whiteout("d"), directory("d"), file("d/x"), whiteout("f"), file("f")])
    const after = passed([directory("d"), file("d/x"), whiteout("d"), file("f"), whiteout("f")])
    assert.deepStrictEqual(before.main, ["d/ directory", "d/x file", "f file"])
    assert.deepStrictEqual(before.closing, ["./ directory", "d/ directory trusted.overlay.opaque=y"])
    assert.deepStrictEqual([after.main, after.closing], [before.main, before.closing])
  })

  it("leaves aufs' own files out", () => {
    assert.deepStrictEqual(passed([directory(".wh..wh.plnk"), file(".wh..wh.aufs"), file("a")]).main, ["a file"])
  })

  it("passes attributes that speak to the container, and no others", () => {
    const xattrs = {
      "user.mine": "1",
      "user.overlay.opaque": "y",
      "trusted.overlay.redirect": "/x",
      "trusted.overlay.opaque": "y",
      "security.capability": "\x01",
      "security.selinux": "x",
      "system.posix_acl_access": "a"
    }
    assert.deepStrictEqual(passed([file("f", "", { xattrs })]).main, [
      "f file user.mine=1 security.capability=\x01 system.posix_acl_access=a"
    ])
    // The kernel has no such attributes on what is neither file nor directory.
    assert.deepStrictEqual(passed([symlink("l", "f", { xattrs }), fifo("p", { xattrs })]).main, [
      "l symlink -> f",
      "p fifo"
    ])
  })

  it("a directory that comes again keeps its content and gets its attributes at the end", () => {
    const { closing, main } = passed([
      directory("a"),
      file("a/x"),
      directory("a", { mode: 0o700, xattrs: { "user.k": "v" } })
    ])
    assert.deepStrictEqual(main, ["a/ directory", "a/x file"])
    assert.deepStrictEqual(closing, ["./ directory", "a/ directory user.k=v"])
  })

  it("makes missing directories, and says which", () => {
    const { made, main } = passed([file("a/b/c"), directory("a/b")])
    assert.deepStrictEqual(main, ["a/ directory", "a/b/ directory", "a/b/c file"])
    assert.deepStrictEqual(filter([file("a/b/c"), directory("a/b")]).made.implicit(), ["", "a"])
    assert.strictEqual(made.entries(), 2)
  })

  it("follows relative symlinks of the layer that stay inside", () => {
    const { main } = passed([
      directory("usr/lib"),
      symlink("lib", "usr/lib"),
      symlink("usr/up", "../lib/./"),
      file("lib/a"),
      file("usr/up/b"),
      hardlink("c", "lib/a")
    ])
    assert.deepStrictEqual(main.slice(-3), ["usr/lib/a file", "usr/lib/b file", "c hardlink -> usr/lib/a"])
  })

  it("the last of several entries of one name wins, whatever its type", () => {
    const { main } = passed([directory("a"), file("a/b"), file("a"), symlink("s", "a"), directory("s"), file("s/x")])
    assert.deepStrictEqual(main, ["a/ directory", "a/b file", "a file", "s symlink -> a", "s/ directory", "s/x file"])
    assert.strictEqual(
      refusal([directory("a"), file("a"), file("a/b")]),
      'a/b goes through "a", which is not a directory'
    )
  })

  it("hard links may name their target from the image's root, as some builders do", () => {
    assert.deepStrictEqual(passed([file("a/b"), hardlink("c", "/a/b"), hardlink("d", "./a//b")]).main.slice(-2), [
      "c hardlink -> a/b",
      "d hardlink -> a/b"
    ])
  })

  it("remembers opaque directories and attributes for the layers above", () => {
    const { made } = passed([directory("a", { xattrs: { "user.k": "v" } }), opaque("b")])
    assert.deepStrictEqual(
      made
        .special()
        .map(({ opaque, path, xattrs }) => [path, opaque, [...xattrs.keys()]])
        .toSorted(([left], [right]) => (String(left) < String(right) ? -1 : 1)),
      [
        ["a", false, ["user.k"]],
        ["b", true, []]
      ]
    )
  })

  it("inherited attributes go to implicit directories only", () => {
    const { made } = filter([file("a/x"), directory("b")])
    const inherited = {
      mode: 0o1777,
      uid: 5,
      gid: 6,
      modified: { seconds: 7, nanoseconds: 8 },
      xattrs: new Map([["user.k", Buffer.from("v")]])
    }
    const closing = entriesOf(
      Buffer.concat([
        ...made.closing(
          new Map([
            ["a", inherited],
            ["b", inherited]
          ])
        )
      ])
    )
    assert.deepStrictEqual(
      closing.map(({ mode, name, uid }) => [name, mode, uid]),
      [
        ["./", 0o755, 0],
        ["a/", 0o1777, 5]
      ]
    )
    assert.deepStrictEqual(closing[1]?.modified, { seconds: 7, nanoseconds: 8 })
    assert.deepStrictEqual(
      made.special().map(({ path }) => path),
      ["a"]
    )
  })
})

describe("a hostile layer is refused by name:", () => {
  for (const [what, entries, expected, limits] of hostile) {
    it(what, () => assert.strictEqual(refusal(entries, limits), expected))
  }

  it("there are at least fifty kinds", () => assert.isAtLeast(hostile.length, 50))

  it("an archive with zeros without end behind it, or extended headers without end", () => {
    const zeros = Buffer.alloc(1024 * 1024)
    const header = tar([file("a", "", { xattrs: { "user.a": "x".repeat(100_000) } })]).subarray(0, 100_864)
    for (const piece of [zeros, header]) {
      const made = makeLayerArchive({ ...defaultLimits, totalBytes: 10, entries: 10 }, () => {})
      let fault = made.push(piece === zeros ? tar([file("a")]) : piece)
      let count = 0
      while (fault === undefined && count++ < 2000) fault = made.push(piece)
      assert.match(fault?.problem ?? "", /is one of more than the 67119114 bytes that its archive may have/)
    }
  })

  it("a layer that is very many times larger than its blob", () => {
    const { ratio, totalBytes } = defaultLimits
    assert.strictEqual(limitsFor(defaultLimits, 1).totalBytes, ratioFloor)
    assert.strictEqual(limitsFor(defaultLimits, 1_000_000).totalBytes, ratio * 1_000_000)
    assert.strictEqual(limitsFor(defaultLimits, totalBytes).totalBytes, totalBytes)
  })

  it("a cut archive", () => {
    const made = makeLayerArchive(defaultLimits, () => {})
    const bytes = tar([file("a", "x".repeat(600))]).subarray(0, 900)
    assert.deepStrictEqual(made.push(bytes) ?? made.end(), { entry: "a", problem: "is cut off: 212 bytes are missing" })
  })
})

const Name = Schema.Literals(["a", "b", "c", ".", "..", "", ".wh.a", ".wh..wh..opq", ".wh.b", "long"])
const Path = Schema.Array(Name).pipe(Schema.check(Schema.isMaxLength(5)))
const Wild = Schema.Array(
  Schema.Struct({
    type: Schema.Literals(["file", "directory", "symlink", "hardlink", "fifo"]),
    path: Path,
    target: Path,
    absolute: Schema.Boolean
  })
).pipe(Schema.check(Schema.isMaxLength(30)))

it.effect.prop(
  "whatever passes names no path that leaves the layer or goes through anything but a directory",
  { wild: Wild },
  ({ wild }) =>
    Effect.sync(() => {
      // The judge is a plain model of a file system that knows no symlinks on the way.
      const standing = new Map<string, string>()
      const entries = wild.map(({ absolute, path, target, type }) => {
        const name = path.join("/")
        const to = `${absolute ? "/" : ""}${target.join("/")}`
        const link = to === "" ? "a" : to
        const makers = {
          file: () => file(name, "x"),
          directory: () => directory(name),
          symlink: () => symlink(name, link),
          hardlink: () => hardlink(name, link),
          fifo: () => fifo(name)
        }
        return makers[type]()
      })
      // What comes before the first refused entry counts.
      const counts = Array.from({ length: entries.length + 1 }, (_, left) => entries.length - left)
      const accepted = counts.map((count) => filter(entries.slice(0, count))).find(({ fault }) => fault === undefined)
      for (const entry of accepted === undefined ? [] : entriesOf(accepted.main)) {
        const list = entry.name.replace(/\/$/, "").split("/")
        assert.isFalse(
          list.some((part) => part === "" || part === "." || part === ".."),
          entry.name
        )
        for (let depth = 1; depth < list.length; depth++) {
          assert.strictEqual(standing.get(list.slice(0, depth).join("/")), "directory", fromBinary(entry.name))
        }
        const own = list.join("/")
        if (entry.type === "hardlink") {
          assert.include(["file", "symlink", "fifo", "hardlink"], standing.get(entry.linkName))
        }
        if (entry.type !== "directory") {
          for (const key of standing.keys()) if (key.startsWith(`${own}/`)) standing.delete(key)
        }
        standing.set(own, entry.type)
      }
    })
)
