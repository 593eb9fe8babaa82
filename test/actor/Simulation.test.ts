/**
 * A day of a host of about a thousand actors, in seconds: workloads of every temper and policy, storms, a registry and a
 * database that are down for an hour, parts that flap, persons who stop, start, change, add and remove, and a brain that is
 * restarted with its journal. `simulation/Auditor.ts` says what is checked with every change.
 *
 * Everything comes from the seed, which a failure tells: `IRONWOOD_SEED=4711 scripts/check test/actor/Simulation.test.ts`
 * runs that day again, and `IRONWOOD_SOAK=1` a month of others.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import { TestClock } from "effect/testing"
import * as Journal from "../../src/actor/Journal.ts"
import { Day } from "./simulation/Day.ts"

const counting = () => {
  let fibers = 0
  const service: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => void fibers++,
    recordFiberEnd: () => void fibers--
  }
  return { service, count: () => fibers }
}

const given = process.env["IRONWOOD_SEED"]
const days = process.env["IRONWOOD_SOAK"] === undefined ? 4 : 30
const seeds = given === undefined ? Array.from({ length: days }, (_, index) => index + 1) : [Number(given)]
/** A large host of about a thousand actors, and small ones, on which more happens to each. */
const sandboxesOf = (seed: number): number => (seed % 4 === 1 ? 200 : 30)

const hour = 3_600_000

describe("a day of a host", () => {
  for (const seed of seeds) {
    const counter = counting()
    it.effect(
      `seed ${seed}`,
      () =>
        Effect.gen(function* () {
          const before = counter.count()
          const day = new Day(seed, sandboxesOf(seed), yield* Journal.makeMemory)
          yield* day.live(24 * hour)
          const again = `IRONWOOD_SEED=${seed} scripts/check test/actor/Simulation.test.ts`
          assert.deepStrictEqual(day.world.violations, [], `again with ${again}`)
          assert.isAbove(day.auditor.decisions, 500)
          assert.strictEqual(counter.count(), before, "fibers are left")
        }).pipe(
          Random.withSeed(`${seed}`),
          // The clock by default goes on without those that take a second of real time, which would make it another day.
          Effect.provide(TestClock.layer({ warningDelay: "10 minutes" })),
          Effect.provideService(Metric.FiberRuntimeMetrics, counter.service)
        ),
      { timeout: 600_000 }
    )
  }
})
