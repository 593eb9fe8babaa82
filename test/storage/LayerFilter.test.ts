/** The filter between a stranger's layer and the disk: what passes, what it becomes, and a corpus of what must not pass. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import {
  defaultLimits,
  type LayerLimits,
  limitsFor,
  makeLayerFilter,
  ratioFloor
} from "../../src/storage/LayerFilter.ts"
import { fromBinary, type TarEntry } from "../../src/storage/Tar.ts"
import { makeTarReader } from "../../src/storage/TarReader.ts"
import {
  binaryName,
  device,
  directory,
  fifo,
  file,
  hardlink,
  type LayerEntry,
  opaque,
  raw,
  symlink,
  tar,
  whiteout
} from "../support/images.ts"

const entriesOf = (archive: Uint8Array): ReadonlyArray<TarEntry> => {
  const entries: Array<TarEntry> = []
  const reader = makeTarReader({ entry: (entry) => void entries.push(entry), data: () => {} }, { headerBytes: 1 << 20 })
  const fault = reader.push(archive) ?? reader.end()
  assert.isUndefined(fault)
  return entries
}

const filter = (entries: ReadonlyArray<LayerEntry>, limits: Partial<LayerLimits> = {}) => {
  const pieces: Array<Uint8Array> = []
  const made = makeLayerFilter({ ...defaultLimits, ...limits }, (bytes) => void pieces.push(Uint8Array.from(bytes)))
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

/** Kinds of hostile layers: what they are, and the refusal with its entry. */
const hostile: ReadonlyArray<readonly [string, ReadonlyArray<LayerEntry>, string, Partial<LayerLimits>?]> = [
  ["an absolute path", [file("/etc/x")], "/etc/x has an absolute path"],
  ["an absolute path of slashes", [file("//etc/x")], "//etc/x has an absolute path"],
  ["an absolute directory", [directory("/")], "/ has an absolute path"],
  ["..", [file("../x")], '../x has ".." in its path'],
  [".. in the middle", [file("a/../../x")], 'a/../../x has ".." in its path'],
  [".. that stays inside", [file("a/../x")], 'a/../x has ".." in its path'],
  [".. at the end", [directory("a/..")], 'a/../ has ".." in its path'],
  ["a whiteout above the root", [whiteout("../x")], '../.wh.x has ".." in its path'],
  ["a whiteout of ..", [file("a/.wh...")], "a/.wh... is a whiteout of no proper name"],
  ["a whiteout of .", [file(".wh..")], ".wh.. is a whiteout of no proper name"],
  ["a whiteout of nothing", [file("a/.wh.")], "a/.wh. is a whiteout of no proper name"],
  ["an opaque marker above the root", [file("../.wh..wh..opq")], '../.wh..wh..opq has ".." in its path'],
  [
    "a directory called like a whiteout",
    [directory(".wh.a"), file(".wh.a/b")],
    ".wh.a/b lies in a directory that is named like a whiteout"
  ],
  [
    "through an absolute symlink",
    [symlink("e", "/etc"), file("e/pwn")],
    'e/pwn escapes through the symlink "e" to "/etc"'
  ],
  [
    "through a climbing symlink",
    [symlink("e", "../.."), file("e/pwn")],
    "e/pwn escapes through a symlink that climbs out of the layer"
  ],
  [
    "through two symlinks",
    [directory("d"), symlink("d/a", ".."), symlink("b", "d/a/.."), file("b/pwn")],
    "b/pwn escapes through a symlink that climbs out of the layer"
  ],
  [
    "a directory through a symlink",
    [symlink("e", "/etc"), directory("e/d")],
    'e/d/ escapes through the symlink "e" to "/etc"'
  ],
  [
    "a symlink through a symlink",
    [symlink("e", "/etc"), symlink("e/l", "x")],
    'e/l escapes through the symlink "e" to "/etc"'
  ],
  [
    "a device through a symlink",
    [symlink("e", "/dev"), device("e/sda", "block", 8, 0)],
    'e/sda escapes through the symlink "e" to "/dev"'
  ],
  [
    "a whiteout through a symlink",
    [symlink("e", "/etc"), whiteout("e/passwd")],
    'e/.wh.passwd escapes through the symlink "e" to "/etc"'
  ],
  [
    "opaque through a symlink",
    [symlink("e", "/etc"), opaque("e")],
    'e/.wh..wh..opq escapes through the symlink "e" to "/etc"'
  ],
  ["a symlink to itself", [symlink("e", "e"), file("e/x")], 'e/x goes through too many symlinks ("e")'],
  [
    "symlinks in a circle",
    [symlink("a", "b"), symlink("b", "a"), file("a/x")],
    'a/x goes through too many symlinks ("a")'
  ],
  ["a symlink that grows", [symlink("a", "a/a"), file("a/x")], 'a/x goes through too many symlinks ("a")'],
  [
    "a way without end",
    [directory("a"), symlink("l", "a/../".repeat(600)), symlink("m", "l/l"), file("m/x")],
    "m/x goes a way through symlinks that is too long"
  ],
  ["through a file", [file("f"), file("f/x")], 'f/x goes through "f", which is not a directory'],
  ["through a device", [device("f", "character", 1, 3), file("f/x")], 'f/x goes through "f", which is not a directory'],
  [
    "a hard link out",
    [hardlink("h", "../../etc/passwd")],
    'h is a hard link whose target "../../etc/passwd" has ".." in its path'
  ],
  [
    "a hard link to the host's file",
    [hardlink("h", "/etc/passwd")],
    'h is a hard link whose target "/etc/passwd" goes through "etc", which is not in this layer'
  ],
  ["a hard link to nothing", [hardlink("h", "x")], 'h is a hard link to "x", which is not in this layer'],
  [
    "a hard link through a symlink",
    [symlink("e", "/etc"), hardlink("h", "e/passwd")],
    'h is a hard link whose target "e/passwd" escapes through the symlink "e" to "/etc"'
  ],
  ["a hard link to a directory", [directory("d"), hardlink("h", "d")], 'h is a hard link to "d", which is a directory'],
  ["a hard link to the root", [hardlink("h", ".")], 'h is a hard link whose target "." names the root'],
  ["a hard link to itself", [file("h"), hardlink("h", "h")], "h is a hard link to itself"],
  ["a hard link over its own directory", [file("d/f"), hardlink("d", "d/f")], "d is a hard link to itself"],
  [
    "a hard link to what was taken away",
    [file("d/f"), file("d"), hardlink("h", "d/f")],
    'h is a hard link whose target "d/f" goes through "d", which is not a directory'
  ],
  ["a file for the root", [file(".")], ". would replace the root directory"],
  ["a symlink for the root", [symlink("./", "/etc")], "./ would replace the root directory"],
  [
    "a name longer than Linux has",
    [file("x".repeat(256))],
    `${"x".repeat(256)} has a name of 256 bytes, more than the 255 that Linux has`
  ],
  [
    "a path longer than allowed",
    [file("abcdefghi/j")],
    "abcdefghi/j has a path of 11 bytes, more than the 10 allowed",
    { pathBytes: 10 }
  ],
  ["a deep path", [file("a/b/c/d")], "a/b/c/d lies 4 directories deep, more than the 3 allowed", { depth: 3 }],
  [
    "a deep path through symlinks",
    [directory("a/b"), symlink("l", "a/b"), file("l/c/d")],
    "l/c/d lies more than 3 directories deep",
    { depth: 3 }
  ],
  [
    "a long path through symlinks",
    [directory("aaaa/bbbb"), symlink("l", "aaaa/bbbb"), file("l/cc")],
    "l/cc has a path longer than the 10 bytes allowed",
    { pathBytes: 10 }
  ],
  [
    "too many entries",
    [file("a"), file("b"), file("c")],
    "c is one of more than 2 entries, which is the limit",
    { entries: 2 }
  ],
  [
    "too many whiteouts",
    [whiteout("a"), whiteout("b"), whiteout("c")],
    ".wh.c is one of more than 2 entries, which is the limit",
    { entries: 2 }
  ],
  [
    "too many bytes",
    [file("a", "123"), file("b", "123")],
    "b brings the layer to 6 bytes, more than the 5 allowed",
    { totalBytes: 5 }
  ],
  [
    "many opaque directories",
    [opaque("a"), opaque("b")],
    "b/.wh..wh..opq is one of more than 1 directories that are opaque or have extended attributes",
    { specialDirectories: 1 }
  ],
  ["a long symlink", [symlink("l", "x".repeat(5000))], "l is a symlink to 5000 bytes, more than the 3072 allowed"],
  [
    "a huge extended header",
    [file("a", "", { xattrs: { "user.a": "x".repeat(2000) } })],
    "extended has an extended header of 2026 bytes, more than the 1000 allowed",
    { headerBytes: 1000 }
  ],
  ["a name that is not UTF-8", [binaryName(file("x"), "/\xff\xfe")], "/\ufffd\ufffd has an absolute path"],
  ["a name that would disturb a terminal", [file("/\x1b[2J")], "/\\u{1b}[2J has an absolute path"],
  ["garbage", [raw(Buffer.alloc(512, "x"))], "(header at byte 0) has a wrong checksum"],
  [
    "a content that is cut off",
    [raw(tar([file("a", "x".repeat(600))]).subarray(0, 1024)), raw(Buffer.alloc(0))],
    "passed"
  ]
]

describe("a hostile layer is refused by name:", () => {
  for (const [what, entries, expected, limits] of hostile) {
    it(what, () => assert.strictEqual(refusal(entries, limits), expected))
  }

  it("there are at least fifty kinds", () => assert.isAtLeast(hostile.length, 50))

  it("an archive with zeros without end behind it, or extended headers without end", () => {
    const zeros = Buffer.alloc(1024 * 1024)
    const header = tar([file("a", "", { xattrs: { "user.a": "x".repeat(100_000) } })]).subarray(0, 100_864)
    for (const piece of [zeros, header]) {
      const made = makeLayerFilter({ ...defaultLimits, totalBytes: 10, entries: 10 }, () => {})
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
    const made = makeLayerFilter(defaultLimits, () => {})
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
