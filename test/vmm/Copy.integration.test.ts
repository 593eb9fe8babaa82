/** `copy`: what it makes is the same and as sparse; what it cannot make leaves nothing, and what was there is as it was. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawnSync } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { join } from "node:path"
import * as Taproot from "../support/taproot.ts"
import { room, stateDirectory, tool } from "./world.ts"

const MIB = 1024 * 1024

/** A file of this size, of which only the pieces are written: the content of one begins at each of these places. */
const sparse = (path: string, size: number, pieces: ReadonlyArray<readonly [at: number, content: Uint8Array]>) => {
  const file = openSync(path, "w")
  for (const [at, content] of pieces) writeSync(file, content, 0, content.length, at)
  closeSync(file)
  truncateSync(path, size)
  return path
}

const digest = (path: string) => createHash("sha256").update(readFileSync(path)).digest("hex")
const allocated = (path: string) => statSync(path).blocks * 512

describe("copy", () => {
  it.live("makes the same file, with its holes, also on another file system", () =>
    Effect.gen(function* () {
      const home = yield* stateDirectory
      const other = join(home, "other")
      yield* room(other, 16)
      yield* Effect.gen(function* () {
        const random = randomBytes(MIB + 4_711)
        const files = [
          sparse(join(home, "holes"), 64 * MIB, [
            [0, random.subarray(0, 4_096)],
            [20 * MIB + 1, random],
            [64 * MIB - 5, random.subarray(0, 5)]
          ]),
          sparse(join(home, "hole-at-its-end"), 32 * MIB + 3, [[MIB, random]]),
          sparse(join(home, "only-a-hole"), 32 * MIB, []),
          sparse(join(home, "odd"), random.length, [[0, random]]),
          sparse(join(home, "empty"), 0, [])
        ]
        for (const file of files) {
          for (const place of [home, other]) {
            const to = join(place, "copied")
            assert.deepStrictEqual(yield* tool("copy", [file, to]), { end: 0, stdout: "", stderr: "" })
            assert.strictEqual(statSync(to).size, statSync(file).size, file)
            assert.strictEqual(digest(to), digest(file), file)
            assert.isAtMost(allocated(to), allocated(file) + 65_536, `${file} has become less sparse`)
            assert.strictEqual(statSync(to).mode & 0o7777, 0o600)
            rmSync(to)
          }
        }
      }).pipe(Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )

  it.live("belongs to whom another file belongs, with its mode; what was there stays", () =>
    Effect.gen(function* () {
      const home = yield* stateDirectory
      const at = (name: string) => join(home, name)
      writeFileSync(at("from"), "content")
      writeFileSync(at("like"), "")
      chownSync(at("like"), 1_900_000_123, 1_900_000_124)
      chmodSync(at("like"), 0o640)
      assert.strictEqual((yield* tool("copy", [at("from"), at("to"), at("like")])).end, 0)
      const { gid, mode, uid } = statSync(at("to"))
      assert.deepStrictEqual([uid, gid, mode & 0o7777], [1_900_000_123, 1_900_000_124, 0o640])
      assert.strictEqual((yield* tool("copy", [at("from"), at("alone"), at("nothing")])).end, 0)
      assert.deepStrictEqual([statSync(at("alone")).uid, statSync(at("alone")).mode & 0o7777], [0, 0o600])

      writeFileSync(at("there"), "before")
      symlinkSync("elsewhere", at("dangling"))
      symlinkSync("there", at("link"))
      for (const target of ["there", "dangling", "link"]) {
        const { end, stderr } = yield* tool("copy", [at("from"), at(target)])
        assert.strictEqual(end, 73, target)
        assert.strictEqual(stderr, `copy: ${at(target)}: File exists\n`)
      }
      assert.strictEqual(readFileSync(at("there"), "utf8"), "before")
      assert.isTrue(lstatSync(at("dangling")).isSymbolicLink())
      assert.isFalse(existsSync(at("elsewhere")))
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("refuses wrong words and what is no file, and makes nothing", () =>
    Effect.gen(function* () {
      const home = yield* stateDirectory
      const at = (name: string) => join(home, name)
      writeFileSync(at("from"), "content")
      mkdirSync(at("directory"))
      assert.strictEqual(spawnSync("mkfifo", [at("pipe")]).status, 0)
      for (const words of [[], ["from"], [at("from"), at("to"), at("from"), "more"]]) {
        const { end, stderr } = yield* tool("copy", words)
        assert.deepStrictEqual([end, stderr], [64, "usage: copy FROM TO [LIKE]\n"])
      }
      for (const [from, problem] of [
        [at("nothing"), "No such file or directory"],
        [at("directory"), "Is a directory"],
        // nobody writes to it, and that is not waited for
        [at("pipe"), "No such device"],
        ["/dev/zero", "No such device"],
        ["", "No such file or directory"]
      ] as const) {
        const { end, stderr } = yield* tool("copy", [from, at("to")])
        assert.deepStrictEqual([end, stderr], [66, `copy: ${from}: ${problem}\n`])
      }
      for (const to of [at("nothing/to"), at("from/to"), "/proc/to"]) {
        assert.strictEqual((yield* tool("copy", [at("from"), to])).end, 73, to)
      }
      assert.deepStrictEqual(readdirSync(home).toSorted(), ["directory", "from", "pipe"])
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("leaves nothing on a disk that is full", () =>
    Effect.gen(function* () {
      const home = yield* stateDirectory
      const small = join(home, "small")
      yield* room(small, 4)
      yield* Effect.gen(function* () {
        const from = sparse(join(home, "from"), 6 * MIB, [[0, randomBytes(6 * MIB)]])
        const { end, stderr } = yield* tool("copy", [from, join(small, "to")])
        assert.deepStrictEqual([end, stderr], [73, "copy: writing: No space left on device\n"])
        assert.deepStrictEqual(readdirSync(small), [])
        // within one file system, too, where it is the kernel that copies
        const within = sparse(join(small, "from"), 3 * MIB, [[0, randomBytes(3 * MIB)]])
        assert.strictEqual((yield* tool("copy", [within, join(small, "to")])).end, 73)
        assert.deepStrictEqual(readdirSync(small), ["from"])
      }).pipe(Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )
})
