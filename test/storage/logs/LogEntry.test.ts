/** CRI log lines: what is written can be read, whatever bytes a container writes. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import {
  chunkCounter,
  formatChunk,
  formatTime,
  MAXIMUM_CONTENT,
  parseLine,
  parseTime
} from "../../../src/storage/logs/LogEntry.ts"

const linesOf = (text: Uint8Array): ReadonlyArray<Uint8Array> => {
  const lines: Array<Uint8Array> = []
  let start = 0
  for (let end = text.indexOf(10); end >= 0; end = text.indexOf(10, start)) {
    lines.push(text.subarray(start, end))
    start = end + 1
  }
  assert.strictEqual(start, text.length, "ends with a newline")
  return lines
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1")

describe("LogEntry", () => {
  it("writes times as RFC 3339 with nanoseconds and reads them back", () => {
    assert.strictEqual(formatTime(1_795_377_926_727_462_991n), "2026-11-22T20:05:26.727462991Z")
    assert.strictEqual(formatTime(0n), "1970-01-01T00:00:00.000000000Z")
    assert.strictEqual(parseTime("2026-11-22T20:05:26.727462991Z"), 1_795_377_926_727_462_991n)
    assert.strictEqual(parseTime("2026-11-22T21:05:26.7+01:00"), 1_795_377_926_700_000_000n)
    assert.strictEqual(parseTime("2026-11-22T20:05:26Z"), 1_795_377_926_000_000_000n)
    for (const wrong of ["", "now", "2026-11-22", "2026-13-22T20:05:26Z", "2026-11-22T20:05:26"]) {
      assert.isUndefined(parseTime(wrong), wrong)
    }
  })

  it("marks whole lines F and an unfinished last one P", () => {
    const written = text(formatChunk(0n, "stdout", Buffer.from("one\n\nhalf")))
    const stamp = "1970-01-01T00:00:00.000000000Z stdout"
    assert.strictEqual(written, `${stamp} F one\n${stamp} F \n${stamp} P half\n`)
  })

  it("splits long lines, and only the last piece ends the line", () => {
    const lines = linesOf(formatChunk(5n, "stderr", Buffer.from(`${"x".repeat(MAXIMUM_CONTENT * 2 + 1)}\n`)))
    const entries = lines.map(parseLine)
    assert.deepStrictEqual(
      entries.map((entry) => [entry?.content.length, entry?.complete]),
      [
        [MAXIMUM_CONTENT, false],
        [MAXIMUM_CONTENT, false],
        [1, true]
      ]
    )
    const exact = linesOf(formatChunk(5n, "stderr", Buffer.from(`${"x".repeat(MAXIMUM_CONTENT)}\n`)))
    assert.strictEqual(exact.length, 1, "a line of exactly the maximum is one entry")
  })

  it("keeps every byte, also one that is no text, of short lines and of long ones between them", () => {
    const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
    const long = Buffer.alloc(MAXIMUM_CONTENT + 1, "$")
    for (const written of [Buffer.concat([all, all]), Buffer.concat([all, long, all]), Buffer.concat([long, all])]) {
      const kept = linesOf(formatChunk(5n, "stdout", written)).map((line) => {
        const entry = parseLine(line)
        return `${text(entry?.content ?? new Uint8Array())}${entry?.complete === true ? "\n" : ""}`
      })
      assert.strictEqual(kept.join(""), text(written))
    }
  })

  it("refuses what is no entry", () => {
    for (const wrong of [
      "",
      "2026-11-22T20:05:26.727462991Z",
      "2026-11-22T20:05:26.727462991Z stdout",
      "2026-11-22T20:05:26.727462991Z stdout F",
      "2026-11-22T20:05:26.727462991Z stdlog F x",
      "2026-11-22T20:05:26.727462991Z stdout X x",
      "yesterday-at-five-o-clock-sharp stdout F x",
      "\0".repeat(100)
    ]) {
      assert.isUndefined(parseLine(Buffer.from(wrong)), wrong)
    }
  })

  it.effect.prop(
    "any output is read back byte by byte, and counted right",
    {
      pieces: Schema.Array(Schema.Literals(["\n", "\r\n", "a", " ", "\0", "\u{1F333}", "stdout F ", "\xff"])),
      stream: Schema.Literals(["stdout", "stderr"]),
      time: Schema.BigInt.pipe(
        Schema.check(Schema.isBetweenBigInt({ minimum: 0n, maximum: 4_000_000_000_000_000_000n }))
      )
    },
    ({ pieces, stream, time }) =>
      Effect.sync(() => {
        const output = Buffer.from(pieces.join(""))
        const lines = linesOf(formatChunk(time, stream, output))
        const entries = lines.map(parseLine)
        const again = entries.map(
          (entry) => `${text(entry?.content ?? new Uint8Array())}${entry?.complete ? "\n" : ""}`
        )
        assert.strictEqual(again.join(""), output.toString("latin1"))
        for (const entry of entries) {
          assert.strictEqual(entry?.time, time)
          assert.strictEqual(entry?.stream, stream)
        }
        const counter = chunkCounter(time, stream)
        for (const line of lines.toReversed()) assert.isTrue(counter.visit(line))
        assert.strictEqual(counter.length(), output.length)
      })
  )

  it("the counter passes over the other stream and stops at an older chunk of its own", () => {
    const counter = chunkCounter(7n, "stdout")
    const line = (time: bigint, stream: "stdout" | "stderr", content: string) =>
      formatChunk(time, stream, Buffer.from(`${content}\n`)).subarray(0, -1)
    assert.isTrue(counter.visit(line(9n, "stderr", "later")))
    assert.isTrue(counter.visit(line(7n, "stdout", "abc")))
    assert.isTrue(counter.visit(line(7n, "stderr", "same time, other stream")))
    assert.isTrue(counter.visit(Buffer.from("damaged")))
    assert.isFalse(counter.visit(line(6n, "stdout", "older")))
    assert.strictEqual(counter.length(), 4)
  })
})
