/** The tar reader and writer: every form that archives have, properties over splits, damage, and other tars as judges. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { fromBinary, paddingAfter, type TarEntry } from "../../src/storage/Tar.ts"
import { makeTarReader, type TarFault } from "../../src/storage/TarReader.ts"
import { encodeEntry, endOfArchive } from "../../src/storage/TarWriter.ts"
import { directory, file, hardlink, symlink, tar } from "../support/images.ts"

interface Read {
  readonly entries: ReadonlyArray<TarEntry & { readonly content: string }>
  readonly fault: TarFault | undefined
}

/** Reads an archive in pieces of the given sizes, over and over. */
const read = (archive: Uint8Array, pieces: ReadonlyArray<number> = [archive.length]): Read => {
  const entries: Array<{ entry: TarEntry; content: string }> = []
  const reader = makeTarReader(
    {
      entry: (entry) => void entries.push({ entry, content: "" }),
      data: (bytes) => {
        const last = entries[entries.length - 1]
        if (last !== undefined) last.content += Buffer.from(bytes).toString("latin1")
      }
    },
    { headerBytes: 65_536 }
  )
  const all = () => entries.map(({ content, entry }) => ({ ...entry, content }))
  for (let position = 0, turn = 0; position < archive.length; turn++) {
    const size = Math.max(1, pieces[turn % pieces.length] ?? 1)
    const fault = reader.push(archive.subarray(position, position + size))
    if (fault !== undefined) return { entries: all(), fault }
    position += size
  }
  return { entries: all(), fault: reader.end() }
}

