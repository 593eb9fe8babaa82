/** How many processes containers may have. */
import { assert, describe, it } from "@effect/vitest"
import { within } from "../../src/runtime/ProcessLimits.ts"

describe("the limits of processes", () => {
  it("leave a quarter of what the kernel can have to the host, however small it is", () => {
    assert.deepStrictEqual(within(100_000), { all: 75_000, each: 4096 })
    assert.deepStrictEqual(within(5_800), { all: 4_350, each: 2_175 })
  })
})
