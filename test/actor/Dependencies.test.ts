/** `after`, `requires` and `bindsTo` between siblings, at the start, on failure, at a person's hand and at the end. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import type { Dependencies } from "../../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { type ProbeOptions, Probes } from "./Probe.ts"

const policy = RestartPolicy.make({ backoff: { initial: 1_000, factor: 1, jitter: 0 } })

/** `init/pod` with these children, in this order; `start` lets one of those become ready that are slow. */
const pod = Effect.fnUntraced(function* (options: Record<string, ProbeOptions>) {
  const probes = new Probes()
  const children = Object.entries(options).map(([id, given]) => probes.make(id, { policy, ...given }))
  const dynamic = yield* DynamicSupervisor.make("pod", { children: Effect.succeed(children) })
  const root = yield* Root.start(Supervisor.make("init", { children: [dynamic.spec] }))
  yield* Effect.yieldNow
  const states = Effect.gen(function* () {
    const nodes = yield* dynamic.whichChildren
    return Object.fromEntries(
      nodes.map(({ path, state, waitingFor }) => [
        path.slice("init/pod/".length),
        waitingFor.length === 0 ? state : `${state} for ${waitingFor.join(" ")}`
      ])
    )
  })
  return { probes, dynamic, root, states }
})

const slow = { readyAtOnce: false } as const
const needs = (dependencies: Partial<Dependencies>): ProbeOptions => ({ dependencies })

describe("afterSuccess", () => {
  const once = RestartPolicy.make({ restart: "transient", backoff: { initial: 1_000, factor: 1, jitter: 0 } })

  it.effect("holds a start back until the other has ended with success, however often that fails before", () =>
    Effect.gen(function* () {
      const { probes, states } = yield* pod({ app: needs({ afterSuccess: ["setup"] }), setup: { policy: once } })
      assert.deepStrictEqual(yield* states, { app: "waiting for setup", setup: "running" })
      yield* probes.crash("setup")
      assert.deepStrictEqual(yield* states, { app: "waiting for setup", setup: "backing-off" })
      yield* TestClock.adjust("1 second")
      yield* probes.finish("setup")
      assert.deepStrictEqual(yield* states, { app: "running", setup: "finished" })
    })
  )

  it.effect("once it has, the other may crash and start again, and what was finished may run once more", () =>
    Effect.gen(function* () {
      const { probes, root, states } = yield* pod({
        app: needs({ afterSuccess: ["setup"] }),
        setup: { policy: once }
      })
      yield* probes.finish("setup")
      yield* probes.crash("app")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* states, { app: "running", setup: "finished" })
      yield* root.tree.start("init/pod/setup")
      assert.deepStrictEqual(yield* states, { app: "running", setup: "running" })
    })
  )

  it.effect("one that is not there, was stopped, or has failed for good holds it up", () =>
    Effect.gen(function* () {
      const { probes, states } = yield* pod({
        app: needs({ afterSuccess: ["elsewhere", "off", "setup"] }),
        off: { autoStart: false },
        setup: { policy: RestartPolicy.make({ restart: "temporary" }), keep: true }
      })
      yield* probes.crash("setup")
      assert.deepStrictEqual(yield* states, { app: "waiting for elsewhere off setup", off: "stopped", setup: "failed" })
    })
  )
})

describe("after", () => {
  it.effect("holds a start back until the other is up, whatever the order of the list", () =>
    Effect.gen(function* () {
      const { probes, states } = yield* pod({ app: needs({ after: ["db"] }), db: slow })
      assert.deepStrictEqual(probes.take(), ["start db"])
      assert.deepStrictEqual(yield* states, { app: "waiting for db", db: "starting" })
      yield* probes.ready("db")
      assert.deepStrictEqual(yield* states, { app: "running", db: "running" })
    })
  )

  it.effect("is order and nothing else: a failing start lets the other go on, a crash leaves it alone", () =>
    Effect.gen(function* () {
      const { probes, states } = yield* pod({ app: needs({ after: ["db"] }), db: { failing: () => "no" } })
      assert.deepStrictEqual(yield* states, { app: "running", db: "backing-off" })
      assert.deepStrictEqual(probes.take(), ["start db", "start app"])
    })
  )

  it.effect("when the supervisor starts anew it waits also for one that was stopped then and now comes back", () =>
    Effect.gen(function* () {
      const { probes, root } = yield* pod({ app: needs({ after: ["db"] }), db: {} })
      yield* root.tree.stop("init/pod/db")
      yield* root.tree.restart("init/pod")
      assert.deepStrictEqual(probes.take().slice(-2), ["start db", "start app"])
    })
  )

  it.effect("one that is not there, or is stopped, holds nobody up", () =>
    Effect.gen(function* () {
      const { states } = yield* pod({
        app: needs({ after: ["elsewhere", "off"] }),
        off: { autoStart: false }
      })
      assert.deepStrictEqual(yield* states, { app: "running", off: "stopped" })
    })
  )
})

