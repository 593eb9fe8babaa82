/** Exits as they are stored and as people read them. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { describe as say, isSuccess, notExecutedMessage, ProcessExit } from "../../src/taproot/ProcessExit.ts"

const usage = { time: 1_700_000_000_123_456_789n, userMicroseconds: 1, systemMicroseconds: 2, maxRssKib: 3 }
const message = notExecutedMessage("exec", 2)

const exits: ReadonlyArray<readonly [ProcessExit, string]> = [
  [{ _tag: "Exited", code: 0, ...usage }, "exited with code 0"],
  [{ _tag: "Exited", code: 3, ...usage }, "exited with code 3"],
  [{ _tag: "Signaled", signal: "SIGSEGV", number: 11, coreDumped: true, ...usage }, "killed by SIGSEGV (core dumped)"],
  [
    { _tag: "NotExecuted", stage: "exec", errno: 2, message, ...usage },
    "could not be executed: exec failed (ENOENT, no such file or directory)"
  ]
]

describe("ProcessExit", () => {
  it.effect("survives storage as JSON, nanoseconds included", () =>
    Effect.forEach(exits, ([exit]) =>
      Effect.gen(function* () {
        const json = Schema.fromJsonString(Schema.toCodecJson(ProcessExit))
        const stored = yield* Schema.encodeEffect(json)(exit)
        assert.deepStrictEqual(yield* Schema.decodeEffect(json)(stored), exit)
      })
    )
  )

  it("reads as one line, and only code 0 is a success", () => {
    for (const [exit, line] of exits) assert.strictEqual(say(exit), line)
    assert.deepStrictEqual(
      exits.map(([exit]) => isSuccess(exit)),
      [true, false, false, false]
    )
    assert.include(notExecutedMessage("cgroup", 9999), "errno 9999")
  })
})
