/** A step that follows a setting: done again when something else is wanted, and what came of it is reported. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { dependenciesIn, kernelName } from "../../src/host/KernelModules.ts"
import type { Setting } from "../../src/host/Setting.ts"
import { following, StepFailed } from "../../src/host/Step.ts"

/** A setting of a number that a test changes. */
const makeSetting = () => {
  let value = 1
  let next = Deferred.makeUnsafe<void>()
  const reports: Array<readonly [unknown, string]> = []
  const setting: Setting<number> = {
    current: Effect.sync(() => value),
    changed: (seen) => Effect.suspend(() => (value === seen ? Deferred.await(next) : Effect.void)),
    report: (seen, problem) => Effect.sync(() => void reports.push([seen, problem]))
  }
  const change = (wanted: number) =>
    Effect.suspend(() => {
      value = wanted
      const before = next
      next = Deferred.makeUnsafe<void>()
      return Effect.asVoid(Deferred.succeed(before, undefined))
    })
  return { setting, reports, change }
}

describe("a step that follows a setting", () => {
  it.effect("does what is wanted, again when that changes, and tells what came of it", () =>
    Effect.gen(function* () {
      const { change, reports, setting } = makeSetting()
      const done: Array<number> = []
      const step = following("it", { description: "", deadline: "10 seconds" }, setting, (wanted) =>
        Effect.gen(function* () {
          done.push(wanted)
          if (wanted === 3) return yield* new StepFailed({ step: "it", problem: "not three" })
          if (wanted === 4) return yield* Effect.never
          return wanted === 1
            ? { facts: { first: "yes" }, again: "1 hour" }
            : { facts: { wanted: String(wanted) }, degraded: "half of it" }
        })
      )
      const root = yield* Root.start(Supervisor.make("init", { children: [step] }))
      const notes = Effect.map(
        root.tree.snapshot(),
        ({ nodes }) => nodes.find(({ path }) => path === "init/it")?.annotations
      )
      yield* TestClock.adjust("1 milli")
      assert.deepInclude(yield* notes, { first: "yes" })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(done, [1, 1], "again after its time")

      yield* change(2)
      yield* TestClock.adjust("1 milli")
      assert.notProperty(yield* notes, "first")
      assert.deepInclude(yield* notes, { wanted: "2", degraded: "half of it" })

      yield* change(3)
      yield* TestClock.adjust("10 millis")
      yield* change(4)
      yield* TestClock.adjust("15 seconds")
      assert.deepStrictEqual(reports.slice(0, 4), [
        [1, ""],
        [1, ""],
        [2, "half of it"],
        [3, "not three"]
      ])
      assert.deepStrictEqual(reports[4], [4, "it was not done within 10s"])
    })
  )
})

describe("a kernel module", () => {
  it("says itself what it depends on", () => {
    const file = Buffer.from("ELF…\0license=GPL\0depends=mdio-bus,libphy\0name=x\0")
    assert.deepStrictEqual(dependenciesIn(file), ["mdio_bus", "libphy"])
    assert.deepStrictEqual(dependenciesIn(Buffer.from("\0depends=\0")), [])
    assert.deepStrictEqual(dependenciesIn(Buffer.from("no module")), [])
    assert.strictEqual(kernelName("nls-cp437"), "nls_cp437")
  })
})