describe("requires", () => {
  it.effect("waits for one that is stopped, or not there, and starts with it", () =>
    Effect.gen(function* () {
      const { dynamic, probes, root, states } = yield* pod({
        app: needs({ requires: ["db", "later"] }),
        db: { autoStart: false }
      })
      assert.deepStrictEqual(yield* states, { app: "waiting for db later", db: "stopped" })
      yield* root.tree.start("init/pod/db")
      assert.deepStrictEqual(yield* states, { app: "waiting for later", db: "running" })
      yield* dynamic.startChild(probes.make("later"))
      assert.deepStrictEqual(yield* states, { app: "running", db: "running", later: "running" })
    })
  )

  it.effect("survives a crash of the other, but its own next start waits for it", () =>
    Effect.gen(function* () {
      const { probes, states } = yield* pod({ db: {}, app: needs({ requires: ["db"] }) })
      yield* probes.crash("db")
      assert.deepStrictEqual(yield* states, { db: "backing-off", app: "running" })
      yield* TestClock.adjust(500)
      yield* probes.crash("app")
      yield* TestClock.adjust(499)
      assert.deepStrictEqual(yield* states, { db: "backing-off", app: "backing-off" })
      yield* TestClock.adjust(501)
      assert.deepStrictEqual(yield* states, { db: "running", app: "running" })
    })
  )

  it.effect("the other is still down when its own back-off is over: it waits, and spends nothing", () =>
    Effect.gen(function* () {
      const long = RestartPolicy.make({ backoff: { initial: 5_000, jitter: 0 } })
      const { probes, root, states } = yield* pod({ db: { policy: long }, app: needs({ requires: ["db"] }) })
      yield* probes.crash("db")
      yield* probes.crash("app")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* states, { db: "backing-off", app: "waiting for db" })
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(yield* states, { db: "running", app: "running" })
      assert.deepInclude(yield* root.tree.get("init/pod/app"), { restarts: 1, attempt: 1 })
    })
  )

  it.effect("ends before the other does that a person stops, and follows when he starts it", () =>
    Effect.gen(function* () {
      const { probes, root, states } = yield* pod({
        db: {},
        app: needs({ requires: ["db"] }),
        web: needs({ requires: ["app"] }),
        other: {}
      })
      probes.take()
      yield* root.tree.stop("init/pod/db")
      assert.deepStrictEqual(probes.take(), ["hook web", "close web", "hook app", "close app", "hook db", "close db"])
      assert.deepStrictEqual(yield* states, {
        db: "stopped",
        app: "waiting for db",
        web: "waiting for app",
        other: "running"
      })
      yield* root.tree.restart("init/pod/db")
      assert.deepStrictEqual(probes.take(), ["start db", "start app", "start web"])
      yield* root.tree.restart("init/pod/db")
      assert.deepStrictEqual(probes.take().slice(-3), ["start db", "start app", "start web"])
    })
  )

  it.effect("a person's stop of the one that waits stands when the other comes", () =>
    Effect.gen(function* () {
      const { root, states } = yield* pod({ db: { autoStart: false }, app: needs({ requires: ["db"] }) })
      yield* root.tree.stop("init/pod/app")
      yield* root.tree.start("init/pod/db")
      assert.deepStrictEqual(yield* states, { db: "running", app: "stopped" })
    })
  )
})

