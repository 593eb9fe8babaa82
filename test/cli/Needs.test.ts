/** The order in which containers of spec files are made. */
import { assert, describe, it } from "@effect/vitest"
import * as Manifest from "../../src/cli/Manifest.ts"
import * as Needs from "../../src/cli/Needs.ts"

const container = (name: string, more = "", sandbox = "pod") =>
  `kind: Container\nname: ${name}\nimage: hello\nsandbox: ${sandbox}\n${more}\n`

const objects = (...texts: ReadonlyArray<string>) => Manifest.parse(texts.join("---\n"), "a.yaml").objects

describe("containers of spec files", () => {
  it("are made after those that they need, else as they stand", () => {
    const all = objects(
      container("app", "requires: [cache]\nafter: [db]"),
      container("first"),
      container("cache", "binds_to: [db]"),
      container("db")
    )
    assert.deepStrictEqual(
      Needs.inOrder(all).map(({ name }) => name),
      ["db", "cache", "app", "first"]
    )
  })

  it("that need each other in a circle stay in some order", () => {
    const all = objects(container("a", "after: [b]"), container("b", "requires: [other, a]"))
    assert.deepStrictEqual(
      Needs.inOrder(all).map(({ name }) => name),
      ["b", "a"]
    )
  })
})
