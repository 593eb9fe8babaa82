/** The two endings of an actor, stop and release: hooks, order, deadlines, the kill, finalizers that hang. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actor/Actor.ts"
import * as Journal from "../../src/actor/Journal.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const events = (root: Root.Root, path: string) =>
  Effect.map(root.tree.history(path), (history) => history.map((entry) => entry.event))

describe("a temporary actor", () => {
  it.effect("that is to be kept stays when it is over, and a person can start and stop it", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const policy = RestartPolicy.temporary
      const children = [
        probes.make("kept", { policy, keep: true }),
        probes.make("done", { policy, keep: true }),
        probes.make("gone", { policy })
      ]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      yield* probes.crash("kept")
      yield* probes.finish("done")
      yield* probes.crash("gone")
      const states = Effect.map(root.tree.snapshot(), ({ nodes }) => nodes.map(({ path, state }) => `${path} ${state}`))
      assert.deepStrictEqual(yield* states, ["init running", "init/kept failed", "init/done finished"])
      yield* root.tree.start("init/kept")
      yield* root.tree.stop("init/kept")
      assert.deepStrictEqual(yield* states, ["init running", "init/kept stopped", "init/done finished"])
    })
  )
})

describe("stop hooks", () => {
  it.effect("can tell how what the actor looks after has ended", () =>
    Effect.gen(function* () {
      const actor = Actor.make(
        "a",
        {},
        Effect.gen(function* () {
          yield* Actor.onStop(Actor.stopped(Exit.fail("signal 9")))
          return yield* Effect.andThen(Actor.ready(), Effect.never)
        })
      )
      const root = yield* Root.start(Supervisor.make("init", { children: [actor] }))
      yield* root.tree.stop("init/a")
      const { lastExit, state } = yield* root.tree.get("init/a")
      assert.deepStrictEqual([state, lastExit?.class, lastExit?.message], ["stopped", "failure", "signal 9"])
      assert.deepStrictEqual(yield* events(root, "init/a"), ["started", "stopped", "ended"])
    })
  )

  it.effect("run newest first, between the finalizers, on stop only", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const say = (text: string) => Effect.sync(() => void log.push(text))
      const actor = Actor.make(
        "a",
        {},
        Effect.gen(function* () {
          yield* Actor.onStop(say("hook 1"))
          yield* Effect.addFinalizer(() => say("finalizer 1"))
          yield* Actor.onStop(say("hook 2"))
          yield* Effect.addFinalizer(() => say("finalizer 2"))
          return yield* Effect.andThen(Actor.ready(), Effect.never)
        })
      )
      const root = yield* Root.start(Supervisor.make("init", { children: [actor] }))
      yield* root.tree.restart("init/a", { ending: "release" })
      assert.deepStrictEqual(log.splice(0), ["finalizer 2", "finalizer 1"])
      yield* root.tree.stop("init/a")
      assert.deepStrictEqual(log, ["finalizer 2", "hook 2", "finalizer 1", "hook 1"])
    })
  )

  it.effect("a crash runs none", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("a", { policy: RestartPolicy.permanent })]
      yield* Root.start(Supervisor.make("init", { children }))
      yield* probes.crash("a")
      assert.deepStrictEqual(probes.take(), ["start a", "close a", "start a"])
    })
  )

  it.effect("a failing hook is told in the history and the others still run", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("a", { hook: Effect.die(new Error("no such process")) })]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      yield* root.tree.stop("init/a")
      assert.deepStrictEqual(yield* events(root, "init/a"), ["started", "stopped", "stop-hook-failed"])
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "stopped" })
    })
  )
})

describe("the shutdown deadline", () => {
  it.effect("interrupts the hook that runs and skips the rest; finalizers still run", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("a"), probes.make("b", { shutdown: "2 seconds", hook: Effect.never })]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      probes.take()
      const ending = yield* Effect.forkScoped(root.end("stop"))
      yield* TestClock.adjust(1_999)
      assert.deepStrictEqual(probes.take(), ["hook b"])
      assert.deepInclude(yield* root.tree.get("init/b"), { state: "stopping" })
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(probes.take(), ["close b", "hook a", "close a"])
      yield* Fiber.join(ending)
      assert.deepStrictEqual(yield* events(root, "init/b"), ["started", "stopped", "killed", "stop-hook-failed"])
    })
  )

  it.effect("brutal-kill runs no hook", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("a", { shutdown: "brutal-kill" })]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      yield* root.end("stop")
      assert.deepStrictEqual(probes.take(), ["start a", "close a"])
    })
  )

  it.effect("infinity waits as long as it takes", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("a", { shutdown: "infinity", hook: Effect.sleep("3 days") })]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      const ending = yield* Effect.forkScoped(root.end("stop"))
      yield* TestClock.adjust("2 days")
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "stopping" })
      yield* TestClock.adjust("1 day")
      yield* Fiber.join(ending)
      assert.deepStrictEqual(probes.take(), ["start a", "hook a", "close a"])
    })
  )

  it.effect("a finalizer that hangs after the kill is abandoned, and the tree says so", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("a", { shutdown: 1_000, finalizer: Effect.never })]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      const ending = yield* Effect.forkScoped(root.end("stop"))
      yield* TestClock.adjust(5_999)
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "stopping" })
      yield* TestClock.adjust(1)
      yield* Fiber.join(ending)
      assert.deepStrictEqual(yield* events(root, "init/a"), ["started", "stopped", "killed", "abandoned"])
    })
  )

  it.effect("a supervisor's own deadline kills whatever is left below", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const inner = Supervisor.make("inner", {
        shutdown: "1 second",
        children: [
          probes.make("a", { shutdown: "infinity", hook: Effect.never }),
          probes.make("b", { shutdown: "infinity", hook: Effect.never })
        ]
      })
      const root = yield* Root.start(Supervisor.make("init", { children: [inner] }))
      probes.take()
      const ending = yield* Effect.forkScoped(root.end("stop"))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(ending)
      assert.deepStrictEqual(probes.take(), ["hook b", "close b", "close a"])
    })
  )
})

describe("a start", () => {
  it.effect("that is not acknowledged in time is a failed start, and leaves nothing alive", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("a", { readyAtOnce: false, startDeadline: "1 second" })]
      const starting = yield* Effect.forkScoped(Effect.flip(Root.start(Supervisor.make("init", { children }))))
      yield* TestClock.adjust("1 second")
      const failed = yield* Fiber.join(starting)
      assert.strictEqual(
        failed.message,
        "init ended: StartFailed: init/a did not start: StartTimeout: not ready 1000 ms after its start"
      )
      assert.deepStrictEqual(probes.take(), ["start a", "close a"])
    })
  )

  it.effect("may be ignored: finished, no failure, the next one starts", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [Actor.make("nothing", {}, Actor.ignore), probes.make("a")]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      assert.deepInclude(yield* root.tree.get("init/nothing"), { state: "finished", lastExit: undefined })
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "running" })
    })
  )

  it.effect("is acknowledged by returning, too", () =>
    Effect.gen(function* () {
      const task = Actor.make("task", { policy: RestartPolicy.transient }, Effect.void)
      const root = yield* Root.start(Supervisor.make("init", { children: [task] }))
      const node = yield* root.tree.get("init/task")
      assert.deepInclude(node, { state: "finished", incarnation: 1 })
      assert.deepInclude(node.lastExit, { class: "normal" })
    })
  )

  it.effect("knows its path, incarnation and the previous exit, and shows what it tells", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const actor = Actor.make(
        "a",
        { policy: RestartPolicy.permanent },
        Effect.gen(function* () {
          const self = yield* Actor.Self
          seen.push(`${self.path} ${self.incarnation} ${self.previousExit?.message ?? "-"}`)
          yield* Actor.ready({ pid: "7" })
          yield* Actor.annotate({ port: "80" })
          yield* Actor.degraded("disk slow")
          yield* Effect.sleep("1 second")
          return yield* Effect.die(new Error("bug"))
        })
      )
      const root = yield* Root.start(Supervisor.make("init", { children: [actor] }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen, ["init/a 1 -", "init/a 2 bug"])
      const node = yield* root.tree.get("init/a")
      assert.deepStrictEqual(node.annotations, { pid: "7", port: "80", degraded: "disk slow" })
      yield* root.tree.stop("init/a")
      assert.deepStrictEqual((yield* root.tree.get("init/a")).annotations, {}, "of a life that is over")
      assert.deepInclude(node.lastExit, { class: "defect", tag: "Error" })
      assert.match(node.lastExit?.detail ?? "", /Error: bug\n +at /)
    })
  )

  it.effect("that tells what it has told already changes nothing, and the journal has nothing of what it tells", () =>
    Effect.gen(function* () {
      const kept: Array<string> = []
      const journal: Journal.JournalService = {
        ...Journal.forgetful,
        append: (records) => Effect.sync(() => void kept.push(...records.map(({ _tag }) => _tag)))
      }
      const told = yield* Queue.unbounded<Readonly<Record<string, string>>>()
      const actor = Actor.make(
        "a",
        { policy: RestartPolicy.permanent },
        Effect.gen(function* () {
          yield* Actor.ready({ pid: "7" })
          return yield* Effect.forever(Effect.flatMap(Queue.take(told), Actor.annotate))
        })
      )
      const root = yield* Effect.provideService(
        Root.start(Supervisor.make("init", { children: [actor] })),
        Journal.Journal,
        journal
      )
      const after = (annotations: Readonly<Record<string, string>>) =>
        Queue.offer(told, annotations).pipe(
          Effect.andThen(TestClock.adjust("1 second")),
          Effect.andThen(root.tree.get("init/a"))
        )
      const before = yield* root.tree.get("init/a")
      assert.strictEqual(yield* after({ pid: "7", degraded: "" }), before)
      const begun = kept.length
      const degraded = yield* after({ degraded: "disk slow" })
      assert.deepStrictEqual(degraded.annotations, { pid: "7", degraded: "disk slow" })
      assert.isAbove(degraded.revision, before.revision)
      assert.deepStrictEqual((yield* after({ degraded: "" })).annotations, { pid: "7" })
      assert.deepStrictEqual(kept.slice(begun), [])
    })
  )

  it.effect("that hammers at once without delay leaves room for others", () =>
    Effect.gen(function* () {
      const policy = RestartPolicy.make({ backoff: { initial: 0 } })
      let starts = 0
      const hammer = Actor.make(
        "hammer",
        { policy },
        Effect.suspend(() => (++starts === 1 ? Effect.andThen(Actor.ready(), Effect.yieldNow) : Effect.die("no")))
      )
      const root = yield* Root.start(Supervisor.make("init", { children: [hammer] }))
      for (let turn = 0; turn < 20; turn++) yield* Effect.yieldNow
      yield* root.tree.stop("init/hammer")
      assert.deepInclude(yield* root.tree.get("init/hammer"), { state: "stopped" })
      assert.isAbove(starts, 100)
    })
  )
})
