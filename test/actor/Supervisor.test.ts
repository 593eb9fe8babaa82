/** Static supervisors under TestClock: start, strategies, back-off, budgets, intensity, escalation. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actor/Actor.ts"
import type { ChildSpec } from "../../src/actor/ChildSpec.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const group = (
  probes: Probes,
  ids: ReadonlyArray<string>,
  options: Omit<Supervisor.Options<ReadonlyArray<ChildSpec<unknown, never>>>, "children"> = {},
  policy = RestartPolicy.permanent
) => Supervisor.make("init", { ...options, children: ids.map((id) => probes.make(id, { policy })) })

const states = (root: Root.Root) =>
  Effect.map(root.tree.snapshot(), ({ nodes }) =>
    Object.fromEntries(nodes.map((node) => [node.path.replace(/^init\//, ""), node.state]))
  )

describe("what was taken over", () => {
  it.effect("keeps its start, and counts as a healthy run when it ran long enough before", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("1 hour")
      const crash = yield* Deferred.make<void>()
      const adopter = Actor.make(
        "a",
        {
          policy: RestartPolicy.make({ backoff: { first: "0 millis", initial: "1 minute", resetAfter: "10 seconds" } })
        },
        Effect.gen(function* () {
          yield* Actor.adopted({}, Duration.minutes(5))
          yield* Deferred.await(crash)
          return yield* Effect.fail("crash")
        })
      )
      const root = yield* Root.start(Supervisor.make("init", { children: [adopter] }))
      assert.strictEqual((yield* root.tree.get("init/a")).startedAt, 55 * 60_000)
      yield* Deferred.succeed(crash, undefined)
      yield* Effect.yieldNow
      const [adopted, ended] = yield* root.tree.history("init/a")
      assert.strictEqual(adopted?.event, "adopted")
      assert.include(ended?.reason, "after a healthy run of 5 min")
    })
  )
})

describe("ordered start and stop", () => {
  it.effect("starts one after the other's acknowledgement, stops in reverse with hooks", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = ["a", "b", "c"].map((id) => probes.make(id, { readyAtOnce: false }))
      const starting = yield* Effect.forkScoped(Root.start(Supervisor.make("init", { children })))
      yield* Effect.yieldNow
      assert.deepStrictEqual(probes.take(), ["start a"])
      yield* probes.ready("a")
      assert.deepStrictEqual(probes.take(), ["start b"])
      yield* probes.ready("b")
      yield* probes.ready("c")
      assert.deepStrictEqual(probes.take(), ["start c"])
      const root = yield* Fiber.join(starting)
      assert.deepStrictEqual(yield* states(root), { init: "running", a: "running", b: "running", c: "running" })
      yield* root.end("stop")
      assert.deepStrictEqual(probes.take(), ["hook c", "close c", "hook b", "close b", "hook a", "close a"])
      assert.deepInclude(yield* root.resources, { timers: 0 })
    })
  )

  it.effect("release runs finalizers in reverse order, but no hook", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* Root.start(group(probes, ["a", "b"]))
      probes.take()
      yield* root.end("release")
      assert.deepStrictEqual(probes.take(), ["close b", "close a"])
    })
  )

  it.effect("a first start that fails takes down those before it and fails the supervisor with StartFailed", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("a"), probes.make("b", { failing: () => "no disk" }), probes.make("c")]
      const failed = yield* Effect.flip(Root.start(Supervisor.make("init", { children })))
      assert(failed._tag === "RootFailed")
      assert.strictEqual(failed.exit.tag, "StartFailed")
      assert.strictEqual(failed.message, "init ended: StartFailed: init/b did not start: Crash: no disk")
      assert.deepStrictEqual(probes.take(), ["start a", "start b", "close a"])
    })
  )
})

describe("one_for_one", () => {
  it.effect("restarts only the child that crashed", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* Root.start(group(probes, ["a", "b", "c"]))
      probes.take()
      yield* probes.crash("b")
      assert.deepStrictEqual(probes.take(), ["close b", "start b"])
      const node = yield* root.tree.get("init/b")
      assert.deepInclude(node, { state: "running", incarnation: 2, restarts: 1, attempt: 1 })
      assert.deepInclude(node.lastExit, { class: "failure", tag: "Crash", message: "crash", beforeReady: false })
    })
  )

  it.effect("a slow start holds up neither calls nor the restart of another", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* Root.start(group(probes, ["a", "b"]))
      yield* root.tree.stop("init/b")
      const slow = probes.make("slow", { readyAtOnce: false })
      const starting = yield* Effect.forkScoped(
        Root.start(Supervisor.make("init", { children: [probes.make("x", { policy: RestartPolicy.permanent }), slow] }))
      )
      yield* Effect.yieldNow
      probes.take()
      yield* probes.crash("x")
      assert.deepStrictEqual(probes.take(), ["close x", "start x"])
      assert.deepStrictEqual(starting.pollUnsafe(), undefined)
      yield* probes.ready("slow")
      yield* Fiber.join(starting)
    })
  )

  it.effect("waits as the back-off says, and starts afresh after a healthy run", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const policy = RestartPolicy.make({ backoff: { initial: 100, max: 400, jitter: 0, resetAfter: 1_000 } })
      const root = yield* Root.start(group(probes, ["a"], {}, policy))
      for (const delay of [100, 200, 400, 400]) {
        yield* probes.crash("a")
        assert.deepInclude(yield* root.tree.get("init/a"), { state: "backing-off" })
        yield* TestClock.adjust(delay - 1)
        assert.deepInclude(yield* root.tree.get("init/a"), { state: "backing-off" })
        yield* TestClock.adjust(1)
        assert.deepInclude(yield* root.tree.get("init/a"), { state: "running", nextAttemptAt: undefined })
      }
      yield* TestClock.adjust(1_000)
      yield* probes.crash("a")
      yield* TestClock.adjust(100)
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "running", attempt: 1, restarts: 5 })
    })
  )
})

describe("one_for_all", () => {
  it.effect("releases all, newest first, and starts all in order", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      yield* Root.start(group(probes, ["a", "b", "c"], { strategy: "one_for_all" }))
      probes.take()
      yield* probes.crash("b")
      assert.deepStrictEqual(probes.take(), ["close b", "close c", "close a", "start a", "start b", "start c"])
    })
  )

  it.effect("runs the bystanders' stop hooks when told to", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      yield* Root.start(group(probes, ["a", "b"], { strategy: "one_for_all", bystanders: "stop" }))
      probes.take()
      yield* probes.crash("a")
      assert.deepStrictEqual(probes.take(), ["close a", "hook b", "close b", "start a", "start b"])
    })
  )

  it.effect("a start that fails is tried again with all anew", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      let failing = 0
      const policy = RestartPolicy.make({ backoff: { initial: 100, jitter: 0 } })
      const children = [
        probes.make("a", { policy }),
        probes.make("b", { policy, failing: () => (failing-- > 0 ? "not yet" : undefined) }),
        probes.make("c", { policy })
      ]
      const root = yield* Root.start(Supervisor.make("init", { strategy: "one_for_all", children }))
      probes.take()
      failing = 1
      yield* probes.crash("c")
      assert.deepStrictEqual(probes.take(), ["close c", "close b", "close a"])
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(probes.take(), ["start a", "start b", "close a"])
      assert.deepStrictEqual(yield* states(root), { init: "running", a: "waiting", b: "backing-off", c: "backing-off" })
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(probes.take(), ["start a", "start b", "start c"])
    })
  )

  it.effect("spends one unit of intensity per crash, however many children restart", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* Root.start(group(probes, ["a", "b", "c"], { strategy: "one_for_all", intensity: 2 }))
      yield* probes.crash("a")
      yield* probes.crash("b")
      assert.deepInclude(yield* root.tree.get("init"), { state: "running" })
      yield* probes.crash("c")
      const failed = yield* Effect.flip(root.await)
      assert.strictEqual(failed.exit.tag, "RestartIntensityReached")
    })
  )
})

describe("rest_for_one", () => {
  it.effect("restarts the child and those after it, in order", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      yield* Root.start(group(probes, ["a", "b", "c", "d"], { strategy: "rest_for_one" }))
      probes.take()
      yield* probes.crash("b")
      assert.deepStrictEqual(probes.take(), ["close b", "close d", "close c", "start b", "start c", "start d"])
    })
  )

  it.effect("when one fails to start, those before stay, it backs off, those after wait", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      let failing = 0
      const policy = RestartPolicy.make({ backoff: { initial: 100, jitter: 0 } })
      const children = [
        probes.make("a", { policy }),
        probes.make("b", { policy }),
        probes.make("c", { policy, failing: () => (failing-- > 0 ? "not yet" : undefined) }),
        probes.make("d", { policy })
      ]
      const root = yield* Root.start(Supervisor.make("init", { strategy: "rest_for_one", children }))
      failing = 1
      yield* probes.crash("b")
      probes.take()
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(probes.take(), ["start b", "start c"])
      assert.deepStrictEqual(yield* states(root), {
        init: "running",
        a: "running",
        b: "running",
        c: "backing-off",
        d: "waiting"
      })
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(probes.take(), ["start c", "start d"])
    })
  )

  it.effect("an earlier crash during the restart widens it", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const policy = RestartPolicy.make({ backoff: { initial: 100, jitter: 0 } })
      const root = yield* Root.start(group(probes, ["a", "b", "c", "d"], { strategy: "rest_for_one" }, policy))
      yield* probes.crash("c")
      yield* TestClock.adjust(50)
      probes.take()
      yield* probes.crash("b")
      yield* TestClock.adjust(99)
      assert.deepStrictEqual(probes.take(), ["close b"])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(probes.take(), ["start b", "start c", "start d"])
      assert.deepStrictEqual((yield* states(root))["a"], "running")
    })
  )

  it.effect("a person's restart of an earlier one leaves a later one its back-off", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const policy = RestartPolicy.make({ backoff: { initial: 100, jitter: 0 } })
      const root = yield* Root.start(group(probes, ["a", "b", "c", "d"], { strategy: "rest_for_one" }, policy))
      yield* probes.crash("c")
      yield* TestClock.adjust(50)
      probes.take()
      yield* root.tree.restart("init/a")
      assert.deepStrictEqual(probes.take(), ["hook a", "close a", "start a"])
      yield* TestClock.adjust(49)
      assert.deepStrictEqual(probes.take(), [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(probes.take(), ["start c", "start d"])
    })
  )

  it.effect("drops temporary bystanders for good", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [
        probes.make("a", { policy: RestartPolicy.permanent }),
        probes.make("t", { policy: RestartPolicy.temporary }),
        probes.make("b", { policy: RestartPolicy.permanent })
      ]
      const root = yield* Root.start(Supervisor.make("init", { strategy: "rest_for_one", children }))
      probes.take()
      yield* probes.crash("a")
      assert.deepStrictEqual(probes.take(), ["close a", "close b", "close t", "start a", "start b"])
      assert.deepStrictEqual(yield* states(root), { init: "running", a: "running", b: "running" })
    })
  )

  it.effect("does not revive what a person stopped, and starts what waits for it when it is started", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* Root.start(group(probes, ["a", "b", "c"], { strategy: "rest_for_one" }))
      yield* root.tree.stop("init/b")
      probes.take()
      yield* probes.crash("a")
      assert.deepStrictEqual(probes.take(), ["close a", "close c", "start a", "start c"])
      assert.deepStrictEqual(yield* states(root), { init: "running", a: "running", b: "stopped", c: "running" })
      yield* root.tree.start("init/b")
      assert.deepStrictEqual(probes.take(), ["start b"])
    })
  )
})

describe("giving up", () => {
  it.effect("is a typed failure, releases the children, and counts exact milliseconds", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* Root.start(group(probes, ["a", "b"], { intensity: 2, period: 1_000 }))
      yield* probes.crash("a")
      yield* TestClock.adjust(500)
      yield* probes.crash("b")
      yield* TestClock.adjust(500)
      yield* probes.crash("a")
      assert.deepInclude(yield* root.tree.get("init"), { state: "running" })
      probes.take()
      yield* TestClock.adjust(499)
      yield* probes.crash("a", "again")
      const failed = yield* Effect.flip(root.await)
      assert.deepStrictEqual(probes.take(), ["close a", "close b"])
      assert.strictEqual(
        failed.message,
        'init ended: RestartIntensityReached: init gave up: "a" ended again after 2 restarts within 1 s (the supervisor\'s intensity); last: Crash: again'
      )
    })
  )

  for (const restart of ["permanent", "transient", "temporary"] as const) {
    it.effect(`a ${restart} parent's spec does not lose the supervisor that gave up`, () =>
      Effect.gen(function* () {
        const probes = new Probes()
        const inner = Supervisor.make("inner", {
          intensity: 0,
          policy: RestartPolicy.make({ restart }, RestartPolicy.permanent),
          children: [probes.make("a", { policy: RestartPolicy.permanent })]
        })
        const root = yield* Root.start(Supervisor.make("init", { children: [inner] }))
        yield* probes.crash("a")
        const node = yield* root.tree.get("init/inner")
        assert.strictEqual(node.state, restart === "temporary" ? "failed" : "running")
        assert.strictEqual(node.incarnation, restart === "temporary" ? 1 : 2)
        assert.deepInclude(node.lastExit, { class: "failure", tag: "RestartIntensityReached" })
      })
    )
  }

  it.effect("a child's own budget parks it, and a person's start forgives", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const policy = RestartPolicy.make(
        { budget: { restarts: 2, within: 10_000 }, whenSpent: "park" },
        RestartPolicy.permanent
      )
      const root = yield* Root.start(group(probes, ["a", "b"], { intensity: 0 }, policy))
      yield* probes.crash("a")
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "running", budgetLeft: 1 })
      yield* probes.crash("a")
      yield* probes.crash("a")
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "parked", budgetLeft: 0 })
      yield* root.tree.start("init/a")
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "running", budgetLeft: 2, attempt: 0 })
      const history = yield* root.tree.history("init/a")
      assert.deepStrictEqual(
        history.map((entry) => `${entry.event} ${entry.decision}`),
        ["started none", "ended restart", "started none", "ended restart", "started none", "ended park", "started none"]
      )
    })
  )
})
