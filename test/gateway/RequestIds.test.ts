/** A request id carries a call out once, however often and however concurrently it comes. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { makeOnce } from "../../src/gateway/RequestIds.ts"

/** A call that counts how often it is carried out. */
const counting = () => {
  let count = 0
  return Effect.sync(() => (count += 1))
}

describe("RequestIds", () => {
  it.effect("a repeated call is carried out once, and for ten minutes", () =>
    Effect.gen(function* () {
      const once = makeOnce<number>()
      const call = counting()
      assert.strictEqual(yield* once("a", "x", call), 1)
      assert.strictEqual(yield* once("a", "x", call), 1)
      assert.strictEqual(yield* once("b", "x", call), 2)
      assert.strictEqual(yield* once("", "x", call), 3)
      assert.strictEqual(yield* once("", "x", call), 4)
      yield* TestClock.adjust("11 minutes")
      assert.strictEqual(yield* once("a", "x", call), 5)
    })
  )

  it.effect("a call under way is waited for", () =>
    Effect.gen(function* () {
      const once = makeOnce<number>()
      const gate = yield* Deferred.make<void>()
      const call = Effect.andThen(Deferred.await(gate), counting())
      const first = yield* Effect.forkChild(once("a", "x", call))
      const second = yield* Effect.forkChild(once("a", "x", call))
      yield* Effect.yieldNow
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second)], [1, 1])
    })
  )

  it.effect("one that waits takes over when the first is interrupted or fails", () =>
    Effect.gen(function* () {
      const once = makeOnce<number>()
      const call = counting()
      const first = yield* Effect.forkChild(once("a", "x", Effect.never))
      yield* Effect.yieldNow
      const second = yield* Effect.forkChild(once("a", "x", call))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(first)
      assert.strictEqual(yield* Fiber.join(second), 1)
      assert.strictEqual(yield* Effect.flip(once("b", "x", Effect.fail("no"))), "no")
      assert.strictEqual(yield* once("b", "x", call), 2)
    })
  )

  it.effect("an id with another request, or too long an id, is refused", () =>
    Effect.gen(function* () {
      const once = makeOnce<number>()
      yield* once("a", "x", counting())
      for (const refused of [once("a", "y", counting()), once("a".repeat(129), "x", counting())]) {
        assert.strictEqual((yield* Effect.flip(refused)).violations[0]?.field, "request_id")
      }
    })
  )

  it.effect("what is remembered is bounded", () =>
    Effect.gen(function* () {
      const once = makeOnce<number>()
      const call = counting()
      yield* once("first", "x", call)
      for (let index = 0; index <= 10_000; index++) yield* once(String(index), "x", Effect.succeed(0))
      assert.strictEqual(yield* once("first", "x", call), 2)
    })
  )
})
