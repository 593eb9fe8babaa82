/** Why an actor is as it is, as the tree tells it: on whose account, by what decision, with how much of a budget left. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as Journal from "../../src/actor/Journal.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const policy = RestartPolicy.make({ backoff: { initial: 1_000, factor: 1, jitter: 0 } })
const ids = ["a", "b", "c"]

const group = Effect.fnUntraced(function* (strategy: "one_for_all" | "rest_for_one") {
  const probes = new Probes()
  const root = yield* Root.start(
    Supervisor.make("init", { strategy, children: ids.map((id) => probes.make(id, { policy })) })
  )
  return { probes, root }
})

interface Told {
  readonly state: string
  readonly event: string | undefined
  readonly because: string | undefined
  readonly reason: string | undefined
}

const told = (root: Root.Root, path: string) =>
  Effect.map(root.tree.get(path), ({ entry, state }): Told => ({
    state,
    event: entry?.event,
    because: entry?.because,
    reason: entry?.reason
  }))

describe("an actor that is down on another's account names it", () => {
  it.effect("a sibling's, under one_for_all and rest_for_one", () =>
    Effect.gen(function* () {
      const all = yield* group("one_for_all")
      yield* all.probes.crash("b")
      for (const id of ["a", "c"]) {
        assert.deepStrictEqual(yield* told(all.root, `init/${id}`), {
          state: "waiting",
          event: "released",
          because: "init/b",
          reason: '"b" ended, and under one_for_all it starts anew with it'
        })
      }
      assert.deepInclude(yield* told(all.root, "init/b"), { event: "ended", because: undefined })
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* told(all.root, "init/a"), { state: "running", event: "started", because: undefined })
      const rest = yield* group("rest_for_one")
      yield* rest.probes.crash("b")
      assert.deepInclude(yield* told(rest.root, "init/a"), { state: "running", because: undefined })
      assert.deepInclude(yield* told(rest.root, "init/c"), { state: "waiting", because: "init/b" })
    })
  )

  it.effect("one that it is bound to, or that it requires and a person stops", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const pod = yield* DynamicSupervisor.make("pod", {
        children: Effect.succeed([
          probes.make("db", { policy }),
          probes.make("bound", { policy, dependencies: { bindsTo: ["db"] } }),
          probes.make("user", { policy, dependencies: { requires: ["db"] } })
        ])
      })
      const root = yield* Root.start(Supervisor.make("init", { children: [pod.spec] }))
      yield* Effect.yieldNow
      yield* probes.crash("db")
      assert.deepStrictEqual(yield* told(root, "init/pod/bound"), {
        state: "waiting",
        event: "stopped",
        because: "init/pod/db",
        reason: 'it needs "db", which has ended'
      })
      assert.deepInclude(yield* told(root, "init/pod/user"), { state: "running" })
      yield* TestClock.adjust("1 second")
      yield* root.tree.stop("init/pod/db")
      assert.deepStrictEqual(yield* told(root, "init/pod/user"), {
        state: "waiting",
        event: "stopped",
        because: "init/pod/db",
        reason: 'it needs "db", which is being ended'
      })
      assert.deepStrictEqual(yield* told(root, "init/pod/db"), {
        state: "stopped",
        event: "stopped",
        because: undefined,
        reason: "somebody asked for it"
      })
    })
  )

  it.effect("the one that had its supervisor give up, through every supervisor between", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const escalates = RestartPolicy.make({}, RestartPolicy.permanent)
      const inner = Supervisor.make("inner", {
        intensity: 0,
        policy: escalates,
        children: [probes.make("a", { policy: escalates }), probes.make("b", { policy })]
      })
      const outer = Supervisor.make("outer", {
        intensity: 0,
        policy: RestartPolicy.make({ whenSpent: "park", budget: { restarts: 0, within: "1 minute" } }),
        children: [inner, probes.make("c", { policy })]
      })
      const root = yield* Root.start(Supervisor.make("init", { children: [outer] }))
      yield* probes.crash("a", "the disk is gone")
      const { lastExit, state } = yield* root.tree.get("init/outer")
      assert.strictEqual(state, "parked")
      assert(lastExit !== undefined)
      assert.strictEqual(lastExit.tag, "RestartIntensityReached")
      assert.deepStrictEqual(
        lastExit.causes?.map(({ path, tag }) => `${path} ${tag}`),
        ["init/outer/inner RestartIntensityReached", "init/outer/inner/a Crash"]
      )
      assert.strictEqual(lastExit.causes?.[1]?.message, "the disk is gone")
      assert.deepInclude(yield* told(root, "init/outer/inner/b"), { state: "waiting", because: "init/outer/inner/a" })
      assert.deepInclude(yield* told(root, "init/outer/c"), { state: "waiting", because: "init/outer/inner" })
    })
  )
})

describe("what led to a state", () => {
  it.effect("is told of one that rests, also by the next brain", () =>
    Effect.gen(function* () {
      const journal = yield* Journal.makeMemory
      const probes = new Probes()
      const parks = RestartPolicy.make({ budget: { restarts: 0, within: "1 minute" }, whenSpent: "park" })
      const children = Effect.succeed([probes.make("a", { policy: parks, resume: true })])
      const life = Effect.gen(function* () {
        const pod = yield* DynamicSupervisor.make("pod", { children })
        return yield* Root.start(Supervisor.make("init", { children: [pod.spec] }))
      }).pipe(Effect.provideService(Journal.Journal, journal))
      const first = yield* life
      yield* probes.crash("a")
      const before = yield* told(first, "init/pod/a")
      assert.deepInclude(before, { state: "parked", event: "ended" })
      yield* first.end("release")
      const second = yield* life
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* told(second, "init/pod/a"), before)
      yield* second.end("release")
    })
  )
})

describe("the moment", () => {
  it.effect("tells budgets as they are now, which time alone changes", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const budget = { restarts: 3, within: "10 seconds" } as const
      const escalates = RestartPolicy.make({ backoff: { initial: 0, jitter: 0 }, budget, whenSpent: "escalate" })
      const root = yield* Root.start(
        Supervisor.make("init", {
          intensity: 5,
          period: "20 seconds",
          children: [probes.make("a", { policy: escalates })]
        })
      )
      yield* probes.crash("a")
      yield* TestClock.adjust("4 seconds")
      yield* probes.crash("a")
      const { revision } = yield* root.tree.get("init/a")
      assert.deepInclude(yield* root.tree.moment("init/a"), { attempt: 2, budgetLeft: 1, intensity: undefined })
      assert.deepInclude(yield* root.tree.moment("init"), {
        budgetLeft: undefined,
        intensity: { restarts: 5, within: 20_000, spent: 2 }
      })
      yield* TestClock.adjust("7 seconds")
      assert.deepInclude(yield* root.tree.moment("init/a"), { attempt: 2, budgetLeft: 2 })
      yield* TestClock.adjust("10 seconds")
      assert.deepInclude((yield* root.tree.moment("init")).intensity, { spent: 1 })
      // by then it has run for as long as is healthy
      yield* TestClock.adjust("1 hour")
      assert.deepInclude(yield* root.tree.moment("init/a"), { attempt: 0, budgetLeft: 3 })
      assert.strictEqual((yield* root.tree.get("init/a")).revision, revision)
    })
  )
})
