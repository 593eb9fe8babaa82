/** When the brain asks for a collection: idle, and with something to give back. */
import { assert, describe, it } from "@effect/vitest"
import { worthCollecting } from "../src/IdleCollection.ts"

const mebibyte = 1024 * 1024

describe("IdleCollection", () => {
  it("collects what a burst has left", () => {
    assert.isTrue(worthCollecting({ utilization: 0.01, used: 34 * mebibyte, floor: 16 * mebibyte }))
  })

  it("leaves a busy brain alone", () => {
    assert.isFalse(worthCollecting({ utilization: 0.3, used: 34 * mebibyte, floor: 16 * mebibyte }))
  })

  it("leaves a heap alone that has not grown", () => {
    assert.isFalse(worthCollecting({ utilization: 0, used: 17 * mebibyte, floor: 16 * mebibyte }))
  })
})
