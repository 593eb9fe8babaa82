/**
 * Slow actors, overlapping calls, random times: no exact model, but what must always hold.
 *
 * 1. An actor never has two incarnations at a time: the next one starts when the last finalizer of the one before is done.
 * 2. The tree never shows a leaf as running that does not run, and never as ended one that does.
 * 3. Folding the watch gives the snapshot.
 * 4. After the end nothing is left: no incarnation, timer, watcher or fiber.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actor/Actor.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as Lifecycle from "../../src/actor/Lifecycle.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Case, type Handle, type Placed, placesOf, shapeOf, specOf, withPolicy } from "./Cases.ts"
import { Fold, sorted } from "./Fold.ts"
import { nothingHeld } from "./Held.ts"
import { Crash } from "./Probe.ts"
import type { Shape } from "./Shape.ts"

/** Leaves that take their time, always the same for the same place and life. */
class SlowActors {
  readonly live = new Map<string, number>()
  readonly #crashes = new Map<string, (crash: Crash | undefined) => void>()

  readonly make = ({ dependencies = {}, id, policy, significant = false }: Shape): Actor.ChildSpec<Crash, never> => {
    let lives = 0
    const run = Effect.gen({ self: this }, function* () {
      const time = (id.charCodeAt(id.length - 1) * 7 + ++lives * 13) % 5
      assert.strictEqual(this.live.get(id) ?? 0, 0, `two incarnations of ${id} at a time`)
      this.live.set(id, 1)
      yield* Effect.addFinalizer(() =>
        Effect.andThen(
          time === 1 ? Effect.sleep(30) : Effect.void,
          Effect.sync(() => this.live.set(id, 0))
        )
      )
      yield* Actor.onStop(time === 2 ? Effect.sleep(120) : time === 3 ? Effect.yieldNow : Effect.void)
      if (time === 4) yield* Effect.sleep(40)
      if (lives % 4 === 3) return yield* new Crash({ text: "slow start failed" })
      yield* Actor.ready({ life: `${lives}` })
      return yield* Effect.callback<void, Crash>((resume) => {
        this.#crashes.set(id, (crash) => resume(crash === undefined ? Effect.void : Effect.fail(crash)))
      })
    })
    return Actor.make(id, { policy, significant, dependencies, shutdown: 100, startDeadline: 1_000 }, run)
  }

  end(id: string, crash: boolean): void {
    const end = this.#crashes.get(id)
    this.#crashes.delete(id)
    end?.(crash ? new Crash({ text: "told to" }) : undefined)
  }
}

const check = Effect.fnUntraced(function* (example: Case) {
  const shape = shapeOf(example, { dynamics: true, dependencies: true })
  const places = placesOf(shape)
  const handles = new Map<string, Handle>()
  const actors = new SlowActors()
  const spec = yield* specOf(shape, actors.make, handles)
  const starting = yield* Effect.forkScoped(Effect.option(Root.start(spec)))
  yield* TestClock.adjust(500)
  const exit = starting.pollUnsafe()
  // A tree whose first start fails must leave nothing either; that is checked below.
  if (exit?._tag === "Success" && exit.value._tag === "Some") {
    const root = exit.value.value
    const { tree } = root
    const fold = new Fold()
    yield* Effect.forkScoped(Stream.runForEach(tree.watch(), (event) => Effect.sync(() => fold.apply(event))))
    const callOf = (
      act: Case["actions"][number]["act"],
      place: Placed,
      amount: number
    ): Effect.Effect<unknown, unknown> => {
      const { path, shape } = place
      const handle = handles.get(path.slice(0, Math.max(0, path.lastIndexOf("/"))))
      switch (act) {
        case "stop":
          return tree.stop(path)
        case "start":
        case "failing start":
          return tree.start(path)
        case "restart":
          return tree.restart(path)
        case "remove":
          return tree.remove(path)
        case "add":
        case "reload": {
          if (handle === undefined || shape.group !== undefined) return Effect.void
          const spec = actors.make(withPolicy(place, amount))
          return act === "add" ? handle.startChild(spec) : handle.reloadSpecs([spec])
        }
        case "wait":
        case "step":
          return TestClock.adjust(amount * 20)
        case "crash":
        case "finish":
          return Effect.sync(() => actors.end(shape.id, act === "crash"))
      }
    }
    for (const { act, amount, target } of example.actions) {
      const place = places[target % places.length] ?? { path: "init", shape, within: undefined }
      const call = callOf(act, place, amount)
      yield* act === "wait" || act === "step" ? call : Effect.forkScoped(Effect.ignore(call))
      if (amount % 3 === 0) yield* TestClock.adjust(amount)
      else yield* Effect.yieldNow

      const snapshot = yield* tree.snapshot()
      for (const node of snapshot.nodes) {
        const last = node.path.slice(node.path.lastIndexOf("/") + 1)
        if (node.type !== "worker") continue
        const lives = actors.live.get(last) === 1
        if (node.state === "running") assert.isTrue(lives, `${node.path} is shown running`)
        if (!Lifecycle.isAlive(node.state)) assert.isFalse(lives, `${node.path} is shown ${node.state} but lives`)
      }
    }
    yield* TestClock.adjust(0)
    assert.deepStrictEqual(fold.known, sorted((yield* tree.snapshot()).nodes))
    const ending = yield* Effect.forkScoped(root.end(example.actions.length % 2 === 0 ? "stop" : "release"))
    yield* TestClock.adjust(20_000)
    assert.isDefined(ending.pollUnsafe(), "the end did not come")
    const { actors: _, ...left } = yield* root.resources
    assert.deepStrictEqual(left, nothingHeld)
  }
  assert.deepStrictEqual(
    [...actors.live].filter(([, lives]) => lives === 1),
    []
  )
})

