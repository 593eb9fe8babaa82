/**
 * Layers through all that unpacks them, the program included: the hostile corpus, damaged archives and damaged compression. What
 * the filter alone says of a tar (LayerFilter.test.ts) is what must come out, whatever the way.
 *
 * Each runs with the program as it ships, shut in by its own filter of system calls, and with the one under sanitizers, which is not.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync, zstdCompressSync } from "node:zlib"
import { Digest } from "../../src/storage/Digest.ts"
import { makeLayerArchive } from "../../src/storage/LayerArchive.ts"
import { defaultLimits, type LayerLimits } from "../../src/storage/LayerFilter.ts"
import { Layers } from "../../src/storage/Layers.ts"
import type { Compression } from "../../src/storage/OciImage.ts"
import { type Answer, makeAnswers, makeCommands } from "../../src/storage/unpack/UnpackProtocol.ts"
import { end } from "../../src/storage/unpack/Unpacking.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { SeededRandom } from "../actor/simulation/SeededRandom.ts"
import { hostile } from "../support/hostileLayers.ts"
import {
  binaryName,
  device,
  directory,
  fifo,
  file,
  hardlink,
  opaque,
  sha256,
  symlink,
  tar,
  whiteout
} from "../support/images.ts"
import * as Store from "../support/store.ts"
import * as Taproot from "../support/taproot.ts"
import { command } from "../support/trees.ts"

/** Damaged archives for each of the two programs; `IRONWOOD_SOAK` for more of them. */
const rounds = process.env["IRONWOOD_SOAK"] === undefined ? 60 : 5_000

const built = (name: string): string => fileURLToPath(new URL(`../../build/${name}`, import.meta.url))

/** A taproot that has the program of this name beside it. */
const beside = (program: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync("/dev/shm/ironwood-unpack-")),
      (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
    ),
    (directory) => {
      copyFileSync(built("taproot"), join(directory, "taproot"))
      copyFileSync(built(program), join(directory, "unpack"))
      return Taproot.layer({ program: join(directory, "taproot") })
    }
  )

const packed: { readonly [Name in Compression]: (bytes: Uint8Array) => Uint8Array } = {
  none: (bytes) => bytes,
  gzip: (bytes) => gzipSync(bytes),
  zstd: (bytes) => zstdCompressSync(bytes)
}
const compressions = ["none", "gzip", "zstd"] as const

/** What becomes of a blob, in words. */
const outcome = Effect.fnUntraced(function* (
  blob: Uint8Array,
  compression: Compression,
  diffId: string,
  limits: Partial<LayerLimits> = {}
) {
  const home = yield* Store.scratch
  const digest = Digest.make(diffId)
  const apply = Effect.flatMap(Layers, (layers) =>
    layers.apply({
      chain: [digest],
      blob: digest,
      blobBytes: blob.length,
      diffId: digest,
      compression,
      open: Store.coming(blob),
      below: Effect.void
    })
  )
  const said = yield* Effect.match(apply, {
    onSuccess: () => "passed",
    onFailure: (error) => (error._tag === "LayerRefused" ? `${error.entry} ${error.problem}` : error.message)
  }).pipe(
    Effect.provide(
      Layers.layer({ directory: join(home, "layers"), temporary: join(home, "temporary"), limits: () => limits }),
      { local: true }
    )
  )
  assert.deepStrictEqual(readdirSync(join(home, "temporary")), [])
  return said
}, Effect.scoped)

/** What the filter alone says. */
const judged = (bytes: Uint8Array, limits: Partial<LayerLimits> = {}): string => {
  const archive = makeLayerArchive({ ...defaultLimits, ...limits }, () => {})
  const fault = archive.push(bytes) ?? archive.end()
  return fault === undefined ? "passed" : `${fault.entry} ${fault.problem}`
}

const capability = Buffer.from("0100000200200000000000000000000000000000", "hex")
const long = "long-".repeat(40)

