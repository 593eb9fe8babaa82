/** Keys that leave, wherever the pieces of input begin and end. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { untilDetached } from "../../src/cli/Interactive.ts"

const run = (...pieces: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    let passed = ""
    const left = yield* untilDetached(Stream.fromIterable(pieces.map((piece) => Buffer.from(piece)))).pipe(
      Stream.runForEach((bytes) => Effect.sync(() => void (passed += Buffer.from(bytes).toString()))),
      Effect.as(false),
      Effect.catchTag("Detached", () => Effect.succeed(true))
    )
    return [passed, left]
  })

describe("the keys to detach", () => {
  it.effect("leave, also in two pieces; alone they are keys like others", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* run("ab", "c"), ["abc", false])
      assert.deepStrictEqual(yield* run("ab\x10\x11cd"), ["ab", true])
      assert.deepStrictEqual(yield* run("ab\x10", "\x11cd"), ["ab", true])
      assert.deepStrictEqual(yield* run("\x10", "\x10", "\x11"), ["\x10", true])
      assert.deepStrictEqual(yield* run("\x10", "x\x11"), ["\x10x\x11", false])
    })
  )
})