describe("bindsTo", () => {
  it.effect("ends when the other crashes, and is up again after it", () =>
    Effect.gen(function* () {
      const { probes, root, states } = yield* pod({
        vpn: {},
        app: needs({ bindsTo: ["vpn"] }),
        web: needs({ bindsTo: ["app"] })
      })
      probes.take()
      yield* probes.crash("vpn")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(probes.take(), ["close vpn", "hook web", "close web", "hook app", "close app"])
      assert.deepStrictEqual(yield* states, { vpn: "backing-off", app: "waiting for vpn", web: "waiting for app" })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(probes.take(), ["start vpn", "start app", "start web"])
      assert.deepInclude(yield* root.tree.get("init/pod/app"), { restarts: 1, attempt: 0 })
    })
  )

  it.effect("the other is not restarted, even at once, before those that are bound to it have ended", () =>
    Effect.gen(function* () {
      const { probes, states } = yield* pod({
        vpn: { policy: RestartPolicy.permanent },
        app: { ...needs({ bindsTo: ["vpn"] }), hook: Effect.sleep("2 seconds") }
      })
      probes.take()
      yield* probes.crash("vpn")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* states, { vpn: "waiting for app", app: "stopping" })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(probes.take(), ["close vpn", "hook app", "close app", "start vpn", "start app"])
    })
  )

  it.effect("one that ends with the other for good is not waited for any longer", () =>
    Effect.gen(function* () {
      const { probes, states } = yield* pod({
        vpn: { policy: RestartPolicy.permanent },
        app: { ...needs({ bindsTo: ["vpn"] }), policy: RestartPolicy.temporary }
      })
      probes.take()
      yield* probes.crash("vpn")
      assert.deepStrictEqual(probes.take(), ["close vpn", "hook app", "close app", "start vpn"])
      assert.deepStrictEqual(yield* states, { vpn: "running" })
    })
  )

  it.effect("a normal end of the other that is the end ends it too", () =>
    Effect.gen(function* () {
      const { probes, states } = yield* pod({
        vpn: { policy: RestartPolicy.transient },
        app: needs({ bindsTo: ["vpn"] })
      })
      yield* probes.finish("vpn")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(yield* states, { vpn: "finished", app: "waiting for vpn" })
    })
  )
})

describe("an end of all", () => {
  it.effect("goes the other way round, each when those that name it have ended", () =>
    Effect.gen(function* () {
      const { probes, root } = yield* pod({
        db: {},
        app: { ...needs({ requires: ["db"] }), hook: Effect.sleep("1 second") },
        web: { ...needs({ after: ["app"] }), hook: Effect.sleep("1 second") },
        other: {}
      })
      probes.take()
      const ending = yield* Effect.forkScoped(root.end("stop"))
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(probes.take(), ["hook web", "hook other", "close other"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(probes.take(), ["close web", "hook app"])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(probes.take(), ["close app", "hook db", "close db"])
      yield* Fiber.join(ending)
      assert.deepInclude(yield* root.resources, { timers: 0 })
    })
  )

  it.effect("forgets nobody when the one that he was held for ends by itself meanwhile", () =>
    Effect.gen(function* () {
      let crash: Effect.Effect<void> = Effect.void
      const { probes, root } = yield* pod({
        db: {},
        // ended between the two, and takes app with it before its turn has come
        trigger: { finalizer: Effect.suspend(() => crash) },
        app: needs({ requires: ["db"] })
      })
      crash = Effect.suspend(() => probes.crash("app"))
      probes.take()
      yield* root.end("release")
      assert.deepStrictEqual(probes.take(), ["close trigger", "close app", "close db"])
    })
  )
})

describe("under a static supervisor", () => {
  it.effect("who waits holds up neither the supervisor nor those behind it", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [
        probes.make("db", { autoStart: false }),
        probes.make("app", needs({ requires: ["db"] })),
        probes.make("web")
      ]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      assert.deepStrictEqual(probes.take(), ["start web"])
      yield* root.tree.start("init/db")
      assert.deepStrictEqual(probes.take(), ["start db", "start app"])
    })
  )
})
