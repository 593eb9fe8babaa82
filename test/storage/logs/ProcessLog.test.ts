/** Logs on real files: nothing lost and nothing twice over crashes at any byte, rotation, following, tail and since. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { execFileSync } from "node:child_process"
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  appendFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as ProcessLog from "../../../src/storage/logs/ProcessLog.ts"
import type { LogOptions, LogRetention } from "../../../src/storage/logs/LogRetention.ts"
import { look, outputRoom } from "../../../src/storage/DiskRoom.ts"
import type { OutputChunk, OutputStream } from "../../../src/taproot/Processes.ts"

const plenty: LogRetention = { maxBytes: 1_000_000, maxFiles: 3 }

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-log-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const chunk = (time: bigint, output: string, stream: OutputStream = "stdout"): OutputChunk => ({
  stream,
  offset: 0n,
  time,
  bytes: Buffer.from(output)
})

/** What a reader gets, put together again per stream. */
const outputOf = (log: ProcessLog.ProcessLog, stream: OutputStream, options: LogOptions = {}) =>
  Stream.runFold(
    log.read({ ...options, streams: [stream] }),
    () => "",
    (text, entry) => `${text}${Buffer.from(entry.content).toString()}${entry.complete ? "\n" : ""}`
  )

const collect = (log: ProcessLog.ProcessLog, options: LogOptions = {}) =>
  Effect.map(Stream.runCollect(log.read(options)), (entries) =>
    entries.map(
      ({ complete, content, stream }) => `${stream[3]}${complete ? "" : "+"}:${Buffer.from(content).toString()}`
    )
  )

