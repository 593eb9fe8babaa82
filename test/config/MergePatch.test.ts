/** JSON Merge Patch: the cases of RFC 7396, and that a difference leads from one document to the other. */
import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { apply, diff, equals, type Json } from "../../src/config/MergePatch.ts"

/** Original, patch, result: appendix A of the RFC. */
const cases: ReadonlyArray<readonly [original: Json, patch: Json, result: Json]> = [
  [{ a: "b" }, { a: "c" }, { a: "c" }],
  [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
  [{ a: "b" }, { a: null }, {}],
  [{ a: "b", b: "c" }, { a: null }, { b: "c" }],
  [{ a: ["b"] }, { a: "c" }, { a: "c" }],
  [{ a: "c" }, { a: ["b"] }, { a: ["b"] }],
  [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
  [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
  [
    ["a", "b"],
    ["c", "d"],
    ["c", "d"]
  ],
  [{ a: "b" }, ["c"], ["c"]],
  [{ a: "foo" }, null, null],
  [{ a: "foo" }, "bar", "bar"],
  [{ e: null }, { a: 1 }, { e: null, a: 1 }],
  [[1, 2], { a: "b", c: null }, { a: "b" }],
  [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }]
]

// Few names, so that members meet; no null, which no patch can reach.
const Leaf = Schema.Union([Schema.Int, Schema.String, Schema.Boolean, Schema.Array(Schema.Int)])
const level = <S extends Schema.Top>(inner: S) =>
  Schema.Struct({
    a: Schema.optionalKey(inner),
    b: Schema.optionalKey(inner),
    "c.d": Schema.optionalKey(inner)
  })
const Documents = level(Schema.Union([Leaf, level(Schema.Union([Leaf, level(Leaf)]))]))

describe("a merge patch", () => {
  for (const [original, patch, result] of cases) {
    it(`${JSON.stringify(patch)} makes ${JSON.stringify(result)} of ${JSON.stringify(original)}`, () => {
      assert.deepStrictEqual(apply(original, patch), result)
    })
  }

  it.prop("the difference of two documents makes the one of the other", [Documents, Documents], ([before, after]) => {
    const patch = diff(before, after)
    assert.deepStrictEqual(patch === undefined ? before : apply(before, patch), after)
    assert.strictEqual(patch === undefined, equals(before, after))
  })

  it.prop("a document differs in nothing from itself, whatever the order of its members", [Documents], ([document]) => {
    const turned = Object.fromEntries(Object.entries(document).toReversed())
    assert.isUndefined(diff(document, turned))
  })

  it("knows no special members", () => {
    const patch: Json = JSON.parse('{"__proto__": {"polluted": true}, "constructor": 1}')
    const result = apply({ a: 1 }, patch)
    assert.deepStrictEqual(Object.keys(Object(result)).toSorted(), ["__proto__", "a", "constructor"])
    assert.notProperty({}, "polluted")
  })
})
