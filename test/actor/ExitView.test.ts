/** What of a failure becomes data: the facts that restart policies match on, whatever a failure claims. */
import { assert, describe, it } from "@effect/vitest"
import * as Exit from "effect/Exit"
import * as ExitView from "../../src/actor/ExitView.ts"

const factsOf = (error: unknown) => ExitView.fromExit(0, Exit.fail(error), false).facts

describe("facts of an exit", () => {
  it("are taken one by one, and only of the right shape", () => {
    assert.deepStrictEqual(factsOf({ exitFacts: { probe: "liveness", exitCode: "7", signal: 9, outOfMemory: 1 } }), {
      probe: "liveness"
    })
    for (const wrong of [{ exitCode: 256 }, { exitCode: 1.5 }, { exitCode: -1 }, {}, null, "SIGKILL", { signal: "" }]) {
      assert.isUndefined(factsOf({ exitFacts: wrong }))
    }
    assert.isUndefined(factsOf("text"))
    assert.strictEqual(factsOf({ exitFacts: { signal: "S".repeat(1_000) } })?.signal?.length, 32)
  })
})
