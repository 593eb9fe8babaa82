/** Files that are damaged, foreign, newer, no files, read-only, locked; disks that are full. Each a typed error; the file keeps its bytes. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { spawnSync } from "node:child_process"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as State from "../../src/storage/State.ts"
import { faultOf, openStateFile } from "../../src/storage/StateFile.ts"
import { MIGRATIONS } from "../../src/storage/StateSchema.ts"
import { eventually } from "../support/eventually.ts"
import { fingerprint, Sample, sample, temporaryDirectory, withState } from "./support/state.ts"

const samples = Effect.flatMap(State.State, (state) => state.collection("sample", Sample))

/** A database with some pages of records. */
const fill = Effect.gen(function* () {
  const collection = yield* samples
  yield* Effect.forEach(
    Array.from({ length: 100 }, (_, index) => index),
    (index) => collection.put(`n${index}`, sample(index, "x".repeat(1_000))),
    { concurrency: "unbounded" }
  )
})

/** The error of opening the database, which must leave every file as it was; but for the index of the log, made anew from it by every reader. */
const refusal = Effect.fnUntraced(function* (directory: string) {
  const before = fingerprint(directory)
  const error = yield* Effect.flip(withState(join(directory, "state.db"), Effect.void))
  const after = fingerprint(directory)
  for (const [name, digest] of Object.entries(before)) {
    if (!name.endsWith("-shm")) assert.strictEqual(after[name], digest, `${name} was changed`)
  }
  return error
})

/** A mount that is gone with the scope. */
const mount = (target: string, ...options: ReadonlyArray<string>): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      mkdirSync(target, { recursive: true })
      const done = spawnSync("mount", [...options, target], { encoding: "utf8" })
      assert.strictEqual(done.status, 0, done.stderr)
    }),
    () => Effect.sync(() => void spawnSync("umount", ["-l", target]))
  )

describe("a file that is not a whole database of ours", () => {
  it.live("is refused when its beginning is not SQLite's", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      writeFileSync(join(directory, "state.db"), "this is a letter to my aunt\n".repeat(300))
      const error = yield* refusal(directory)
      assert.strictEqual(error._tag, "StateCorrupt")
      assert.include(error.message, "no SQLite database")
      assert.include(error.message, "Nothing was changed")
    })
  )

  it.live("is refused when it is empty: a database is never made in place, so somebody emptied it", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      writeFileSync(join(directory, "state.db"), "")
      assert.strictEqual((yield* refusal(directory))._tag, "StateCorrupt")
    })
  )

  it.live("is refused when it was cut off anywhere", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const path = join(directory, "state.db")
      yield* withState(path, fill)
      const whole = readFileSync(path)
      for (const length of [50, 100, 4_095, 4_096, 8_192, whole.length - 5_000]) {
        writeFileSync(path, whole.subarray(0, length))
        assert.strictEqual((yield* refusal(directory))._tag, "StateCorrupt", `cut at ${length}`)
      }
    })
  )

  it.live("is refused when pages inside were overwritten", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const path = join(directory, "state.db")
      yield* withState(path, fill)
      const damaged = readFileSync(path)
      for (let page = 1; page * 4_096 < damaged.length; page++) damaged.fill(0xa5, page * 4_096, page * 4_096 + 100)
      writeFileSync(path, damaged)
      const error = yield* refusal(directory)
      assert.strictEqual(error._tag, "StateCorrupt")
      assert.include(error.message, ".recover")
    })
  )

  it.live("is refused with the log of a crash untouched, so nothing that could be recovered is lost", () =>
    Effect.gen(function* () {
      const [live, directory] = [yield* temporaryDirectory, yield* temporaryDirectory]
      const path = join(directory, "state.db")
      yield* withState(join(live, "state.db"), fill)
      // Copies of the files while they are in use are what a crash leaves behind.
      const crash = Effect.gen(function* () {
        yield* (yield* samples).put("last", sample(1))
        for (const name of readdirSync(live)) copyFileSync(join(live, name), join(directory, name))
      })
      yield* withState(join(live, "state.db"), crash)
      assert.isAbove(statSync(`${path}-wal`).size, 0)
      const damaged = readFileSync(path)
      writeFileSync(path, damaged.fill(0xa5, 8_192, 16_384))
      assert.strictEqual((yield* refusal(directory))._tag, "StateCorrupt")
    })
  )

  it.live("is opened when it was in use at a crash: the log is merged", () =>
    Effect.gen(function* () {
      const [live, directory] = [yield* temporaryDirectory, yield* temporaryDirectory]
      const copy = Effect.sync(() => {
        for (const name of readdirSync(live)) copyFileSync(join(live, name), join(directory, name))
      })
      yield* withState(join(live, "state.db"), Effect.andThen(fill, copy))
      const records = yield* withState(
        join(directory, "state.db"),
        Effect.flatMap(samples, (collection) => collection.list)
      )
      assert.strictEqual(records.length, 100)
      assert.deepStrictEqual(readdirSync(directory), ["state.db"])
    })
  )

  it.live("is refused when only its log is left", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      writeFileSync(join(directory, "state.db-wal"), "x".repeat(5_000))
      assert.strictEqual((yield* refusal(directory))._tag, "StateCorrupt")
    })
  )

  it.live("is refused when it is another program's", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const other = new DatabaseSync(join(directory, "state.db"))
      other.exec("PRAGMA application_id = 42; CREATE TABLE bookmark (url TEXT); PRAGMA journal_mode = WAL")
      other.close()
      const error = yield* refusal(directory)
      assert.strictEqual(error._tag, "StateForeign")
      assert.include(error.message, "application_id 42")
    })
  )

  it.live("is refused when a newer version of this program wrote it", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      openStateFile(join(directory, "state.db"), [...MIGRATIONS, "CREATE TABLE later (x TEXT) STRICT"]).close()
      const error = yield* refusal(directory)
      assert.strictEqual(error._tag, "StateForeign")
      assert.include(error.message, `version ${MIGRATIONS.length + 1}, newer than version ${MIGRATIONS.length}`)
    })
  )

  it.live("is refused when it is a directory, or below a directory that does not exist", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      for (const path of [directory, join(directory, "no/state.db")]) {
        const error = yield* Effect.flip(withState(path, Effect.void))
        assert.strictEqual(error._tag === "StateUnavailable" ? error.reason : error._tag, "CannotOpen")
      }
    })
  )

  it.live("is refused while another process has it open", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const path = join(directory, "state.db")
      yield* withState(
        path,
        Effect.gen(function* () {
          yield* fill
          const attempt = spawnSync(
            process.execPath,
            [
              "-e",
              `
          const { openStateFile, faultOf } = await import(${JSON.stringify(join(import.meta.dirname, "../../src/storage/StateFile.ts"))})
          try { openStateFile(${JSON.stringify(path)}) } catch (error) { console.log(faultOf(error).reason) }
        `
            ],
            { encoding: "utf8" }
          )
          assert.strictEqual(attempt.stdout, "Locked\n", attempt.stderr)
          yield* fill
        })
      )
    })
  )
})

