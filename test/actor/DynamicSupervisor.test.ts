/** Dynamic supervisors: children that come and go, the desired state they are restored from, typed answers. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actor/Actor.ts"
import type { ChildSpec } from "../../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Crash, Probes } from "./Probe.ts"

const started = Effect.fnUntraced(function* (
  options: DynamicSupervisor.Options<Crash, never, never>,
  permanent = RestartPolicy.permanent
) {
  const dynamic = yield* DynamicSupervisor.make("pool", { policy: permanent, ...options })
  const root = yield* Root.start(Supervisor.make("init", { children: [dynamic.spec] }))
  return { dynamic, root }
})

const none: Effect.Effect<ReadonlyArray<ChildSpec<unknown, never>>> = Effect.succeed([])

describe("startChild", () => {
  it.effect("answers after the acknowledgement, or once registered", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const { dynamic, root } = yield* started({ children: none })
      const waiting = yield* Effect.forkScoped(dynamic.startChild(probes.make("a", { readyAtOnce: false })))
      yield* Effect.yieldNow
      assert.strictEqual(waiting.pollUnsafe(), undefined)
      const path = yield* dynamic.startChild(probes.make("b", { readyAtOnce: false }), { wait: "registered" })
      assert.strictEqual(path, "init/pool/b")
      assert.deepInclude(yield* root.tree.get("init/pool/b"), { state: "starting" })
      yield* probes.ready("a")
      assert.strictEqual(yield* Fiber.join(waiting), "init/pool/a")
      assert.deepStrictEqual(yield* dynamic.countChildren, { specs: 2, active: 2, supervisors: 0, workers: 2 })
    })
  )

  it.effect("refuses with typed answers", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const { dynamic, root } = yield* started({ children: none, maxChildren: 2 })
      yield* dynamic.startChild(probes.make("a"))
      yield* dynamic.startChild(probes.make("b"))
      const tagOf = (id: string) => Effect.map(Effect.flip(dynamic.startChild(probes.make(id))), (error) => error._tag)
      assert.strictEqual(yield* tagOf("a"), "AlreadyStarted")
      assert.strictEqual(yield* tagOf("c"), "MaxChildren")
      yield* dynamic.terminateChild("a")
      assert.strictEqual(yield* tagOf("a"), "AlreadyPresent")
      yield* dynamic.deleteChild("a")
      assert.strictEqual((yield* Effect.flip(dynamic.deleteChild("b")))._tag, "StillRunning")
      assert.strictEqual((yield* Effect.flip(dynamic.deleteChild("x")))._tag, "NoSuchActor")
      assert.strictEqual((yield* Effect.flip(dynamic.restartChild("x")))._tag, "NoSuchActor")
      yield* root.tree.stop("init/pool")
      assert.strictEqual(yield* tagOf("c"), "SupervisorDown")
    })
  )

  it.effect("a failing first start is the child's own affair: the caller hears of it, its policy goes on", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      let failing = 2
      const policy = RestartPolicy.make({ backoff: { initial: 100, jitter: 0 } })
      const { dynamic, root } = yield* started({ children: none })
      yield* dynamic.startChild(probes.make("other"))
      const child = probes.make("a", { policy, failing: () => (failing-- > 0 ? "no image" : undefined) })
      const error = yield* Effect.flip(dynamic.startChild(child))
      assert.strictEqual(error.message, "init/pool/a did not start: Crash: no image")
      assert.deepInclude(yield* root.tree.get("init/pool/a"), { state: "backing-off", attempt: 1 })
      yield* TestClock.adjust(100)
      assert.deepInclude(yield* root.tree.get("init/pool/a"), { state: "backing-off", attempt: 2 })
      yield* TestClock.adjust(200)
      assert.deepInclude(yield* root.tree.get("init/pool/a"), { state: "running", restarts: 2 })
      assert.deepInclude(yield* root.tree.get("init/pool/other"), { incarnation: 1 })
    })
  )

  it.effect("a temporary child that ends is gone", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const { dynamic } = yield* started({ children: none })
      yield* dynamic.startChild(probes.make("a", { policy: RestartPolicy.temporary }))
      yield* dynamic.startChild(probes.make("b", { policy: RestartPolicy.temporary }))
      yield* probes.crash("a")
      yield* probes.finish("b")
      assert.deepStrictEqual(yield* dynamic.whichChildren, [])
    })
  )
})

describe("the desired state", () => {
  it.effect("is evaluated at every start of the supervisor: children come back, vanished ones go", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      let desired = ["a", "b"]
      const spec = (id: string) => probes.make(id, { policy: RestartPolicy.permanent })
      const { dynamic, root } = yield* started({
        children: Effect.sync(() => desired.map(spec)),
        intensity: 0
      })
      yield* dynamic.startChild(spec("c"))
      desired = ["b", "c", "d"]
      yield* probes.crash("a")
      const children = yield* dynamic.whichChildren
      assert.deepStrictEqual(
        children.map((node) => [node.path, node.state, node.incarnation]),
        [
          ["init/pool/b", "running", 2],
          ["init/pool/c", "running", 2],
          ["init/pool/d", "running", 1]
        ]
      )
      assert.deepInclude((yield* root.tree.get("init/pool")).lastExit, { tag: "RestartIntensityReached" })
    })
  )

  it.effect("one failing child takes no other down, and children that a person stopped are shown", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const policy = RestartPolicy.make({})
      const { dynamic } = yield* started({
        children: Effect.succeed([
          probes.make("a"),
          probes.make("bad", { policy, failing: () => "broken" }),
          probes.make("held", { autoStart: false }),
          probes.make("slow", { readyAtOnce: false }),
          probes.make("z")
        ])
      })
      const children = yield* dynamic.whichChildren
      assert.deepStrictEqual(
        children.map((node) => node.state),
        ["running", "backing-off", "stopped", "starting", "running"]
      )
    })
  )

  it.effect("that cannot be had is a failed start of the supervisor", () =>
    Effect.gen(function* () {
      const dynamic = yield* DynamicSupervisor.make("pool", { children: Effect.fail(new Crash({ text: "no state" })) })
      const failed = yield* Effect.flip(Root.start(Supervisor.make("init", { children: [dynamic.spec] })))
      assert.strictEqual(failed.message, "init ended: StartFailed: init/pool did not start: Crash: no state")
    })
  )

  it.effect("may acquire what the children share, given back after they ended", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const say = (text: string) => Effect.sync(() => void probes.log.push(text))
      const dynamic = yield* DynamicSupervisor.make("sandbox", {
        kind: "sandbox",
        children: Effect.gen(function* () {
          yield* Effect.acquireRelease(say("namespace"), () => say("namespace closed"))
          yield* Actor.onStop(say("namespace removed"))
          return [probes.make("a")]
        })
      })
      const root = yield* Root.start(Supervisor.make("init", { children: [dynamic.spec] }))
      yield* root.end("stop")
      assert.deepStrictEqual(probes.take(), [
        "namespace",
        "start a",
        "hook a",
        "close a",
        "namespace removed",
        "namespace closed"
      ])
    })
  )

  it.effect("has no start deadline left once it is up", () =>
    Effect.gen(function* () {
      const { root } = yield* started({ children: none, startDeadline: "1 second" })
      yield* TestClock.adjust("1 hour")
      assert.deepInclude(yield* root.tree.get("init/pool"), { state: "running", incarnation: 1 })
      assert.deepInclude(yield* root.resources, { timers: 0 })
    })
  )
})

describe("parallel stop", () => {
  it.effect("gives each child its own deadline, all at once", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const { dynamic, root } = yield* started({ children: none })
      for (const [id, seconds] of [
        ["a", 3],
        ["b", 1],
        ["c", 2]
      ] as const) {
        yield* dynamic.startChild(probes.make(id, { shutdown: seconds * 1_000, hook: Effect.never }))
      }
      probes.take()
      const ending = yield* Effect.forkScoped(root.end("stop"))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(probes.take(), ["hook a", "hook b", "hook c", "close b"])
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(ending)
      assert.deepStrictEqual(probes.take(), ["close c", "close a"])
    })
  )
})

describe("a person's hand", () => {
  it.effect("restart ends with hooks and starts at once, from any state", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const policy = RestartPolicy.make({ backoff: { initial: 60_000 } })
      const { dynamic, root } = yield* started({ children: none })
      yield* dynamic.startChild(probes.make("a", { policy }))
      probes.take()
      yield* dynamic.restartChild("a")
      assert.deepStrictEqual(probes.take(), ["hook a", "close a", "start a"])
      yield* probes.crash("a")
      yield* dynamic.restartChild("a")
      assert.deepInclude(yield* root.tree.get("init/pool/a"), { state: "running", attempt: 0, incarnation: 3 })
      yield* dynamic.terminateChild("a")
      yield* dynamic.terminateChild("a")
      yield* dynamic.restartChild("a")
      assert.deepInclude(yield* root.tree.get("init/pool/a"), { state: "running", incarnation: 4, restarts: 0 })
      assert.deepInclude(yield* root.resources, { timers: 0 })
    })
  )

  it.effect("a stop while it starts, backs off or stops is remembered", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const { dynamic, root } = yield* started({ children: none })
      yield* dynamic.startChild(probes.make("a", { readyAtOnce: false }), { wait: "registered" })
      yield* dynamic.startChild(probes.make("b", { policy: RestartPolicy.workload }))
      yield* probes.crash("b")
      const waiting = yield* Effect.forkScoped(Effect.flip(root.tree.restart("init/pool/a")))
      yield* Effect.yieldNow
      yield* root.tree.stop("init/pool/a")
      yield* root.tree.stop("init/pool/b")
      yield* TestClock.adjust("1 hour")
      for (const id of ["a", "b"]) {
        assert.deepInclude(yield* root.tree.get(`init/pool/${id}`), { state: "stopped", nextAttemptAt: undefined })
      }
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "StartFailed")
    })
  )

  it.effect("a policy changes live", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const { dynamic, root } = yield* started({ children: none })
      yield* dynamic.startChild(probes.make("a", { policy: RestartPolicy.permanent }))
      yield* root.tree.setPolicy("init/pool/a", RestartPolicy.transient)
      yield* probes.finish("a")
      assert.deepInclude(yield* root.tree.get("init/pool/a"), { state: "finished" })
    })
  )

  it.effect("cannot reach the root or what is not there", () =>
    Effect.gen(function* () {
      const { root } = yield* started({ children: none })
      assert.strictEqual((yield* Effect.flip(root.tree.stop("init")))._tag, "NotSupervised")
      assert.strictEqual((yield* Effect.flip(root.tree.restart("init")))._tag, "NotSupervised")
      assert.strictEqual((yield* Effect.flip(root.tree.stop("init/x")))._tag, "NoSuchActor")
      assert.strictEqual((yield* Effect.flip(root.tree.get("x")))._tag, "NoSuchActor")
      assert.strictEqual((yield* Effect.flip(root.tree.start("init/pool")))._tag, "AlreadyStarted")
    })
  )
})
