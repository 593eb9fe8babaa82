/** Names: unique, held as long as an incarnation, free before its supervisor hears of the end, waited for without polling. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actor/Actor.ts"
import type { Provided } from "../../src/actor/ChildSpec.ts"
import * as Registry from "../../src/actor/Registry.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Tree } from "../../src/actor/Tree.ts"
import type { ChildSpec } from "../../src/actor/ChildSpec.ts"

const permanent = { policy: RestartPolicy.permanent }

const init = (...children: ReadonlyArray<ChildSpec<unknown, never>>) =>
  Root.start(Supervisor.make("init", { intensity: 1_000, children }))

/** Registers, is ready, then does `act`. */
const named = (id: string, name: string, act: Effect.Effect<unknown, unknown, Provided> = Effect.never) =>
  Actor.make(
    id,
    permanent,
    Effect.gen(function* () {
      yield* Registry.register(name)
      yield* Actor.ready({ pid: "7" })
      yield* act
    })
  )

const outside = <A, E>(root: Root.Root, effect: Effect.Effect<A, E, Tree>) =>
  Effect.provideService(effect, Tree, root.tree)

describe("a name", () => {
  it.effect("is found by everybody and shown in the tree, from the start to the end of an incarnation", () =>
    Effect.gen(function* () {
      const root = yield* init(named("a", "storage"), named("b", "network"))
      assert.strictEqual(yield* outside(root, Registry.whereis("storage")), "init/a")
      assert.deepStrictEqual(
        [...(yield* outside(root, Registry.names))],
        [
          ["storage", "init/a"],
          ["network", "init/b"]
        ]
      )
      assert.deepStrictEqual((yield* root.tree.get("init/a")).annotations, { name: "storage", pid: "7" })
      yield* root.tree.stop("init/a")
      assert.strictEqual(yield* outside(root, Registry.whereis("storage")), undefined)
      yield* root.end("release")
      assert.strictEqual((yield* outside(root, Registry.names)).size, 0)
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("is held by one; the other fails with who holds it", () =>
    Effect.gen(function* () {
      const policy = RestartPolicy.make({ backoff: { initial: 1_000, jitter: 0 } })
      const second = Actor.make(
        "b",
        { policy },
        Effect.andThen(Actor.ready(), Effect.andThen(Registry.register("one"), Effect.never))
      )
      const root = yield* init(named("a", "one"), second)
      const { lastExit, state } = yield* root.tree.get("init/b")
      assert.strictEqual(state, "backing-off")
      assert.deepInclude(lastExit, {
        tag: "NameTaken",
        message: 'the name "one" is held by init/a: stop that one, or take another name'
      })
      yield* root.tree.stop("init/a")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* outside(root, Registry.whereis("one")), "init/b")
    })
  )

  it.effect("may be one of several, taken twice and given back", () =>
    Effect.gen(function* () {
      const act = Effect.gen(function* () {
        yield* Registry.register("b")
        yield* Registry.register("a")
        yield* Effect.sleep(1)
        yield* Registry.unregister("a")
        yield* Registry.unregister("nobody's")
        return yield* Effect.never
      })
      const root = yield* init(named("x", "a", act))
      assert.strictEqual((yield* root.tree.get("init/x")).annotations["name"], "a, b")
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* root.tree.get("init/x")).annotations["name"], "b")
      assert.deepStrictEqual([...(yield* outside(root, Registry.names)).keys()], ["b"])
    })
  )

  it.effect("is never met by the next incarnation of its own holder (OTP's fault before 26)", () =>
    Effect.gen(function* () {
      const ends: Array<string> = []
      const unstable = Actor.make(
        "a",
        permanent,
        Effect.gen(function* () {
          const { incarnation, previousExit } = yield* Actor.Self
          if (previousExit !== undefined) ends.push(previousExit.tag)
          yield* Effect.addFinalizer(() => Effect.yieldNow)
          if (incarnation % 2 === 1) yield* Actor.ready()
          yield* Registry.register("one")
          return yield* incarnation < 100 ? Effect.fail("again") : Effect.andThen(Actor.ready(), Effect.never)
        })
      )
      const root = yield* init(unstable)
      while ((yield* root.tree.get("init/a")).incarnation < 100) yield* Effect.yieldNow
      assert.deepStrictEqual([...new Set(ends)], ["string"])
      assert.strictEqual(yield* outside(root, Registry.whereis("one")), "init/a")
    })
  )

  it.effect("is free when a start is given up, also when finalizers hang", () =>
    Effect.gen(function* () {
      const hanging = Actor.make(
        "a",
        { policy: RestartPolicy.make({ backoff: { initial: 60_000 } }), startDeadline: 1_000 },
        Effect.gen(function* () {
          if ((yield* Actor.Self).incarnation === 1) yield* Actor.ready()
          yield* Registry.register("one")
          yield* Effect.addFinalizer(() => Effect.never)
          return yield* Effect.never
        })
      )
      const root = yield* init(hanging)
      const restarting = yield* Effect.forkScoped(Effect.exit(root.tree.restart("init/a")))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* outside(root, Registry.whereis("one")), "init/a", "of the second life")
      yield* TestClock.adjust("6 seconds")
      yield* Fiber.join(restarting)
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "backing-off" })
      assert.strictEqual(yield* outside(root, Registry.whereis("one")), undefined)
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("is not for a fiber that has outlived its incarnation", () =>
    Effect.gen(function* () {
      const exits: Array<string> = []
      const late = Effect.forkDetach(
        Effect.onExit(Effect.andThen(Effect.sleep(1), Registry.register("one")), (exit) =>
          Effect.sync(() => void exits.push(exit._tag))
        )
      )
      const root = yield* init(
        Actor.make("a", { policy: RestartPolicy.transient }, Effect.andThen(Actor.ready(), late))
      )
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(exits, ["Failure"])
      assert.strictEqual(yield* outside(root, Registry.whereis("one")), undefined)
    })
  )
})

describe("waiting for a name", () => {
  it.effect("ends when somebody holds it, for all who wait and are not gone", () =>
    Effect.gen(function* () {
      const root = yield* init(named("a", "now"), { ...named("b", "later"), autoStart: false })
      const wait = (name: string) => Effect.forkScoped(outside(root, Registry.awaitName(name)))
      assert.strictEqual(yield* Fiber.join(yield* wait("now")), "init/a")
      const waiting = yield* Effect.forEach([1, 2, 3], () => wait("later"))
      yield* Effect.yieldNow
      const [first, ...others] = waiting
      if (first !== undefined) yield* Fiber.interrupt(first)
      yield* root.tree.start("init/b")
      assert.deepStrictEqual(yield* Effect.forEach(others, Fiber.join), ["init/b", "init/b"])
    })
  )

  it.effect("goes on when the one that took it died at once", () =>
    Effect.gen(function* () {
      let lives = 0
      const act = Effect.suspend(() => (++lives < 5 ? Effect.fail("at once") : Effect.never))
      const root = yield* init({ ...named("a", "one", act), autoStart: false })
      const waiting = yield* Effect.forkScoped(outside(root, Registry.awaitName("one")))
      yield* Effect.yieldNow
      yield* root.tree.start("init/a")
      assert.strictEqual(yield* Fiber.join(waiting), "init/a")
      assert.deepInclude(yield* root.tree.get("init/a"), { incarnation: 5 })
    })
  )
})