describe("migrations", () => {
  it.live("bring an older database to the newest layout, and one that fails leaves the version before", () =>
    Effect.gen(function* () {
      const path = join(yield* temporaryDirectory, "state.db")
      yield* withState(path, fill)
      const next = [...MIGRATIONS, "ALTER TABLE record ADD COLUMN note TEXT; CREATE TABLE more (x TEXT) STRICT"]
      assert.throws(() =>
        openStateFile(path, [...MIGRATIONS, "CREATE TABLE more (x TEXT); SELECT nonsense FROM nowhere"])
      )
      const database = openStateFile(path, next)
      assert.deepInclude(database.prepare("SELECT count(*) AS n, max(note) AS note FROM record").get(), {
        n: 100,
        note: null
      })
      // A program of before sees the new version in the header although this one is not closed.
      assert.strictEqual(readFileSync(path).readUInt32BE(60), next.length)
      database.close()
      assert.strictEqual((yield* Effect.flip(withState(path, Effect.void)))._tag, "StateForeign")
    })
  )
})

describe("errors of the system", () => {
  it("are sorted by what a person can do about them", () => {
    const error = (properties: object) => faultOf(Object.assign(new Error("said"), properties))
    assert.deepInclude(error({ code: "ERR_SQLITE_ERROR", errcode: 13 }), { reason: "DiskFull" })
    assert.deepInclude(error({ code: "ERR_SQLITE_ERROR", errcode: 1034 }), { reason: "InputOutput" })
    assert.deepInclude(error({ code: "ERR_SQLITE_ERROR", errcode: 267 }), { _tag: "Corrupt" })
    assert.deepInclude(error({ code: "ENOSPC", syscall: "open" }), { reason: "DiskFull" })
    assert.deepInclude(error({ code: "ENOENT", syscall: "open" }), { reason: "CannotOpen" })
    assert.deepInclude(faultOf("odd"), { reason: "Other", detail: "odd" })
  })
})

