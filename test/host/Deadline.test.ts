/** A deadline that holds for what hangs where it cannot be interrupted. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import { within } from "../../src/host/Deadline.ts"

const late = { duration: "500 millis", orElse: () => Effect.succeed("too late") } as const

describe("a deadline", () => {
  it.effect("lets what is in time answer, and fail", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* within(Effect.succeed("in time"), late), "in time")
      assert.strictEqual(yield* Effect.flip(within(Effect.fail("wrong"), late)), "wrong")
    })
  )

  it.effect("does not wait for an acquisition that hangs; what it got in the end is given back", () =>
    Effect.gen(function* () {
      const answer = yield* Deferred.make<void>()
      const released = yield* Deferred.make<void>()
      let used = false
      const hangs = Effect.scoped(
        Effect.andThen(
          Effect.acquireRelease(Deferred.await(answer), () => Deferred.succeed(released, undefined)),
          Effect.sync(() => {
            used = true
            return "used"
          })
        )
      )
      const fiber = yield* Effect.forkChild(within(hangs, late))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), "too late")
      yield* Deferred.succeed(answer, undefined)
      yield* Deferred.await(released)
      assert.isFalse(used)
    })
  )

  it.effect("ends what it times when it is interrupted itself", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const ended = yield* Deferred.make<void>()
      const timed = Effect.onInterrupt(Effect.andThen(Deferred.succeed(started, undefined), Effect.never), () =>
        Deferred.succeed(ended, undefined)
      )
      const fiber = yield* Effect.forkChild(within(timed, late))
      yield* Deferred.await(started)
      yield* Fiber.interrupt(fiber)
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(Deferred.await(ended))))
    })
  )
})
