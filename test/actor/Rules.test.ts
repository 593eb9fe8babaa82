/** Rules of a policy in a living tree: what a supervisor counts for them, and what makes it forget. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import * as Journal from "../../src/actor/Journal.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const policy = RestartPolicy.make({
  backoff: { initial: 100, factor: 1, jitter: 0, resetAfter: "1 second" },
  rules: [{ on: { tags: ["Crash"] }, consecutive: 2, whenSpent: "park" }]
})

const start = (probes: Probes, journal = Journal.forgetful) =>
  Effect.provideService(
    Root.start(Supervisor.make("init", { children: [probes.make("a", { policy })] })),
    Journal.Journal,
    journal
  )

const crash = (probes: Probes) =>
  Effect.andThen(
    Effect.suspend(() => probes.crash("a")),
    TestClock.adjust(100)
  )

describe("the restarts of a rule", () => {
  it.effect("are counted, and used up", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const { tree } = yield* start(probes)
      for (const state of ["running", "running", "parked"]) {
        yield* crash(probes)
        assert.strictEqual((yield* tree.get("init/a")).state, state)
      }
      const last = (yield* tree.history("init/a")).at(-1)
      assert.include(last?.reason, "rule 1 (Crash): its 2 restarts in a row are used up")
    })
  )
  it.effect("are forgotten after a healthy run, by a person's restart and with the policy", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const { tree } = yield* start(probes)
      const twice = Effect.andThen(crash(probes), crash(probes))
      const running = Effect.gen(function* () {
        yield* twice
        assert.strictEqual((yield* tree.get("init/a")).state, "running")
      })
      yield* running
      yield* TestClock.adjust("1 second")
      yield* running
      yield* tree.restart("init/a")
      yield* running
      yield* tree.setPolicy("init/a", policy)
      yield* running
      yield* crash(probes)
      assert.strictEqual((yield* tree.get("init/a")).state, "parked")
    })
  )
  it.effect("are remembered over a restart of the brain", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const journal = yield* Journal.makeMemory
      const first = yield* start(probes, journal)
      yield* crash(probes)
      yield* crash(probes)
      yield* first.end("release")
      const { tree } = yield* start(probes, journal)
      yield* crash(probes)
      assert.strictEqual((yield* tree.get("init/a")).state, "parked")
    })
  )
})

it.effect("a tumbling budget counts the first start", () =>
  Effect.gen(function* () {
    const probes = new Probes()
    const tumbling = RestartPolicy.make({
      backoff: { initial: 100, factor: 1, jitter: 0 },
      budget: { restarts: 3, within: "10 seconds", window: "tumbling" },
      whenSpent: "park"
    })
    const { tree } = yield* Root.start(Supervisor.make("init", { children: [probes.make("a", { policy: tumbling })] }))
    assert.strictEqual((yield* tree.get("init/a")).budgetLeft, 2)
    yield* crash(probes)
    yield* crash(probes)
    assert.deepInclude(yield* tree.get("init/a"), { state: "running", budgetLeft: 0 })
    yield* crash(probes)
    assert.strictEqual((yield* tree.get("init/a")).state, "parked")
  })
)
