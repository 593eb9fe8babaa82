/** Pages of lists: nothing lost, nothing twice, tokens tied to their filter. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { SayResponseSchema } from "../../proto/generated/ironwood/test/v1/echo_pb.ts"
import { hasLabels, pageBy, resourceLimits, sizeOf } from "../../src/gateway/Page.ts"
import type { ListOf } from "../../src/gateway/Page.ts"

/** A list of texts. */
const ofTexts: ListOf<string, typeof SayResponseSchema> = {
  schema: SayResponseSchema,
  toProto: (text) => ({ text }),
  key: (text) => text
}

/** All pages of a list, one after another; `between` may change the list before each next one. */
const allPages = Effect.fnUntraced(function* (
  initial: ReadonlyArray<string>,
  pageSize: number,
  between: (list: ReadonlyArray<string>, pages: number) => ReadonlyArray<string> = (list) => list
) {
  const pages: Array<ReadonlyArray<string>> = []
  let pageToken = ""
  let list = initial
  do {
    const { nextPageToken, page } = yield* pageBy("things", {}, { pageSize, pageToken }, list, ofTexts)
    pages.push(page.map(({ text }) => text))
    pageToken = nextPageToken
    list = between(list, pages.length)
  } while (pageToken !== "")
  return pages
})

const Keys = Schema.UniqueArray(Schema.String.pipe(Schema.check(Schema.isMaxLength(6))))
const PageSize = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 12 })))
const sorted = (keys: ReadonlyArray<string>) => keys.toSorted((one, other) => (one < other ? -1 : 1))

describe("Page", () => {
  it.effect.prop("pages add up to the list", { keys: Keys, pageSize: PageSize }, ({ keys, pageSize }) =>
    Effect.gen(function* () {
      const pages = yield* allPages(keys, pageSize)
      assert.deepStrictEqual(pages.flat(), sorted(keys))
      for (const page of pages) assert.isAtMost(page.length, pageSize)
      assert.strictEqual(pages.length, Math.max(1, Math.ceil(keys.length / pageSize)))
    })
  )

  it.effect.prop("what stays in a changing list comes exactly once", { keys: Keys }, ({ keys }) =>
    Effect.gen(function* () {
      const staying = keys.filter((_, index) => index % 3 !== 0)
      const pages = yield* allPages(keys, 3, (list, count) => (count === 2 ? staying : list))
      const seen = pages.flat()
      assert.strictEqual(new Set(seen).size, seen.length)
      for (const key of staying) assert.include(seen, key)
    })
  )

  it.effect("a token is good for one list with one filter", () =>
    Effect.gen(function* () {
      const list = ["a", "b", "c"]
      const get = (name: string, filters: Record<string, string>, pageToken: string) =>
        Effect.map(pageBy(name, filters, { pageSize: 1, pageToken }, list, ofTexts), ({ nextPageToken, page }) => ({
          nextPageToken,
          page: page.map(({ text }) => text)
        }))
      const { nextPageToken } = yield* get("one", { label: "x" }, "")
      assert.deepStrictEqual((yield* get("one", { label: "x" }, nextPageToken)).page, ["b"])
      for (const [name, label, token] of [
        ["other", "x", nextPageToken],
        ["one", "y", nextPageToken],
        ["one", "x", "rubbish"],
        ["one", "x", Buffer.from("[1]").toString("base64url")]
      ] as const) {
        const error = yield* Effect.flip(get(name, { label }, token))
        assert.strictEqual(error.violations[0]?.field, "page_token")
      }
    })
  )

  it.effect("the order of a map in the request does not matter", () =>
    Effect.gen(function* () {
      const get = (labels: Record<string, string>, pageToken: string) =>
        pageBy("one", { labels }, { pageSize: 1, pageToken }, ["a", "b"], ofTexts)
      const { nextPageToken } = yield* get({ x: "1", y: "2" }, "")
      assert.strictEqual((yield* get({ y: "2", x: "1" }, nextPageToken)).page[0]?.text, "b")
    })
  )

  it.effect("no page is larger than clients take, and none is empty", () =>
    Effect.gen(function* () {
      const large = Array.from({ length: 9 }, (_, index) => `${index}${"x".repeat(index === 4 ? 2_000_000 : 300_000)}`)
      const pages = yield* allPages(large, 9)
      assert.deepStrictEqual(
        pages.map((page) => page.length),
        [3, 1, 1, 3, 1]
      )
      assert.deepStrictEqual(pages.flat(), large)
    })
  )

  it("sizes and labels", () => {
    assert.deepStrictEqual(
      [0, 7, 5_000].map((asked) => sizeOf(asked, resourceLimits)),
      [100, 7, 1_000]
    )
    assert.isTrue(hasLabels({ a: "1", b: "2" }, { a: "1" }))
    assert.isTrue(hasLabels({}, {}))
    assert.isFalse(hasLabels({ a: "1" }, { a: "2" }))
    assert.isFalse(hasLabels({}, { a: "" }))
  })
})
