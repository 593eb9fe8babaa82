/** Significant children and auto-shutdown (OTP's EEP 56): whose end is the end of the supervisor, and how it ends. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { AutoShutdown } from "../../src/actor/ChildSpec.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { type ProbeOptions, Probes } from "./Probe.ts"

const { temporary, transient } = RestartPolicy
const significant = (policy: RestartPolicy.RestartPolicy): ProbeOptions => ({ significant: true, policy })

/** `init` → `job` (transient, with this auto-shutdown) → the children. */
const job = Effect.fnUntraced(function* (
  autoShutdown: AutoShutdown,
  options: Record<string, ProbeOptions>,
  more: Partial<Supervisor.Options<[]>> = {}
) {
  const probes = new Probes()
  const children = Object.entries(options).map(([id, given]) => probes.make(id, given))
  const inner = Supervisor.make("job", { policy: transient, autoShutdown, ...more, children })
  const root = yield* Root.start(Supervisor.make("init", { children: [inner] }))
  probes.take()
  const state = Effect.map(root.tree.get("init/job"), (node) => node.state)
  return { probes, root, state }
})

describe("any_significant", () => {
  it.effect("the first normal end of one stops the others, with their hooks, and is a normal end", () =>
    Effect.gen(function* () {
      const { probes, root, state } = yield* job("any_significant", {
        a: {},
        b: significant(transient),
        c: significant(transient)
      })
      yield* probes.finish("b")
      assert.deepStrictEqual(probes.take(), ["close b", "hook c", "close c", "hook a", "close a"])
      assert.strictEqual(yield* state, "finished")
      assert.deepInclude((yield* root.tree.get("init/job")).lastExit, {
        class: "normal",
        tag: "AutoShutdown",
        message: 'ended normally: its significant child "b" has ended'
      })
    })
  )

  it.effect("a crash that is restarted is no end, that of a temporary one is", () =>
    Effect.gen(function* () {
      const { probes, state } = yield* job("any_significant", { a: significant(transient), b: significant(temporary) })
      yield* probes.crash("a")
      assert.strictEqual(yield* state, "running")
      yield* probes.crash("b")
      assert.strictEqual(yield* state, "finished")
    })
  )

  it.effect(
    "a temporary one that ends with the sibling it is bound to has ended for good, unless a person ended that",
    () =>
      Effect.gen(function* () {
        const bound = { ...significant(temporary), dependencies: { bindsTo: ["a"] } }
        const { probes, root, state } = yield* job("any_significant", { a: {}, b: bound })
        yield* root.tree.stop("init/job/a")
        assert.deepStrictEqual(probes.take(), ["hook b", "close b", "hook a", "close a"])
        assert.strictEqual(yield* state, "running")
        yield* root.tree.restart("init/job")
        yield* root.tree.start("init/job/a")
        probes.take()
        yield* probes.crash("a")
        assert.deepStrictEqual(probes.take(), ["close a", "hook b", "close b"])
        assert.strictEqual(yield* state, "finished")
      })
  )

  it.effect("nobody starts after one whose end is that of all", () =>
    Effect.gen(function* () {
      const { probes, root } = yield* job("any_significant", {
        a: significant(transient),
        b: { autoStart: false, dependencies: { after: ["a"] } }
      })
      yield* root.tree.stop("init/job/a")
      yield* root.tree.start("init/job/a", { wait: "registered" })
      yield* root.tree.start("init/job/b")
      probes.take()
      yield* probes.finish("a")
      assert.deepStrictEqual(probes.take(), ["close a", "hook b", "close b"])
    })
  )

  it.effect("what a person stops is no end of its own", () =>
    Effect.gen(function* () {
      const { probes, root, state } = yield* job("any_significant", { a: significant(transient), b: {} })
      yield* root.tree.stop("init/job/a")
      assert.strictEqual(yield* state, "running")
      assert.deepStrictEqual(probes.take(), ["hook a", "close a"])
    })
  )

  it.effect("a temporary one that ends as a bystander counts, other than in OTP", () =>
    Effect.gen(function* () {
      const { probes, state } = yield* job(
        "any_significant",
        { a: { policy: RestartPolicy.permanent }, b: significant(temporary) },
        { strategy: "one_for_all" }
      )
      yield* probes.crash("a")
      assert.strictEqual(yield* state, "finished")
      assert.deepStrictEqual(probes.take(), ["close a", "close b"])
    })
  )

  it.effect("a permanent supervisor is started again", () =>
    Effect.gen(function* () {
      const { probes, root } = yield* job(
        "any_significant",
        { a: significant(transient) },
        { policy: RestartPolicy.permanent }
      )
      yield* probes.finish("a")
      assert.deepStrictEqual(probes.take(), ["close a", "start a"])
      assert.deepInclude(yield* root.tree.get("init/job"), { state: "running", restarts: 1 })
    })
  )
})

describe("all_significant", () => {
  it.effect("the last end ends it; one that backs off still counts", () =>
    Effect.gen(function* () {
      const patient = RestartPolicy.make({ restart: "transient", backoff: { initial: 60_000 } })
      const { probes, root, state } = yield* job("all_significant", {
        a: significant(transient),
        b: significant(patient),
        c: {}
      })
      yield* probes.crash("b")
      yield* probes.finish("a")
      assert.strictEqual(yield* state, "running")
      yield* root.tree.start("init/job/b")
      yield* probes.finish("b")
      assert.strictEqual(yield* state, "finished")
      assert.deepInclude(yield* root.resources, { timers: 0 })
    })
  )

  it.effect("one that a person stopped does not hold it up", () =>
    Effect.gen(function* () {
      const { probes, root, state } = yield* job("all_significant", {
        a: significant(transient),
        b: significant(transient)
      })
      yield* root.tree.stop("init/job/a")
      assert.strictEqual(yield* state, "running")
      yield* probes.finish("b")
      assert.strictEqual(yield* state, "finished")
    })
  )

  it.effect("of ten thousand, only the last ends it", () =>
    Effect.gen(function* () {
      const many = 10_000
      const options = Object.fromEntries(
        Array.from({ length: many }, (_, index) => [`c${index}`, significant(index % 2 === 0 ? transient : temporary)])
      )
      const { probes, state } = yield* job("all_significant", options)
      for (let index = 0; index < many - 1; index++) yield* probes.finish(`c${index}`)
      assert.strictEqual(yield* state, "running")
      yield* probes.finish(`c${many - 1}`)
      assert.strictEqual(yield* state, "finished")
    })
  )
})