const counting = () => {
  let fibers = 0
  const service: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => void fibers++,
    recordFiberEnd: () => void fibers--
  }
  return { service, count: () => fibers }
}

describe("what must always hold", () => {
  it.effect.prop(
    "whatever happens while actors start and end slowly",
    { example: Case },
    ({ example }) => Effect.scopedWith((scope) => Effect.provideService(check(example), Scope.Scope, scope)),
    { arbitrary: { runs: 1_000, size: 60 } }
  )

  it.effect("ten thousand restarts leave no fiber, timer or entry behind", () => {
    const counter = counting()
    return Effect.gen(function* () {
      const crash = new Map<string, () => void>()
      const child = (id: string, policy: RestartPolicy.RestartPolicy) =>
        Actor.make(
          id,
          { policy },
          Effect.gen(function* () {
            yield* Effect.acquireRelease(Effect.void, () => Effect.void)
            yield* Effect.forkScoped(Effect.never)
            yield* Actor.onStop(Effect.void)
            yield* Actor.ready()
            return yield* Effect.callback<never, Crash>((resume) => {
              crash.set(id, () => resume(Effect.fail(new Crash({ text: "again" }))))
            })
          })
        )
      const patient = RestartPolicy.make({ backoff: { max: 100, jitter: 0 } })
      const names = Array.from({ length: 100 }, (_, index) => `child-${index}`)
      const pool = yield* DynamicSupervisor.make("pool", { children: Effect.succeed([]) })
      const before = counter.count()
      const root = yield* Root.start(Supervisor.make("init", { children: [pool.spec] }))
      for (const [index, id] of names.entries()) {
        yield* pool.startChild(child(id, index % 2 === 0 ? RestartPolicy.permanent : patient))
      }
      yield* TestClock.adjust(1)
      const running = counter.count()
      for (let round = 0; round < 100; round++) {
        for (const id of names) crash.get(id)?.()
        yield* TestClock.adjust(100)
      }
      assert.deepStrictEqual(
        (yield* pool.whichChildren).map((node) => [node.state, node.restarts]),
        names.map(() => ["running", 100])
      )
      assert.deepStrictEqual(yield* root.resources, { actors: 102, ...nothingHeld })
      assert.strictEqual(counter.count(), running)
      for (const id of names) {
        yield* pool.terminateChild(id)
        yield* pool.deleteChild(id)
      }
      assert.deepStrictEqual(yield* root.resources, { actors: 2, ...nothingHeld })
      yield* root.end("stop")
      yield* TestClock.adjust(1)
      assert.strictEqual(counter.count(), before)
    }).pipe(Effect.provideService(Metric.FiberRuntimeMetrics, counter.service))
  })
})