/** A ustar header by hand: fields are written where POSIX puts them, the checksum is made right. */
const header = (fields: Readonly<Record<number, string>>, checksum?: string): Buffer => {
  const block = Buffer.alloc(512)
  const defaults: Record<number, string> = {
    0: "name",
    100: "0000644\0",
    108: "0000000\0",
    116: "0000000\0",
    124: "00000000000\0",
    136: "00000000000\0",
    156: "0",
    257: "ustar\x0000"
  }
  for (const [offset, value] of Object.entries({ ...defaults, ...fields })) block.write(value, Number(offset), "latin1")
  block.write("        ", 148, "latin1")
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(checksum ?? `${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1")
  return block
}

const pax = (records: Readonly<Record<string, string>>): Buffer => {
  const body = Object.entries(records)
    .map(([key, value]) => {
      const rest = Buffer.byteLength(` ${key}=${value}\n`)
      let length = rest + String(rest).length
      if (String(length).length !== String(rest).length) length++
      return `${length} ${key}=${value}\n`
    })
    .join("")
  return extension("x", Buffer.from(body))
}

const extension = (flag: string, body: Buffer): Buffer =>
  Buffer.concat([
    header({ 0: "extension", 156: flag, 124: `${body.length.toString(8).padStart(11, "0")}\0` }),
    body,
    Buffer.alloc(paddingAfter(body.length))
  ])

const archive = (...pieces: ReadonlyArray<Uint8Array>) => Buffer.concat([...pieces, endOfArchive])

const faultOf = (bytes: Uint8Array): string => {
  const { fault } = read(bytes)
  return fault === undefined ? "no fault" : `${fault.entry}: ${fault.problem}`
}

describe("TarReader", () => {
  it("reads PAX paths, links, sizes, owners, nanoseconds and attributes over the header's", () => {
    const { entries, fault } = read(
      archive(
        pax({
          path: "ä/long",
          linkpath: "ö",
          uid: "3000000",
          gid: "4294967294",
          mtime: "1.000000007",
          "SCHILY.xattr.user.a": "v\n=\0w",
          comment: "no"
        }),
        header({ 156: "2", 157: "short" })
      )
    )
    assert.isUndefined(fault)
    assert.deepInclude(entries[0], {
      name: Buffer.from("ä/long").toString("latin1"),
      type: "symlink",
      linkName: Buffer.from("ö").toString("latin1"),
      uid: 3_000_000,
      gid: 4_294_967_294,
      modified: { seconds: 1, nanoseconds: 7 }
    })
    assert.deepStrictEqual([...(entries[0]?.xattrs ?? [])], [["user.a", Uint8Array.from(Buffer.from("v\n=\0w"))]])
  })

  it("an extended header counts for one entry only, and an empty value gives the header's back", () => {
    const { entries } = read(archive(pax({ path: "first", uid: "" }), header({ 108: "0000007\0" }), header({})))
    assert.deepStrictEqual(
      entries.map(({ name, uid }) => [name, uid]),
      [
        ["first", 7],
        ["name", 0]
      ]
    )
  })

  it("reads GNU long names, base-256 numbers, ustar prefixes, v7 directories and global headers", () => {
    const long = "d/".repeat(90) + "x"
    const { entries, fault } = read(
      archive(
        extension("g", Buffer.from("9 a=bcde\n")),
        extension("L", Buffer.from(`${long}\0`)),
        header({ 108: "\x80\0\0\0\x00\x30\x00\x00" }),
        header({ 0: "base", 345: "the/prefix" }),
        header({ 0: "old/", 156: "\0", 257: "\0\0\0\0\0\0\0\0" }),
        header({ 0: "before", 136: "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" })
      )
    )
    assert.isUndefined(fault)
    assert.deepStrictEqual(
      entries.map(({ name, type, uid, modified }) => [name, type, uid, modified.seconds]),
      [
        [long, "file", 0x30_0000, 0],
        ["the/prefix/base", "file", 0, 0],
        ["old/", "directory", 0, 0],
        ["before", "file", 0, -1]
      ]
    )
  })

  it("takes an archive without an end, and ignores what follows one", () => {
    assert.isUndefined(read(header({})).fault)
    assert.isUndefined(read(Buffer.concat([archive(header({})), Buffer.from("garbage")])).fault)
    assert.isUndefined(read(Buffer.alloc(0)).fault)
  })

  it("says what is wrong, and where", () => {
    assert.strictEqual(faultOf(archive(header({}, "000000\0 "))), "(header at byte 0): has a wrong checksum")
    assert.strictEqual(faultOf(archive(header({ 156: "S" }))), "name: is a sparse file, which is not supported")
    assert.strictEqual(faultOf(archive(header({ 156: "M" }))), 'name: has the unknown type "M"')
    assert.strictEqual(faultOf(archive(header({ 124: "zzz" }))), "name: has an invalid size")
    assert.strictEqual(
      faultOf(archive(header({ 124: "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" }))),
      "name: has an invalid size"
    )
    assert.strictEqual(
      faultOf(archive(header({ 108: "\xff\xff\xff\xff\xff\xff\xff\xff" }))),
      "name: has an invalid owner"
    )
    assert.strictEqual(faultOf(archive(header({ 156: "2" }))), "name: links to nothing")
    assert.strictEqual(faultOf(archive(header({ 0: "\0" }))), "(header at byte 0): has no name")
    assert.strictEqual(faultOf(archive(header({ 0: "d/", 124: "00000000001\0" }))), "d/: is a directory with content")
    assert.strictEqual(
      faultOf(archive(pax({ path: "a\0b" }), header({}))),
      '(header at byte 1024): has an invalid PAX path "a\\u{0}b"'.replace("1024", "512")
    )
    assert.strictEqual(
      faultOf(archive(pax({ size: "99999999999999999" }), header({}))),
      '(header at byte 512): has an invalid PAX size "99999999999999999"'
    )
    assert.strictEqual(
      faultOf(archive(pax({ "GNU.sparse.major": "1" }), header({}))),
      "(header at byte 512): is a sparse file, which is not supported"
    )
    assert.strictEqual(
      faultOf(archive(extension("x", Buffer.from("999 path=a\n")), header({}))),
      "(header at byte 512): has a PAX record of impossible length"
    )
    assert.strictEqual(
      faultOf(archive(extension("x", Buffer.from("9 path=ab")), header({}))),
      "(header at byte 512): has a PAX record that is not `length key=value`"
    )
    assert.strictEqual(
      faultOf(archive(header({ 156: "x", 124: "77777777777\0" }))),
      "name: has an extended header of 8589934591 bytes, more than the 65536 allowed"
    )
    assert.strictEqual(
      faultOf(archive(pax({ path: "a" }))),
      "(header at byte 1536): is an extended header with nothing after it"
    )
    assert.strictEqual(
      faultOf(Buffer.concat([new Uint8Array(512), header({})])),
      "(header at byte 512): follows a block of zeros"
    )
    assert.strictEqual(faultOf(header({ 124: "00000001000\0" })), "name: is cut off: 512 bytes are missing")
    assert.strictEqual(faultOf(header({}).subarray(0, 300)), "(byte 300): is where the archive is cut off, in a header")
    assert.strictEqual(
      faultOf(pax({ path: "a" }).subarray(0, 600)),
      "(byte 600): is where the archive is cut off, in an extended header"
    )
    assert.strictEqual(
      faultOf(pax({ path: "a" })),
      "(byte 1024): is where the archive is cut off, after an extended header"
    )
  })

  it("cut at any byte, it gives a part of the entries and never invents one", () => {
    const whole = tar([
      directory("a"),
      file("a/b", "x".repeat(700), { xattrs: { "user.k": "v" } }),
      symlink("a/c", "b".repeat(150)),
      hardlink("d", "a/b")
    ])
    const all = read(whole).entries
    for (let length = 0; length < whole.length; length += 37) {
      const { entries } = read(whole.subarray(0, length))
      assert.deepStrictEqual(entries.slice(0, -1), all.slice(0, Math.max(0, entries.length - 1)))
    }
  })

  /** A name: any bytes but NUL and "/". */
  const Bytes = Schema.NonEmptyArray(
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 255 })))
  ).pipe(Schema.check(Schema.isMaxLength(200)))
  const nameOf = (bytes: ReadonlyArray<number>) => String.fromCharCode(...bytes).replaceAll("/", "_")
  const Id = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_fffe })))
  const Entry = Schema.Struct({
    name: Bytes,
    linkName: Bytes,
    type: Schema.Literals(["file", "hardlink", "symlink", "character", "block", "directory", "fifo"]),
    mode: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 0o7777 }))),
    uid: Id,
    gid: Id,
    seconds: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: -4_000_000_000, maximum: 10_000_000_000 }))),
    nanoseconds: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 999_999_999 }))),
    major: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 0xfff }))),
    minor: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 0xf_ffff }))),
    xattr: Schema.Uint8Array,
    content: Schema.String
  })
  const Pieces = Schema.Array(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 1500 }))))

  it.effect.prop(
    "reads back what was written, however it is cut into pieces",
    { entries: Schema.Array(Entry), pieces: Pieces },
    ({ entries, pieces }) =>
      Effect.sync(() => {
        const written = entries.map(({ content, nanoseconds, seconds, xattr, ...rest }) => {
          const body = Buffer.from(rest.type === "file" ? content : "")
          const isDevice = rest.type === "character" || rest.type === "block"
          const entry: TarEntry = {
            ...rest,
            name: rest.type === "directory" ? `${nameOf(rest.name)}/` : nameOf(rest.name),
            linkName: rest.type === "hardlink" || rest.type === "symlink" ? nameOf(rest.linkName) : "",
            major: isDevice ? rest.major : 0,
            minor: isDevice ? rest.minor : 0,
            size: body.length,
            modified: { seconds, nanoseconds },
            xattrs: new Map([["user.any", Uint8Array.from(xattr)]])
          }
          return { entry, body }
        })
        const bytes = archive(
          ...written.flatMap(({ body, entry }) => [encodeEntry(entry), body, new Uint8Array(paddingAfter(body.length))])
        )
        const { entries: found, fault } = read(bytes, pieces.length === 0 ? [bytes.length] : pieces)
        assert.isUndefined(fault)
        assert.deepStrictEqual(
          found,
          written.map(({ body, entry }) => ({ ...entry, content: body.toString("latin1") }))
        )
      })
  )

  const Damage = Schema.Array(
    Schema.Struct({
      at: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 8191 }))),
      value: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 255 })))
    })
  )
  it.effect.prop(
    "damaged anywhere it neither throws nor hangs, and what it finds does not depend on the pieces",
    { damage: Damage, pieces: Pieces },
    ({ damage, pieces }) =>
      Effect.sync(() => {
        const bytes = tar([
          directory("a"),
          file("a/b", "x".repeat(700), { xattrs: { "user.k": "v" } }),
          symlink("a/c", "b".repeat(150)),
          hardlink("d", "a/b"),
          file("e".repeat(120), "y")
        ])
        for (const { at, value } of damage) bytes[at % bytes.length] = value
        assert.deepStrictEqual(read(bytes, pieces.length === 0 ? [512] : pieces), read(bytes))
      })
  )
})

describe("fromBinary", () => {
  it("shows text as it is, escapes what could disturb a terminal, and is bounded", () => {
    assert.strictEqual(fromBinary(Buffer.from("grüße.txt").toString("latin1")), "grüße.txt")
    assert.strictEqual(fromBinary('a\x1b[31m\n"b\\'), "a\\u{1b}[31m\\u{a}\\u{22}b\\u{5c}")
    assert.strictEqual(fromBinary("x".repeat(5000)).length, 1025)
  })
})
