/** When it is told that a container has too many processes, under a clock of the test's own. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { TestClock } from "effect/testing"
import { Cgroups } from "../../src/host/Cgroups.ts"
import * as Crowding from "../../src/runtime/Crowding.ts"

/** Follows a cgroup of which only its refused forks are known; `refuse` makes some, and says so as the kernel does. */
const begin = Effect.gen(function* () {
  const told: Array<string> = []
  let [refused, looks] = [0, 0]
  let watcher: (() => void) | undefined
  const cgroups = yield* Effect.service(Cgroups).pipe(
    Effect.provide(
      Layer.mock(Cgroups, {
        refusedForks: () =>
          Effect.sync(() => {
            looks++
            return refused
          }),
        onRefusedForks: (_, changed) =>
          Effect.asVoid(
            Effect.acquireRelease(
              Effect.sync(() => (watcher = changed)),
              () => Effect.sync(() => (watcher = undefined))
            )
          )
      })
    )
  )
  yield* Crowding.follow(cgroups, "/web", 64, (why) => told.push(why))
  const refuse = (more: number): void => {
    refused += more
    watcher?.()
  }
  return { told, refuse, looks: () => looks, isWatched: () => watcher !== undefined }
})

const words = (forks: number): string =>
  `it has as many processes as it may (64): ${forks} ${forks === 1 ? "fork was" : "forks were"} refused`

describe("Crowding", () => {
  it.effect("looks once and then waits for the kernel", () =>
    Effect.gen(function* () {
      const { looks, told } = yield* begin
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(looks(), 1)
      assert.deepStrictEqual(told, [])
    })
  )

  it.effect("tells what was refused before anybody looked", () =>
    Effect.gen(function* () {
      const { refuse, told } = yield* begin
      refuse(1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(told, [words(1)])
    })
  )

  it.effect("tells of more once a second, and that it is over when there were none for half a minute", () =>
    Effect.gen(function* () {
      const { looks, refuse, told } = yield* begin
      yield* TestClock.adjust("10 seconds")
      refuse(2)
      yield* TestClock.adjust("100 millis")
      for (let round = 0; round < 100; round++) refuse(1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(told, [words(2), words(102)])
      yield* TestClock.adjust("25 seconds")
      assert.strictEqual(told.length, 2)
      yield* TestClock.adjust("6 seconds")
      assert.deepStrictEqual(told.slice(2), [""])
      const before = looks()
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(looks(), before)
      refuse(1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(told.slice(3), [words(103)])
    })
  )

  it.effect("stops looking with its scope", () =>
    Effect.gen(function* () {
      const { isWatched } = yield* Effect.scoped(
        Effect.gen(function* () {
          const followed = yield* begin
          yield* TestClock.adjust("2 seconds")
          assert.isTrue(followed.isWatched())
          return followed
        })
      )
      assert.isFalse(isWatched())
    })
  )
})