/** One of each kind of entry, with all that headers can have. */
const sample = tar([
  directory("a", { mode: 0o1777, uid: 3_000_000, xattrs: { "user.k": "v" } }),
  file("a/small", "x".repeat(10), { seconds: -5, nanoseconds: 7 }),
  file(`a/${long}`, "y".repeat(600), { xattrs: { "user.a": "1", "security.capability": capability } }),
  symlink("link", long),
  hardlink("hard", "a/small"),
  device("null", "character", 1, 3),
  fifo("pipe"),
  opaque("a"),
  whiteout("gone"),
  file(".wh.with-content", "z".repeat(700)),
  binaryName(file("x", "bytes"), "\xff\xfe"),
  file("implicit/directory/file", "w".repeat(1024))
])

/** The size in a header is found where only extended headers say it, or says it in base 256. */
const withSizes = (record: string): Buffer => {
  const pax = Buffer.from(tar([file("f", "", { xattrs: { "user.a": "b" } })]).subarray(0, 1024))
  pax.fill(0, 512)
  pax.write(record, 512)
  pax.write(record.length.toString(8).padStart(11, "0"), 124)
  const header = Buffer.from(tar([file("f", "")]).subarray(0, 512))
  for (const block of [pax, header]) {
    block.write("        ", 148)
    const sum = block.subarray(0, 512).reduce((total, byte) => total + byte, 0)
    block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148)
  }
  return Buffer.concat([pax, header, Buffer.alloc(1024, "c"), tar([file("after", "1")])])
}

/** A file of a block, with another text for its size in its header. */
const sized = (size: string): Buffer => {
  const bytes = Buffer.from(tar([file("f", "c".repeat(512))]))
  bytes.write(size.padStart(12), 124, "latin1")
  bytes.write("        ", 148)
  const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0)
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148)
  return bytes
}

/** An extended header with these records: the first two blocks of what has nothing else before its file. */
const extendedBy = (record: string): Buffer => withSizes(record).subarray(0, record === "" ? 512 : 1024)

