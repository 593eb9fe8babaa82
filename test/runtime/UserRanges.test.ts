/** Which users of the host sandboxes get. */
import { assert, describe, it } from "@effect/vitest"
import * as UserRanges from "../../src/runtime/UserRanges.ts"
import { COUNT } from "../../src/taproot/IdMap.ts"

const none: ReadonlySet<number> = new Set()
const first = 29_145 * COUNT
const last = 2 ** 31 - COUNT

describe("ranges of users", () => {
  it("begin somewhere else for each Ironwood of a host, where there are many more", () => {
    const starts = Array.from({ length: 200 }, (_, index) => UserRanges.startOf(`/ironwood-${index}`))
    assert.deepStrictEqual(
      starts.filter((start) => start < first || start % COUNT !== 0 || start > last - 500 * COUNT),
      []
    )
    assert.isAbove(new Set(starts).size, 180)
    assert.strictEqual(UserRanges.startOf("/ironwood-1"), starts[1], "the same one always begins there")
  })

  it("are given away one after another, from the lowest again after the last, and none twice", () => {
    const start = last - COUNT
    const taken = new Set<number>()
    const given = Array.from({ length: 4 }, () => {
      const range = UserRanges.lowestFree(taken, none, start)
      if (range !== undefined) taken.add(range)
      return range
    })
    assert.deepStrictEqual(given, [start, last, first, first + COUNT])
    // as any of which something runs, which nobody here knows of
    assert.strictEqual(UserRanges.lowestFree(none, new Set([start, last + 4711]), start), first)
    const all = new Set(Array.from({ length: (last - first) / COUNT + 1 }, (_, index) => first + index * COUNT))
    assert.isUndefined(UserRanges.lowestFree(all, none, start))
  })
})
