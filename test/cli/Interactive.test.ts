/** Keys that leave, wherever the pieces of input begin and end. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Result from "effect/Result"
import { parseDetachKeys, usualKeys } from "../../src/cli/DetachKeys.ts"
import { untilDetached } from "../../src/cli/Interactive.ts"

const run = (...pieces: ReadonlyArray<string>) => runWith(usualKeys, ...pieces)

const runWith = (keys: ReadonlyArray<number>, ...pieces: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    let passed = ""
    const left = yield* untilDetached(Stream.fromIterable(pieces.map((piece) => Buffer.from(piece))), keys).pipe(
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

  it.effect("are those that were asked for, any number of them", () =>
    Effect.gen(function* () {
      const keys = (text: string) => Result.getOrElse(parseDetachKeys(text), () => [])
      assert.deepStrictEqual(keys("ctrl-p,ctrl-q"), usualKeys)
      assert.deepStrictEqual(keys("ctrl-x,x"), [24, 120])
      assert.deepStrictEqual([keys("ctrl-"), keys(""), keys("ctrl-p,"), keys("xy")], [[], [], [], []])
      assert.deepStrictEqual(yield* runWith(keys("ctrl-x,x"), "a\x18", "xb"), ["a", true])
      assert.deepStrictEqual(yield* runWith(keys("a,b,c"), "xa", "b", "abc"), ["xab", true])
      assert.deepStrictEqual(yield* runWith(keys("a,a,b"), "aaa", "b"), ["a", true])
      assert.deepStrictEqual(yield* runWith(keys("q"), "\x10\x11", "aqb"), ["\x10\x11a", true])
    })
  )
})
