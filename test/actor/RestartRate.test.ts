/** The limit on the restarts of a whole tree: what it lets through, in which order, and that it holds nothing for good. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const policy = RestartPolicy.make({ backoff: { initial: 0, jitter: 0 } })

const stormy = Effect.fnUntraced(function* (ids: ReadonlyArray<string>, restartRate: Root.RestartRate) {
  const probes = new Probes()
  const children = ids.map((id) => probes.make(id, { policy }))
  const root = yield* Root.start(Supervisor.make("init", { children }), { restartRate })
  const crash = (crashing: ReadonlyArray<string>) => Effect.forEach(crashing, (id) => probes.crash(id))
  const starts = Effect.sync(() =>
    probes
      .take()
      .filter((line) => line.startsWith("start "))
      .map((line) => line.slice("start ".length))
  )
  yield* starts
  return { root, crash, starts }
})

describe("the restart rate of a tree", () => {
  it.effect("lets a burst through, then one after another at its rate", () =>
    Effect.gen(function* () {
      const { crash, root, starts } = yield* stormy(["a", "b", "c", "d"], { perSecond: 2, burst: 2 })
      yield* crash(["a", "b", "c", "d"])
      assert.deepStrictEqual(yield* starts, ["a", "b"])
      assert.deepInclude(yield* root.tree.get("init/c"), { state: "backing-off" })
      yield* TestClock.adjust(499)
      assert.deepStrictEqual(yield* starts, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* starts, ["c"])
      yield* TestClock.adjust(500)
      assert.deepStrictEqual(yield* starts, ["d"])
      assert.deepInclude(yield* root.resources, { timers: 0 })
      yield* TestClock.adjust("1 hour")
      yield* crash(["a", "b", "c"])
      assert.deepStrictEqual(yield* starts, ["a", "b"])
    })
  )

  it.effect("is fair: what crashes for the first time does not wait behind those that crash all the time", () =>
    Effect.gen(function* () {
      const noisy = Array.from({ length: 10 }, (_, index) => `noisy${index}`)
      const { crash, starts } = yield* stormy([...noisy, "calm"], { perSecond: 1, burst: 10 })
      yield* crash(noisy)
      yield* crash(noisy)
      assert.deepStrictEqual(yield* starts, noisy)
      yield* crash(["calm"])
      yield* TestClock.adjust("2 seconds")
      assert.include(yield* starts, "calm")
    })
  )

  it.effect("those that crash all the time have their turn too", () =>
    Effect.gen(function* () {
      const { crash, starts } = yield* stormy(["often", "a", "b", "c", "d"], { perSecond: 1, burst: 1 })
      yield* crash(["often"])
      yield* crash(["often", "a", "b", "c", "d"])
      yield* starts
      yield* TestClock.adjust("2 seconds")
      assert.include(yield* starts, "often")
    })
  )

  it.effect("a person does not wait, and what he stops or starts is out of the queue", () =>
    Effect.gen(function* () {
      const { crash, root, starts } = yield* stormy(["a", "b", "c"], { perSecond: 1, burst: 1 })
      yield* crash(["a", "b", "c"])
      yield* starts
      yield* root.tree.start("init/b")
      yield* root.tree.stop("init/c")
      assert.deepStrictEqual(yield* starts, ["b"])
      assert.deepInclude(yield* root.resources, { timers: 0 })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* starts, [])
      assert.deepInclude(yield* root.tree.get("init/c"), { state: "stopped" })
    })
  )

  it.effect("tells in the history that a restart is due and waits for its turn", () =>
    Effect.gen(function* () {
      const { crash, root } = yield* stormy(["a", "b"], { perSecond: 1, burst: 1 })
      yield* crash(["a", "b"])
      const last = (path: string) => Effect.map(root.tree.history(path), (entries) => entries.at(-1))
      assert.deepInclude(yield* last("init/b"), {
        event: "held-back",
        reason: "its restart is due; all restarts together are held to 1 per second, and 1 wait"
      })
      assert.deepInclude(yield* last("init/a"), { event: "started" })
    })
  )

  it.effect("gives a group that starts anew one turn, and lets a person go before it", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const group = Supervisor.make("group", {
        strategy: "one_for_all",
        children: [probes.make("a", { policy }), probes.make("b", { policy })]
      })
      const root = yield* Root.start(Supervisor.make("init", { children: [group] }), {
        restartRate: { perSecond: 1, burst: 1 }
      })
      const starts = () => probes.take().filter((line) => line.startsWith("start "))
      probes.take()
      yield* probes.crash("a")
      assert.deepStrictEqual(starts(), ["start a", "start b"])
      yield* probes.crash("b")
      assert.deepStrictEqual(starts(), [])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(starts(), ["start a", "start b"])
      yield* probes.crash("a")
      assert.deepStrictEqual(starts(), [])
      yield* root.tree.start("init/group/a")
      assert.deepStrictEqual(starts(), ["start a", "start b"])
      assert.deepInclude(yield* root.resources, { timers: 0 })
    })
  )

  it.effect("is refused when it lets nothing through, each field by its name", () =>
    Effect.gen(function* () {
      const spec = Supervisor.make("init", { children: [] })
      const wrong = yield* Effect.flip(Root.start(spec, { restartRate: { perSecond: 0, burst: Number.NaN } }))
      assert.strictEqual(
        wrong.message,
        'the spec of "init" cannot be: restartRate.perSecond must be a number above 0, not 0; restartRate.burst must be a number of 1 or more, not NaN'
      )
    })
  )
})
