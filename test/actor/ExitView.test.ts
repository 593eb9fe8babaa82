/** What of a failure becomes data: the facts that restart policies match on, and its causes, whatever a failure claims. */
import { assert, describe, it } from "@effect/vitest"
import * as Exit from "effect/Exit"
import * as ActorPath from "../../src/actor/ActorPath.ts"
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

describe("causes of an exit", () => {
  const causesOf = (error: unknown) => ExitView.fromExit(0, Exit.fail(error), false).causes
  const own = new Error("cannot read it", { cause: { _tag: "Corrupt", message: "bad page", cause: "EIO" } })

  it("are followed to what began it", () => {
    assert.isUndefined(causesOf(new Error("of itself")))
    assert.deepStrictEqual(causesOf(own), [
      { tag: "Corrupt", message: "bad page" },
      { tag: "string", message: "EIO" }
    ])
  })

  it("lead on to another actor's end where that was the cause", () => {
    const path = ActorPath.root("init")
    const exit = ExitView.fromExit(0, Exit.fail(own), false)
    const causes = causesOf({ _tag: "GaveUp", message: "", causedBy: { path, exit } })
    assert.deepStrictEqual(causes?.[0], { path, tag: "Error", message: "cannot read it" })
    assert.lengthOf(causes ?? [], 3)
    assert.isUndefined(causesOf({ causedBy: { path: "", exit } }))
    assert.isUndefined(causesOf({ causedBy: "me" }))
  })

  it("that go round, or have no end, are cut", () => {
    const round: { cause: unknown } = { cause: undefined }
    round.cause = round
    assert.lengthOf(causesOf(round) ?? [], ExitView.CAUSES_LIMIT)
  })
})
