/** What can be wrong with the names of containers that a container needs. */
import { assert, describe, it } from "@effect/vitest"
import { fallbackProblems, problemsOf } from "../../src/runtime/Dependencies.ts"

const needs = (given: {
  readonly after?: ReadonlyArray<string>
  readonly afterSuccess?: ReadonlyArray<string>
  readonly requires?: ReadonlyArray<string>
  readonly bindsTo?: ReadonlyArray<string>
  readonly permanent?: boolean
}) => ({ after: [], afterSuccess: [], requires: [], bindsTo: [], permanent: true, ...given })

const others = {
  siblings: new Map([
    ["db", needs({})],
    ["cache", needs({ after: ["db"], bindsTo: ["web"] })]
  ]),
  sandboxOf: (name: string) => (name === "lonely" ? "lonely" : undefined)
}

describe("the needs of a container", () => {
  it("are fine when everybody is there", () => {
    assert.deepStrictEqual(problemsOf({ name: "app", ...needs({ after: ["db"], requires: ["cache"] }) }, others), [])
  })

  it("tell every name that is wrong, with its field and why", () => {
    const wrong = needs({ after: ["app", "db"], requires: ["nobody"], bindsTo: ["db", "lonely"] })
    assert.deepStrictEqual(problemsOf({ name: "app", ...wrong }, others), [
      { field: "after[0]", problem: "names the container itself" },
      {
        field: "requires[0]",
        problem: 'no container of its sandbox is named "nobody": create that one first'
      },
      {
        field: "bindsTo[1]",
        problem:
          '"lonely" is in the sandbox "lonely", and only containers of one sandbox can need each other: put both into one'
      }
    ])
  })

  it("cannot be the success of one that is always started again", () => {
    const siblings = new Map([
      ["server", needs({})],
      ["setup", needs({ permanent: false })]
    ])
    const app = { name: "app", ...needs({ afterSuccess: ["setup", "server"] }) }
    assert.deepStrictEqual(problemsOf(app, { ...others, siblings }), [
      {
        field: "afterSuccess[1]",
        problem: '"server" never finishes, since its policy is permanent: make that transient or temporary'
      }
    ])
  })

  it("may not go round, over however many", () => {
    assert.deepStrictEqual(problemsOf({ name: "web", ...needs({ requires: ["db", "cache"] }) }, others), [
      { field: "requires[1]", problem: "goes round in a circle: web → cache → web" }
    ])
  })
})

describe("the fallback of a policy", () => {
  const there = new Set(["web", "sorry"])
  it("is another container of the sandbox", () => {
    assert.deepStrictEqual(fallbackProblems("web", undefined, there), [])
    assert.deepStrictEqual(fallbackProblems("web", "sorry", there), [])
    assert.deepStrictEqual(fallbackProblems("web", "web", there), [
      { field: "restart.fallback", problem: "names the container itself" }
    ])
    assert.deepStrictEqual(fallbackProblems("web", "later", there), [
      { field: "restart.fallback", problem: 'no container of its sandbox is named "later": create that one first' }
    ])
  })
})
