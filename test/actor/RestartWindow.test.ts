/** What budgets count: sliding and tumbling windows. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import { windowOf } from "../../src/actor/internal/RestartWindow.ts"
import { Budget } from "../../src/actor/RestartPolicy.ts"

const within = Duration.seconds(10)

describe("a sliding window", () => {
  it("counts the restarts of the last so many milliseconds, no starts, and not more than its limit", () => {
    const window = windowOf(new Budget({ restarts: 2, within }))
    window.started(0)
    assert.strictEqual(window.count(0), 0)
    for (const at of [1_000, 2_000, 3_000]) window.record(at)
    assert.deepStrictEqual(window.times(3_000), [2_000, 3_000])
    assert.strictEqual(window.count(11_999), 2)
    assert.strictEqual(window.count(12_000), 1)
  })
})

describe("a tumbling window", () => {
  it("opens with a start, which counts, and is over after its time", () => {
    const window = windowOf(new Budget({ restarts: 3, within, window: "tumbling" }))
    assert.strictEqual(window.count(5_000), 0)
    window.started(5_000)
    window.record(9_000)
    assert.strictEqual(window.count(15_000), 2)
    assert.deepStrictEqual(window.times(15_000), [5_000, 5_000])
    // The start that the decision is about lies behind the window's end.
    assert.strictEqual(window.count(14_900, 200), 0)
    window.record(14_900, 200)
    assert.strictEqual(window.count(25_100), 1)
    assert.strictEqual(window.count(25_101), 0)
  })
})