// Mounting needs root.
describe.skipIf(process.getuid?.() !== 0)("a disk", () => {
  it.live(
    "that is full refuses writes with nothing half done, serves reads, and is used again when there is room",
    () =>
      Effect.gen(function* () {
        const directory = join(yield* temporaryDirectory, "disk")
        yield* mount(directory, "-t", "tmpfs", "-o", "size=1m", "none")
        const path = join(directory, "state.db")
        const filler = join(directory, "filler")
        const fillDisk = Effect.sync(() => {
          for (const size of [65_536, 4_096, 1]) {
            try {
              for (;;) writeFileSync(filler, Buffer.alloc(size), { flag: "a" })
            } catch (error) {
              assert.deepInclude(error, { code: "ENOSPC" })
            }
          }
        })
        const text = "x".repeat(10_000)
        const acknowledged = new Map<string, number>()
        const put = Effect.fnUntraced(function* (name: string, count: number) {
          const record = yield* (yield* samples).put(name, sample(count, text))
          acknowledged.set(name, record.value.count)
        })
        const found = Effect.map(
          Effect.flatMap(samples, (collection) => collection.list),
          (records) => new Map(records.map((record) => [record.name, record.value.count]))
        )
        yield* withState(
          path,
          Effect.gen(function* () {
            yield* put("before", 1)
            yield* fillDisk
            let failed = 0
            for (let index = 0; index < 120; index++) {
              const error = yield* Effect.option(Effect.flip(put(`n${index % 50}`, index)))
              if (Option.isNone(error)) continue
              failed++
              assert.strictEqual(
                error.value._tag === "StateUnavailable" ? error.value.reason : error.value._tag,
                "DiskFull"
              )
              assert.include(error.value.message, "make room")
            }
            assert.isAbove(failed, 0)
            assert.deepStrictEqual(yield* found, acknowledged)
            rmSync(filler)
            yield* put("after", 2)
            yield* fillDisk
            assert.deepStrictEqual(yield* found, acknowledged)
          })
        )
        // Also a restart on the full disk reads.
        yield* withState(
          path,
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* found, acknowledged)
            rmSync(filler)
            yield* put("again", 3)
          })
        )
        assert.deepStrictEqual(yield* withState(path, found), acknowledged)
      })
  )

  it.live("that is full to the last byte still takes what lets go, again and again", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "disk")
      yield* mount(directory, "-t", "tmpfs", "-o", "size=12m", "none")
      const path = join(directory, "state.db")
      yield* withState(
        path,
        Effect.gen(function* () {
          const state = yield* State.State
          const collection = yield* samples
          const names = Array.from({ length: 20 }, (_, index) => `n${index}`)
          yield* Effect.forEach(names, (name) => collection.put(name, sample(0, "x".repeat(1_000))))
          // the reserve is made in a moment of peace
          yield* eventually(
            "the reserve",
            Effect.map(state.facts, ({ databaseBytes, logBytes }) => databaseBytes > 400_000 && logBytes > 390_000)
          )
          const before = yield* state.facts
          for (const size of [65_536, 4_096, 1]) {
            assert.throws(() => {
              for (;;) writeFileSync(join(directory, "filler"), Buffer.alloc(size), { flag: "a" })
            }, /ENOSPC/)
          }
          // more than fits into the log: it begins anew
          for (let round = 1; round <= 20; round++) {
            for (const name of names) yield* collection.put(name, sample(round, "y".repeat(1_000)))
          }
          const refused = yield* Effect.flip(collection.put("new", sample(1)))
          assert.include(refused.message, "what is left is for stopping and removing")
          for (const name of names) yield* collection.remove(name)
          const after = yield* state.facts
          assert.strictEqual(after.databaseBytes, before.databaseBytes)
          assert.isAtMost(after.logBytes, before.logBytes + 4_096, "the rest of its last page at most")
          rmSync(join(directory, "filler"))
          yield* collection.put("new", sample(1))
        })
      )
      const left = yield* withState(
        path,
        Effect.flatMap(samples, (collection) => collection.list)
      )
      assert.deepStrictEqual(
        left.map(({ name }) => name),
        ["new"]
      )
    })
  )

  it.live("that has no room for a new database is left as it was", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "disk")
      yield* mount(directory, "-t", "tmpfs", "-o", "size=16k", "none")
      const error = yield* Effect.flip(withState(join(directory, "state.db"), Effect.void))
      assert.strictEqual(error._tag === "StateUnavailable" ? error.reason : error._tag, "DiskFull")
      assert.deepStrictEqual(readdirSync(directory), [])
    })
  )

  it.live("that is read-only is refused, and the database on it untouched", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "disk")
      yield* mount(directory, "-t", "tmpfs", "none")
      yield* withState(join(directory, "state.db"), fill)
      yield* mount(directory, "-o", "remount,ro")
      const error = yield* refusal(directory)
      assert.strictEqual(error._tag === "StateUnavailable" ? error.reason : error._tag, "ReadOnly")
      const fresh = yield* Effect.flip(withState(join(directory, "other.db"), Effect.void))
      assert.strictEqual(fresh._tag === "StateUnavailable" ? fresh.reason : fresh._tag, "ReadOnly")
      assert.isFalse(existsSync(join(directory, "other.db.new")))
    })
  )
})
