/** When the brain asks for a collection: idle, and with something to give back. */
import { assert, describe, it } from "@effect/vitest"
import { worthCollecting } from "../src/IdleCollection.ts"

const mebibyte = 1024 * 1024

/** An idle brain right after a collection, which has left nothing to do. */
const rest = { utilization: 0.01, used: 16 * mebibyte, floor: 16 * mebibyte, holes: mebibyte, collected: true }

describe("IdleCollection", () => {
  it("collects what a burst has left", () => {
    assert.strictEqual(worthCollecting({ ...rest, used: 34 * mebibyte, collected: false }), "grown")
  })

  it("closes the holes that this has left, once", () => {
    assert.strictEqual(worthCollecting({ ...rest, holes: 7 * mebibyte }), "holes")
    assert.isUndefined(worthCollecting({ ...rest, holes: 7 * mebibyte, collected: false }))
  })

  it("leaves a busy brain alone", () => {
    const busy = { ...rest, utilization: 0.3, holes: 7 * mebibyte }
    assert.isUndefined(worthCollecting(busy))
    assert.isUndefined(worthCollecting({ ...busy, used: 34 * mebibyte }))
  })

  it("leaves a heap alone that has not grown", () => {
    assert.isUndefined(worthCollecting({ ...rest, used: 17 * mebibyte }))
  })
})
