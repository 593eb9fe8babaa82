/** The management calls on a static supervisor; those on a dynamic one are in DynamicSupervisor.test.ts. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const started = Effect.fnUntraced(function* (options: Partial<Supervisor.Options<[]>> = {}) {
  const probes = new Probes()
  const supervisor = yield* Supervisor.managed<never>("group", {
    strategy: "rest_for_one",
    ...options,
    children: [probes.make("a"), probes.make("b")]
  })
  const root = yield* Root.start(Supervisor.make("init", { children: [supervisor.spec] }))
  probes.take()
  return { probes, root, supervisor }
})

/** The tag of a refusal. */
const refusal = <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(effect), ({ _tag }) => _tag)

describe("a static supervisor", () => {
  it.effect("takes more children, behind the others, and has them again after its own restart", () =>
    Effect.gen(function* () {
      const { probes, root, supervisor } = yield* started()
      assert.strictEqual(yield* supervisor.startChild(probes.make("c")), "init/group/c")
      assert.deepStrictEqual(probes.take(), ["start c"])
      yield* probes.crash("b")
      assert.deepStrictEqual(probes.take(), ["close b", "close c", "start b", "start c"])
      yield* root.tree.restart("init/group")
      assert.deepStrictEqual(probes.take().slice(-3), ["start a", "start b", "start c"])
      yield* supervisor.terminateChild("c")
      yield* supervisor.deleteChild("c")
      probes.take()
      yield* root.tree.restart("init/group")
      assert.deepStrictEqual(probes.take().slice(-2), ["start a", "start b"])
    })
  )

  it.effect("answers every call with what is the matter", () =>
    Effect.gen(function* () {
      const { probes, root, supervisor } = yield* started()
      assert.strictEqual(yield* refusal(supervisor.startChild(probes.make("a"))), "AlreadyStarted")
      assert.strictEqual(yield* refusal(supervisor.startChild(probes.make("x/y"))), "SpecInvalid")
      assert.strictEqual(
        yield* refusal(supervisor.startChild(probes.make("x", { failing: () => "no" }))),
        "StartFailed"
      )
      assert.strictEqual(yield* refusal(supervisor.terminateChild("nobody")), "NoSuchActor")
      assert.strictEqual(yield* refusal(supervisor.terminateChild("a/b")), "NoSuchActor")
      assert.strictEqual(yield* refusal(supervisor.deleteChild("a")), "StillRunning")
      assert.strictEqual(yield* refusal(supervisor.getChildSpec("nobody")), "NoSuchActor")
      yield* supervisor.terminateChild("b")
      assert.strictEqual(yield* refusal(supervisor.startChild(probes.make("b"))), "AlreadyPresent")
      yield* supervisor.restartChild("b")
      assert.deepInclude(yield* supervisor.getChildSpec("b"), { id: "b", shutdown: 5_000 })
      assert.deepInclude(yield* supervisor.countChildren, { supervisors: 0, workers: 3 })
      yield* root.tree.stop("init/group")
      for (const call of [supervisor.countChildren, supervisor.whichChildren, supervisor.terminateChild("a")]) {
        assert.strictEqual(yield* refusal<unknown, { readonly _tag: string }>(call), "SupervisorDown")
      }
    })
  )
})

describe("one that is deleted while its group waits to start anew", () => {
  it.effect("takes nobody along who was added after it", () =>
    Effect.gen(function* () {
      const { probes, supervisor } = yield* started()
      yield* supervisor.startChild(probes.make("c", { policy: RestartPolicy.workload }))
      yield* probes.crash("c")
      yield* supervisor.deleteChild("c")
      yield* supervisor.startChild(probes.make("d"), { wait: "registered" })
      probes.take()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(probes.take(), ["start d"])
    })
  )
})