for (const program of ["unpack", "unpack-sanitized"]) {
  const test = (what: string, run: Effect.Effect<void, unknown, Effect.Services<ReturnType<typeof outcome>>>) =>
    it.live(what, () =>
      Effect.flatMap(beside(program), (taproot) => Effect.provide(run, taproot, { local: true })).pipe(Effect.scoped)
    )

  describe(program, () => {
    test(
      "refuses the hostile corpus, entry by entry",
      Effect.gen(function* () {
        for (const [index, [what, entries, expected, limits]] of hostile.entries()) {
          const bytes = tar(entries)
          const compression = compressions[index % 3] ?? "none"
          const said = yield* outcome(packed[compression](bytes), compression, sha256(bytes), limits)
          assert.strictEqual(said, expected, what)
        }
      })
    )

    test(
      "says of damaged archives what the filter says, wherever the contents of files lie",
      Effect.gen(function* () {
        const seed = Number(process.env["IRONWOOD_SEED"] ?? Date.now() % 1_000_000)
        const random = new SeededRandom(seed)
        for (let round = 0; round < rounds; round++) {
          const bytes = Buffer.from(
            sample.subarray(0, random.between(0, 3) === 0 ? random.between(1, sample.length) : sample.length)
          )
          for (let flips = random.between(0, 2); flips > 0; flips--) {
            const at = random.between(0, bytes.length - 1)
            bytes[at] = random.between(0, 255)
            // half of them with a checksum that is right again
            const start = at - (at % 512)
            if (random.between(0, 1) === 0 && start + 512 <= bytes.length) {
              bytes.write("        ", start + 148)
              const sum = bytes.subarray(start, start + 512).reduce((total, byte) => total + byte, 0)
              bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, start + 148)
            }
          }
          const compression = random.pick(compressions)
          const said = yield* outcome(packed[compression](bytes), compression, sha256(bytes))
          assert.notInclude(said, "could not be unpacked: unpack", `seed ${seed} round ${round}`)
          // what no kernel makes (an attribute that is none, say) is told by it, perhaps before the judge comes to the end
          if (!said.includes("could not be unpacked")) {
            assert.strictEqual(said, judged(bytes), `seed ${seed} round ${round}`)
          }
        }
      })
    )

    test(
      "finds contents whose size only an extended header has",
      Effect.gen(function* () {
        for (const record of [
          "13 size=1024\n",
          "13 size=9999\n13 size=1024\n",
          "9 size=5\n",
          "14 size= 1024\n",
          "14 size=-1024\n",
          "13 siz=102444"
        ]) {
          const bytes = withSizes(record)
          assert.strictEqual(yield* outcome(bytes, "none", sha256(bytes)), judged(bytes), record)
        }
      })
    )

    test(
      "finds contents where the judge does, whatever a size looks like",
      Effect.gen(function* () {
        const archives = [
          sized("1000"),
          // no space in a tar, and one to trim()
          sized("\u{a0}1000"),
          sized("\u{b}1000 "),
          Buffer.concat([extendedBy("12 size=512\n"), extendedBy(""), sized("0"), tar([file("g", "d".repeat(512))])]),
          Buffer.concat([extendedBy("12 size=512\n"), extendedBy(""), sized("1000")])
        ]
        for (const [index, bytes] of archives.entries()) {
          assert.strictEqual(yield* outcome(bytes, "none", sha256(bytes)), judged(bytes), `archive ${index}`)
        }
        assert.strictEqual(judged(sized("\u{a0}1000")), "f has an invalid size")
        // a size of nothing to the judge, none to unpack: nobody may leave out what the other has not seen
        const differing = Buffer.concat([extendedBy("11 size=-0\n"), sized("1000")])
        assert.strictEqual(
          yield* outcome(differing, "none", sha256(differing)),
          "(a header) says its size in a way that is not understood"
        )
      })
    )

    test(
      "takes what gzip and zstd allow, and tells what is broken",
      Effect.gen(function* () {
        const halves = [sample.subarray(0, 3000), sample.subarray(3000)]
        const said = (blob: Uint8Array, compression: Compression) => outcome(blob, compression, sha256(sample))
        const gzip = Buffer.concat(halves.map((half) => gzipSync(half)))
        const zstd = Buffer.concat(halves.map((half) => zstdCompressSync(half)))
        assert.strictEqual(yield* said(gzip, "gzip"), "passed")
        assert.strictEqual(yield* said(Buffer.concat([gzip, Buffer.alloc(300)]), "gzip"), "passed")
        assert.strictEqual(yield* said(zstd, "zstd"), "passed")
        assert.include(yield* said(Buffer.concat([gzip, Buffer.from("x")]), "gzip"), "cannot be unpacked (gzip: ")
        // wherever the pieces end in which it came
        for (const zeros of [1, 300, 300_000]) {
          const padded = Buffer.concat([gzip, Buffer.alloc(zeros)])
          assert.strictEqual(yield* said(padded, "gzip"), "passed")
          for (const more of [Buffer.from("x"), gzipSync("x")]) {
            assert.include(yield* said(Buffer.concat([padded, more]), "gzip"), "(gzip: trailing garbage)")
          }
        }
        const skippable = Buffer.from("502a4d1803000000616263", "hex")
        assert.strictEqual(yield* said(Buffer.concat([skippable, zstd, skippable]), "zstd"), "passed")
        for (const more of ["x", "more than a header's worth"]) {
          assert.include(yield* said(Buffer.concat([zstd, Buffer.from(more)]), "zstd"), "cannot be unpacked (zstd: ")
        }
        assert.include(yield* said(gzip.subarray(0, -4), "gzip"), "(gzip: unexpected end of file)")
        assert.include(yield* said(zstd.subarray(0, -4), "zstd"), "(zstd: unexpected end of file)")
        assert.include(yield* said(Buffer.alloc(0), "gzip"), "(gzip: unexpected end of file)")
        assert.include(yield* said(Buffer.alloc(0), "zstd"), "(zstd: unexpected end of file)")
        const wrong = Buffer.from(gzip)
        wrong.writeUInt32LE(0, wrong.length - 8)
        assert.include(yield* said(wrong, "gzip"), "(gzip: incorrect data check)")
      })
    )

    test(
      "waits for a blob that comes slowly, however often it is asked for something else meanwhile",
      Effect.gen(function* () {
        const processes = yield* Processes
        for (const compression of compressions) {
          const home = yield* Store.scratch
          const [file, tree] = [join(home, "blob"), join(home, "tree")]
          const blob = packed[compression](sample)
          writeFileSync(file, blob)
          mkdirSync(tree)
          const process = yield* Effect.acquireRelease(
            processes.spawn({
              label: "slow",
              argv: [built(program), "1", file, String(blob.length), compression, "sha256", tree],
              stdin: { _tag: "Stream" },
              stdout: { _tag: "Stream" }
            }),
            end
          )
          const [commands, answers] = [makeCommands(), makeAnswers()]
          const pull = yield* Stream.toPull(process.output("stdout"))
          const told: Array<Answer> = []
          /** The first of this kind, or of those that end everything. */
          const until = Effect.fnUntraced(function* (wanted: Answer["_tag"]) {
            for (;;) {
              for (let next; (next = told.shift()) !== undefined;) {
                if ([wanted, "Broken", "Failed", "End"].includes(next._tag)) return next
              }
              for (const { bytes } of yield* pull) told.push(...(answers(bytes) ?? []))
            }
          })
          commands.upTo(blob.length - 20)
          yield* process.write(commands.take())
          for (let count = 0; count < 40; count++) {
            commands.sync()
            yield* process.write(commands.take())
            assert.deepStrictEqual(yield* until("Synced"), { _tag: "Synced" }, compression)
          }
          commands.upTo(blob.length)
          yield* process.write(commands.take())
          assert.deepStrictEqual(
            yield* until("End"),
            { _tag: "End", missing: 0, digest: sha256(sample).slice("sha256:".length) },
            compression
          )
        }
      }).pipe(Effect.scoped)
    )

    test(
      "damaged compression is told as such, or as what came of it",
      Effect.gen(function* () {
        const seed = Number(process.env["IRONWOOD_SEED"] ?? Date.now() % 1_000_000)
        const random = new SeededRandom(seed)
        for (let round = 0; round < rounds / 2; round++) {
          const compression = random.pick(["gzip", "zstd"] as const)
          const blob = Buffer.from(packed[compression](sample))
          for (let flips = random.between(1, 4); flips > 0; flips--) {
            blob[random.between(0, blob.length - 1)] = random.between(0, 255)
          }
          const said = yield* outcome(blob, compression, sha256(sample))
          assert.notInclude(said, "could not be unpacked: unpack", `seed ${seed} round ${round}`)
        }
      })
    )

    test(
      "a content larger than all that it keeps in memory, among small ones",
      Effect.gen(function* () {
        const home = yield* Store.scratch
        const bytes = tar([
          file("small", "1"),
          file("large", Buffer.alloc(20_000_000, "content")),
          ...Array.from({ length: 3000 }, (_, index) =>
            file(`d${index % 7}/f${index}`, `content ${index}`.repeat(index % 90))
          )
        ])
        const digest = Digest.make(sha256(bytes))
        yield* Effect.gen(function* () {
          const layers = yield* Layers
          yield* layers.apply({
            chain: [digest],
            blob: digest,
            blobBytes: 1,
            diffId: digest,
            compression: "gzip",
            open: Store.coming(gzipSync(bytes)),
            below: Effect.void
          })
          const [name] = (yield* layers.lowerNames([digest])) ?? []
          const [plain, archive] = [join(home, "plain"), join(home, "tar")]
          writeFileSync(archive, bytes)
          yield* command("mkdir", plain)
          yield* command("tar", "--extract", "--file", archive, "--directory", plain)
          assert.strictEqual(yield* command("diff", "-r", plain, join(layers.directory, name ?? "")), "")
        }).pipe(
          Effect.provide(Layers.layer({ directory: join(home, "layers"), temporary: join(home, "temporary") }), {
            local: true
          })
        )
      }).pipe(Effect.scoped)
    )
  })
}