describe("ProcessLog", () => {
  it.live("stores chunks and reads them back, by stream, tail and since", () =>
    Effect.gen(function* () {
      const log = ProcessLog.make(join(yield* temporary, "web"), plenty)
      assert.deepStrictEqual(yield* collect(log), [], "a log that nobody wrote is empty")
      yield* log.store(chunk(1n, "a\nb\n"))
      yield* log.store(chunk(2n, "E\n", "stderr"))
      yield* log.store(chunk(3n, "half"))
      yield* log.store(chunk(4n, " and half\n"))
      assert.deepStrictEqual(yield* collect(log), ["o:a", "o:b", "e:E", "o+:half", "o: and half"])
      assert.deepStrictEqual(yield* collect(log, { streams: ["stderr"] }), ["e:E"])
      assert.deepStrictEqual(yield* collect(log, { tail: 2 }), ["o+:half", "o: and half"])
      assert.deepStrictEqual(yield* collect(log, { tail: 1, streams: ["stderr"] }), ["e:E"])
      assert.deepStrictEqual(yield* collect(log, { tail: 0 }), [])
      assert.deepStrictEqual(yield* collect(log, { lines: 1 }), ["o+:half", "o: and half"], "a line in two entries")
      assert.deepStrictEqual(yield* collect(log, { lines: 3 }), ["o:b", "e:E", "o+:half", "o: and half"])
      assert.deepStrictEqual(yield* collect(log, { lines: 0 }), [])
      assert.deepStrictEqual(yield* collect(log, { lines: 99 }), yield* collect(log))
      assert.deepStrictEqual(yield* collect(log, { tail: 99 }), ["o:a", "o:b", "e:E", "o+:half", "o: and half"])
      assert.deepStrictEqual(yield* collect(log, { since: 3n }), ["o+:half", "o: and half"])
      yield* log.close
    })
  )

  it.live("rotates by size and keeps so many files; reading goes over all of them", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporary, "web")
      const log = ProcessLog.make(directory, { maxBytes: 1_000, maxFiles: 3 })
      for (let index = 0; index < 100; index++) yield* log.store(chunk(BigInt(index + 1), `line ${index}\n`))
      const files = readdirSync(directory).sort()
      assert.strictEqual(files.length, 3)
      assert.isTrue(files.includes("current.log"))
      for (const file of files) assert.isAtMost(statSync(join(directory, file)).size, 1_000)
      const kept = yield* collect(log)
      assert.strictEqual(kept.at(-1), "o:line 99")
      assert.isAbove(kept.length, 40)
      assert.deepStrictEqual(
        kept,
        Array.from({ length: kept.length }, (_, index) => `o:line ${100 - kept.length + index}`),
        "the newest lines without a gap"
      )
      assert.deepStrictEqual(yield* collect(log, { tail: 30 }), kept.slice(-30), "a tail that begins in a rotated file")
      yield* log.close
    })
  )

  it.live("a follower gets what comes later, over rotations, and ends when the log is closed", () =>
    Effect.gen(function* () {
      const log = ProcessLog.make(join(yield* temporary, "web"), { maxBytes: 500, maxFiles: 50 })
      yield* log.store(chunk(1n, "line 0\n"))
      const reader = yield* Effect.forkChild(collect(log, { follow: true }))
      for (let index = 1; index < 60; index++) {
        yield* log.store(chunk(BigInt(index + 1), `line ${index}\n`))
        if (index % 7 === 0) yield* Effect.sleep("2 millis")
      }
      const last = yield* log.read({ follow: true }).pipe(
        Stream.filter(({ content }) => Buffer.from(content).toString() === "line 59"),
        Stream.runHead
      )
      assert.strictEqual(last._tag, "Some")
      yield* Effect.sleep("20 millis")
      yield* log.close
      assert.deepStrictEqual(
        yield* Fiber.join(reader),
        Array.from({ length: 60 }, (_, index) => `o:line ${index}`)
      )
    })
  )

  it.live("idle gives the file back, the next chunk goes on in it", () =>
    Effect.gen(function* () {
      const log = ProcessLog.make(join(yield* temporary, "web"), plenty)
      yield* log.store(chunk(1n, "a\n"))
      yield* log.idle
      yield* log.store(chunk(2n, "b\n"))
      assert.deepStrictEqual(yield* collect(log), ["o:a", "o:b"])
      yield* log.close
    })
  )

  it.live("damaged lines are skipped and do not stop readers", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporary, "web")
      const log = ProcessLog.make(directory, plenty)
      yield* log.store(chunk(1n, "a\n"))
      yield* log.close
      appendFileSync(join(directory, "current.log"), `${"\0".repeat(70_000)}\nnot a log line\n`)
      const again = ProcessLog.make(directory, plenty)
      yield* again.store(chunk(2n, "b\n"))
      assert.deepStrictEqual(yield* collect(again), ["o:a", "o:b"])
      assert.deepStrictEqual(yield* collect(again, { tail: 2 }), ["o:a", "o:b"])
      yield* again.close
    })
  )

  it.live(
    "output that cannot be written is dropped after a while; the next line that can be written says how much",
    () =>
      Effect.gen(function* () {
        const directory = join(yield* temporary, "web")
        writeFileSync(directory, "a file where the log's directory should be")
        const log = ProcessLog.make(directory, plenty)
        const told: Array<string> = []
        yield* log.onLoss((why) => told.push(why))
        yield* log.store(chunk(1n, "lost\n"))
        yield* log.store(chunk(2n, "lost too\n"))
        yield* log.onLoss((why) => told.push(`later: ${why}`))
        rmSync(directory)
        yield* log.store(chunk(3n, "kept\n"))
        yield* log.store(chunk(4n, "and this\n"))
        const entries = yield* collect(log)
        assert.deepStrictEqual(told, ["ENOTDIR", "later: ENOTDIR", "", "later: "])
        assert.deepStrictEqual(entries, ["e:[ironwood: 14 bytes of output were lost: ENOTDIR]", "o:kept", "o:and this"])
        yield* log.close
      })
  )

  // Mounting needs root.
  it.live.skipIf(process.getuid?.() !== 0)("a flood leaves the disk's last part to others, and says what it lost", () =>
    Effect.gen(function* () {
      const disk = yield* temporary
      yield* Effect.acquireRelease(
        Effect.sync(() => execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "none", disk])),
        () => Effect.sync(() => execFileSync("umount", ["--lazy", disk]))
      )
      const log = ProcessLog.make(join(disk, "web"), { maxBytes: 10_000_000, maxFiles: 2 }, outputRoom(disk))
      const line = `${"x".repeat(999)}\n`
      for (let index = 0; index < 2_100; index++) yield* log.store(chunk(BigInt(index + 1), line))
      const { floor, left } = yield* look(disk)
      assert.isAbove(floor, 100_000)
      assert.isAtLeast(left, floor)
      assert.isBelow(left, 2 * floor)
      writeFileSync(join(disk, "of somebody else"), Buffer.alloc(floor - 10_000))
      rmSync(join(disk, "of somebody else"))
      const stored = yield* collect(log)
      truncateSync(join(disk, "web/current.log"), 0)
      yield* log.close
      const again = ProcessLog.make(join(disk, "web"), plenty, outputRoom(disk))
      yield* again.store(chunk(3_000n, "room\n"))
      assert.deepStrictEqual(yield* collect(again), ["o:room"])
      assert.isAbove(stored.length, 1_500)
      yield* again.close
    })
  )

  const Served = Schema.Struct({
    stream: Schema.Literals(["stdout", "stderr"]),
    pieces: Schema.NonEmptyArray(Schema.Literals(["\n", "x", "word", "a longer piece of text ", "\r\n"]))
  })
  it.effect.prop(
    "a brain that dies at any byte loses nothing and stores nothing twice",
    {
      before: Schema.Array(Served).pipe(Schema.check(Schema.isMaxLength(6))),
      last: Served,
      grown: Schema.Array(Schema.Literals(["\n", "more", " "])).pipe(Schema.check(Schema.isMaxLength(4))),
      rotation: Schema.Literals([60, 200, 100_000]),
      cut: Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1 })))
    },
    ({ before, cut, grown, last, rotation }) =>
      Effect.gen(function* () {
        const directory = join(yield* temporary, "web")
        const retention = { maxBytes: rotation, maxFiles: 100 }
        const first = ProcessLog.make(directory, retention)
        const expected = { stdout: "", stderr: "" }
        let time = 1_000n
        for (const { pieces, stream } of before) {
          const output = pieces.join("")
          expected[stream] += output
          yield* first.store(chunk(time++, output, stream))
        }
        const current = join(directory, "current.log")
        const sizeBefore = before.length === 0 ? 0 : statSync(current).size
        const filesBefore = before.length === 0 ? 1 : readdirSync(directory).length
        const unconfirmed = chunk(time, last.pieces.join(""), last.stream)
        yield* first.store(unconfirmed)
        yield* first.close
        // The last append may have rotated: then all of the current file is its own.
        const rotated = readdirSync(directory).length > filesBefore
        const from = rotated ? 0 : sizeBefore
        truncateSync(current, from + Math.floor((statSync(current).size - from) * cut))

        // The next brain is served the same chunk, grown by what came meanwhile.
        const second = ProcessLog.make(directory, retention)
        const again = chunk(time, `${last.pieces.join("")}${grown.join("")}`, last.stream)
        yield* second.store(yield* second.rest(again))
        expected[last.stream] += Buffer.from(again.bytes).toString()
        assert.strictEqual(yield* outputOf(second, "stdout"), expected.stdout)
        assert.strictEqual(yield* outputOf(second, "stderr"), expected.stderr)
        // And the one after that, when it was stored wholly but not confirmed.
        yield* second.close
        const third = ProcessLog.make(directory, retention)
        yield* third.store(yield* third.rest(again))
        assert.strictEqual(yield* outputOf(third, last.stream), expected[last.stream])
        yield* third.close
        assert.strictEqual(readFileSync(current).at(-1), 10)
      })
  )
})