describe("reloadSpecs", () => {
  it.effect("replaces, adds without starting, keeps the rest, and ends nobody", () =>
    Effect.gen(function* () {
      const { probes, root, supervisor } = yield* started()
      const reloaded = yield* supervisor.reloadSpecs([
        probes.make("b", { policy: RestartPolicy.transient, shutdown: 7_000 }),
        probes.make("c")
      ])
      assert.deepStrictEqual(reloaded, { replaced: ["b"], added: ["c"], kept: ["a"] })
      assert.deepStrictEqual(probes.take(), [])
      assert.deepInclude(yield* supervisor.getChildSpec("b"), { shutdown: 7_000 })
      assert.deepInclude(yield* root.tree.get("init/group/b"), { state: "running", policy: RestartPolicy.transient })
      assert.deepInclude(yield* root.tree.get("init/group/c"), { state: "stopped" })
      yield* root.tree.start("init/group/c")
      yield* root.tree.restart("init/group")
      assert.deepInclude(yield* supervisor.getChildSpec("b"), { shutdown: 7_000 })
      assert.deepInclude(yield* supervisor.countChildren, { specs: 3 })
    })
  )

  it.effect("changes nothing when anything is wrong", () =>
    Effect.gen(function* () {
      const { probes, supervisor } = yield* started()
      const wrong = yield* Effect.flip(
        supervisor.reloadSpecs([
          probes.make("a", { shutdown: 1 }),
          Supervisor.make("b", { children: [] }),
          probes.make("c", { startDeadline: -1 })
        ])
      )
      assert(wrong._tag === "SpecInvalid")
      assert.deepStrictEqual(
        wrong.problems.map(({ field }) => field),
        ["children[2].startDeadline", "children[1]"]
      )
      assert.deepInclude(yield* supervisor.getChildSpec("a"), { shutdown: 5_000 })
      assert.deepInclude(yield* supervisor.countChildren, { specs: 2 })
    })
  )

  it.effect("checks dependencies against the siblings that stay, too", () =>
    Effect.gen(function* () {
      const { probes, supervisor } = yield* started({ strategy: "one_for_one" })
      const needing = (id: string, ...after: ReadonlyArray<string>) => probes.make(id, { dependencies: { after } })
      const fields = (specs: Parameters<typeof supervisor.reloadSpecs>[0]) =>
        Effect.map(Effect.flip(supervisor.reloadSpecs(specs)), (wrong) => {
          assert(wrong._tag === "SpecInvalid")
          return wrong.problems.map(({ field, problem }) => `${field} ${problem}`)
        })
      assert.deepStrictEqual(yield* fields([needing("c", "a", "d"), needing("a", "b")]), [
        'children[0].after names "d", which is no sibling'
      ])
      assert.deepStrictEqual(yield* fields([needing("b", "a"), needing("a", "c"), needing("c", "b")]), [
        "children[0].dependencies go round in a circle: b → a → c → b"
      ])
      const reloaded = yield* supervisor.reloadSpecs([needing("c", "a"), needing("b", "a")])
      assert.deepStrictEqual(reloaded, { replaced: ["b"], added: ["c"], kept: ["a"] })
    })
  )

  it.effect("one that was dropped and added again still starts before those that need it, and ends after them", () =>
    Effect.gen(function* () {
      const { probes, root, supervisor } = yield* started({ strategy: "one_for_one" })
      const needing = (id: string, ...requires: ReadonlyArray<string>) =>
        probes.make(id, { dependencies: { requires } })
      yield* supervisor.startChild(needing("c", "a"))
      yield* root.tree.stop("init/group/a")
      yield* supervisor.deleteChild("a")
      const circle = yield* Effect.flip(supervisor.startChild(needing("a", "c")))
      assert.strictEqual(circle.message, 'the spec of "a" cannot be: dependencies go round in a circle: a → c → a')
      yield* supervisor.startChild(needing("a", "b"))
      // What it is already, it may be told to be.
      yield* supervisor.reloadSpecs([needing("c", "a")])
      probes.take()
      yield* root.tree.restart("init/group")
      const ends = ["hook c", "close c", "hook a", "close a", "hook b", "close b"]
      assert.deepStrictEqual(probes.take(), [...ends, "start b", "start a", "start c"])
    })
  )

  it.effect("of a dynamic supervisor finds a circle that goes through a sibling that stays", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const needing = (id: string, ...after: ReadonlyArray<string>) => probes.make(id, { dependencies: { after } })
      const pool = yield* DynamicSupervisor.make("pool", {
        children: Effect.succeed([needing("a"), needing("b", "a"), needing("c", "b")])
      })
      yield* Root.start(Supervisor.make("init", { children: [pool.spec] }))
      yield* Effect.yieldNow
      const wrong = yield* Effect.flip(pool.reloadSpecs([needing("d"), needing("a", "c")]))
      assert.strictEqual(
        wrong.message,
        'the spec of "pool" cannot be: children[1].dependencies go round in a circle: a → c → b → a'
      )
    })
  )
})
