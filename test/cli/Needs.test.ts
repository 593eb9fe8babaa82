/** What containers of spec files need of each other: the order to make them in, circles, what is missing. */
import { assert, describe, it } from "@effect/vitest"
import * as Manifest from "../../src/cli/Manifest.ts"
import * as Needs from "../../src/cli/Needs.ts"

const container = (name: string, more = "", sandbox = "pod") =>
  `kind: Container\nname: ${name}\nimage: hello\nsandbox: ${sandbox}\n${more}\n`

const objects = (...texts: ReadonlyArray<string>) => Manifest.parse(texts.join("---\n"), "a.yaml").objects

const specOf = (object: Manifest.ManifestObject | undefined) => {
  assert(object?.kind === "Container")
  return object.spec
}

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

  it("that need each other in a circle are told, each circle once, with its line", () => {
    const all = objects(
      container("a", "after: [b]"),
      container("b", "requires: [other, c]"),
      container("c", "bindsTo: [a]"),
      container("d", "requires: [a]")
    )
    assert.deepStrictEqual(Needs.problems(all).map(Manifest.formatProblem), [
      "a.yaml:17: bindsTo[0]: goes round in a circle: a → b → c → a"
    ])
    assert.lengthOf(Needs.inOrder(all), 4)
  })

  it("bring along whom another needs when it is in the same sandbox", () => {
    const all = objects(
      container("app", "requires: [db, missing, far]\nafter: [app]"),
      container("db"),
      container("far", "", "elsewhere")
    )
    const app = specOf(all[0])
    assert.deepStrictEqual(
      Needs.unmet(all, app).map(({ field, name, path }) => [field, path, name]),
      [
        ["spec.after[0]", "after[0]", "app"],
        ["spec.requires[1]", "requires[1]", "missing"]
      ]
    )
    assert.deepStrictEqual(Needs.withoutMet(all, app).requires, ["missing"])
    // what the files themselves show to be impossible needs no server
    assert.deepStrictEqual(Needs.problems(all).map(Manifest.formatProblem), [
      'a.yaml:5: requires[2]: "far" (a.yaml:14) is in another sandbox, and only containers of one sandbox can need each other: put both into one'
    ])
  })
})
