/** Durations and sizes as people write them. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as HumanText from "../../src/cli/HumanText.ts"
import { parseBytes, parseDuration } from "../../src/cli/Quantity.ts"

const duration = (text: string) => Result.getOrElse(parseDuration(text), (problem) => problem)
const bytes = (text: string) => Result.getOrElse(parseBytes(text), (problem) => problem)
const natural = (maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum })))

describe("durations", () => {
  it("takes what people write", () => {
    assert.deepStrictEqual(duration("500ms"), { seconds: 0n, nanos: 500_000_000 })
    assert.deepStrictEqual(duration("1h30m"), { seconds: 5400n, nanos: 0 })
    assert.deepStrictEqual(duration("1.5s"), { seconds: 1n, nanos: 500_000_000 })
    assert.deepStrictEqual(duration("2d"), { seconds: 172_800n, nanos: 0 })
    assert.deepStrictEqual(duration("250µs"), { seconds: 0n, nanos: 250_000 })
    assert.deepStrictEqual(duration(" 0 "), { seconds: 0n, nanos: 0 })
  })

  it("says what would have been right", () => {
    assert.include(duration("10"), "has no unit")
    assert.include(duration("ten seconds"), 'not "ten seconds"')
    assert.include(duration("-5s"), "a duration such as")
    assert.include(duration("0.1ns"), "whole nanoseconds")
    assert.include(duration("999999999999999d"), "at most 10,000 years")
    assert.include(duration(""), "a duration such as")
  })

  it.effect.prop(
    "is exact",
    { hours: natural(100_000), minutes: natural(10_000), milliseconds: natural(10_000_000) },
    ({ hours, milliseconds, minutes }) =>
      Effect.sync(() => {
        const total = BigInt(hours) * 3_600_000n + BigInt(minutes) * 60_000n + BigInt(milliseconds)
        assert.deepStrictEqual(duration(`${hours}h${minutes}m${milliseconds}ms`), {
          seconds: total / 1000n,
          nanos: Number(total % 1000n) * 1_000_000
        })
      })
  )
})

describe("sizes", () => {
  it("takes what people write", () => {
    assert.strictEqual(bytes("64MiB"), 67_108_864n)
    assert.strictEqual(bytes("64Mi"), 67_108_864n)
    assert.strictEqual(bytes("64M"), 67_108_864n)
    assert.strictEqual(bytes("64m"), 67_108_864n)
    assert.strictEqual(bytes("64MB"), 64_000_000n)
    assert.strictEqual(bytes("1.5 GiB"), 1_610_612_736n)
    assert.strictEqual(bytes("512"), 512n)
    assert.strictEqual(bytes("1KB"), 1000n)
  })

  it("says what would have been right", () => {
    assert.include(bytes("64 elephants"), "a size such as")
    assert.include(bytes("1.5"), "a whole number of bytes")
    assert.include(bytes("-1"), "a size such as")
    assert.include(bytes("9000PiB"), "at most 8EiB")
  })

  it.effect.prop("reads back what it prints, but for the rounding", { n: natural(Number.MAX_SAFE_INTEGER) }, ({ n }) =>
    Effect.sync(() => {
      const text = HumanText.size(n)
      const unit = bytes(`1${/[A-Za-z]+$/.exec(text)?.[0] ?? "B"}`)
      const back = Result.getOrUndefined(parseBytes(text))
      // a printed decimal such as 4.7MiB need not be a whole number of bytes: then it is refused, not rounded
      if (back === undefined || typeof unit !== "bigint") return
      const difference = back > BigInt(n) ? back - BigInt(n) : BigInt(n) - back
      assert.isTrue(difference <= unit, `${n} was printed as ${text}`)
    })
  )
})

describe("spans", () => {
  it("shows at most two units, rounded down", () => {
    assert.deepStrictEqual(
      [0, 350, 12_000, 119_999, 185_000, 7_980_000, 18_000_000, 41 * 86_400_000 + 6 * 3_600_000, -5].map(
        HumanText.span
      ),
      ["0s", "350ms", "12s", "1m59s", "3m5s", "2h13m", "5h", "41d6h", "0s"]
    )
    assert.deepStrictEqual([500, 1250, 59_990, 90_000].map(HumanText.shortSpan), ["500ms", "1.2s", "59.9s", "1m30s"])
  })
})
