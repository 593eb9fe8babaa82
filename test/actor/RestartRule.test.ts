/** Which exits a rule is about, and how it calls them. */
import { assert, describe, it } from "@effect/vitest"
import type { ExitView } from "../../src/actor/ExitView.ts"
import * as RestartRule from "../../src/actor/RestartRule.ts"

const exit = (change: Partial<ExitView> = {}): ExitView => ({
  at: 0,
  class: "failure",
  tag: "ContainerExited",
  message: "",
  detail: "",
  beforeReady: false,
  ...change
})
const matches = (on: RestartRule.Match, change: Partial<ExitView> = {}) => RestartRule.matches(on, exit(change))

describe("a match", () => {
  it("of a list wants one, of conditions all", () => {
    assert.isTrue(matches({ tags: ["A", "ContainerExited"] }))
    assert.isFalse(matches({ tags: ["A"] }))
    assert.isTrue(matches({ classes: ["defect", "failure"], exitCodes: [1, 2] }, { facts: { exitCode: 2 } }))
    assert.isFalse(matches({ classes: ["defect"], exitCodes: [1, 2] }, { facts: { exitCode: 2 } }))
  })
  it("of facts does not hold where they are not known", () => {
    for (const on of [{ exitCodes: [1] }, { signals: ["SIGKILL"] }, { outOfMemory: true }, { probeFailed: true }]) {
      assert.isFalse(matches(on))
    }
    assert.isTrue(matches({ signals: ["SIGTERM", "SIGKILL"] }, { facts: { signal: "SIGKILL" } }))
    assert.isTrue(matches({ outOfMemory: true }, { facts: { outOfMemory: true } }))
    assert.isTrue(matches({ probeFailed: true }, { facts: { probe: "liveness" } }))
  })
  it("can exclude", () => {
    assert.isTrue(matches({ outOfMemory: false }))
    assert.isFalse(matches({ outOfMemory: false }, { facts: { outOfMemory: true } }))
    assert.isTrue(matches({ probeFailed: false, classes: ["failure"] }))
  })
  it("takes a normal end for exit code 0", () => {
    assert.isTrue(matches({ exitCodes: [0] }, { class: "normal", tag: "Normal" }))
    assert.isFalse(matches({ exitCodes: [1] }, { class: "normal", tag: "Normal" }))
  })
})

it("a rule is named by its number and its condition", () => {
  const name = (on: RestartRule.Match) => RestartRule.name(1, new RestartRule.Rule({ on }))
  assert.strictEqual(name({ outOfMemory: true }), "rule 2 (out of memory)")
  assert.strictEqual(
    name({ tags: ["A", "B"], exitCodes: [1, 2], signals: ["SIGKILL"] }),
    "rule 2 (A or B, exit code 1 or 2, SIGKILL)"
  )
})
