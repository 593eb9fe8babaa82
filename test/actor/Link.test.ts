/** Links: an abnormal end passes along as a typed failure, a normal one does not; pairs, scopes, chains and cycles. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actor/Actor.ts"
import type { ChildSpec, Provided } from "../../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as Link from "../../src/actor/Link.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const permanent = { policy: RestartPolicy.permanent }

/** An actor that is ready, does `act` once in its first life, and then runs for ever. */
const linking = (id: string, act: Effect.Effect<unknown, unknown, Provided>, options: Actor.Options = permanent) =>
  Actor.make(
    id,
    options,
    Effect.gen(function* () {
      const { incarnation } = yield* Actor.Self
      yield* Actor.ready()
      if (incarnation === 1) yield* act
      return yield* Effect.never
    })
  )

/** Incarnation and last exit of each. */
const lives = Effect.fnUntraced(function* (root: Root.Root, ...ids: ReadonlyArray<string>) {
  const nodes = yield* Effect.forEach(ids, (id) => root.tree.get(`init/${id}`))
  return nodes.map(({ incarnation, lastExit }) => `${incarnation} ${lastExit?.tag ?? "-"}`)
})

const init = (...children: ReadonlyArray<ChildSpec<unknown, never>>) =>
  Root.start(Supervisor.make("init", { intensity: 1_000, children }))

describe("a link", () => {
  it.effect("ends the other with a typed failure, whoever made it", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* init(
        probes.make("a", permanent),
        linking("b", Link.link("init/a")),
        linking("c", Effect.andThen(Link.link("init/b"), Effect.andThen(Effect.sleep("1 minute"), Effect.die("bug"))))
      )
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* lives(root, "a", "b", "c"), [
        "2 LinkedActorEnded",
        "2 LinkedActorEnded",
        "2 string"
      ])
      const { lastExit } = yield* root.tree.get("init/a")
      assert.deepInclude(lastExit, { class: "failure", beforeReady: false })
      assert.strictEqual(
        lastExit?.message,
        "it was linked to init/c, which ended: string: bug",
        "along a chain the first failure is told"
      )
      yield* probes.crash("a")
      assert.deepStrictEqual(
        (yield* lives(root, "a", "b", "c")).map((life) => life[0]),
        ["3", "2", "2"]
      )
      assert.deepInclude(yield* root.resources, { bonds: 0, timers: 0 })
    })
  )

  it.effect("passes no normal end, no stop and no release", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* init(
        ...["done", "stopped", "released"].map((id) => probes.make(id, { policy: RestartPolicy.transient })),
        linking("b", Effect.forEach(["init/done", "init/stopped", "init/released"], Link.link))
      )
      yield* probes.finish("done")
      yield* root.tree.stop("init/stopped")
      yield* root.tree.restart("init/released", { ending: "release" })
      assert.deepStrictEqual(yield* lives(root, "b"), ["1 -"])
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("crashes nobody when the brain is released", () =>
    Effect.gen(function* () {
      const ids = ["a", "b", "c", "d"]
      const ring = ids.map((id, index) =>
        linking(id, Effect.yieldNow.pipe(Effect.andThen(Link.link(`init/${ids[(index + 1) % 4]}`))))
      )
      const root = yield* init(...ring)
      yield* TestClock.adjust(1)
      assert.deepInclude(yield* root.resources, { bonds: 4 })
      yield* root.end("release")
      assert.deepStrictEqual(yield* lives(root, ...ids), ["1 -", "1 -", "1 -", "1 -"])
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("in a cycle ends everybody once", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const ids = ["b", "c", "d"]
      const ring = ids.map((id, index) =>
        linking(
          id,
          Effect.andThen(
            Effect.sleep(1),
            Effect.forEach(["a", ...ids.filter((_, at) => at !== index)], (other) => Link.link(`init/${other}`))
          )
        )
      )
      const root = yield* init(probes.make("a", permanent), ...ring)
      yield* TestClock.adjust(1)
      yield* probes.crash("a")
      assert.deepStrictEqual(yield* lives(root, "a", ...ids), ["2 Crash", ...ids.map(() => "2 LinkedActorEnded")])
      assert.deepInclude(yield* root.resources, { bonds: 0, timers: 0 })
    })
  )

  it.effect("with one that does not live is a typed failure, with itself nothing", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const told: Array<string> = []
      const tell = (path: string) =>
        Effect.match(Link.link(path), {
          onFailure: ({ message }) => told.push(message),
          onSuccess: () => told.push(`linked ${path}`)
        })
      const root = yield* init(
        probes.make("a", { ...permanent, autoStart: false }),
        linking("b", Effect.forEach(["init/a", "init/b", "init/x"], tell))
      )
      assert.deepStrictEqual(told, ["init/a is not running", "linked init/b", "there is no actor init/x"])
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("also ends one that starts, and supervisors with all they have", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const dynamic = (id: string, child: ReturnType<Probes["make"]>) =>
        DynamicSupervisor.make(id, { ...permanent, children: Effect.succeed([child]) })
      const pool = yield* dynamic("pool", probes.make("child", permanent))
      const lone = yield* dynamic("lone", probes.make("late", { ...permanent, readyAtOnce: false }))
      const linked = ["init/inner", "init/pool", "init/lone/late", "init/a"]
      const root = yield* init(
        probes.make("a", permanent),
        Supervisor.make("inner", { ...permanent, children: [probes.make("slow", permanent)] }),
        pool.spec,
        lone.spec,
        linking("b", Effect.andThen(Effect.sleep(1), Effect.forEach(linked, Link.link)))
      )
      yield* TestClock.adjust(1)
      yield* probes.crash("a")
      assert.deepStrictEqual(yield* lives(root, "b", "inner", "pool", "lone", "lone/late"), [
        "2 LinkedActorEnded",
        "2 LinkedActorEnded",
        "2 LinkedActorEnded",
        "1 -",
        "2 LinkedActorEnded"
      ])
      assert.deepStrictEqual(yield* lives(root, "inner/slow", "pool/child"), ["2 -", "2 -"], "released, not crashed")
      assert.deepInclude((yield* root.tree.get("init/lone/late")).lastExit, { beforeReady: true })
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("gives the one it ends its own shutdown time, without stop hooks", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const b = probes.make("b", {
        ...permanent,
        shutdown: 2_000,
        hook: Effect.die("never"),
        finalizer: Effect.sleep("1 minute")
      })
      const root = yield* init(
        probes.make("a", permanent),
        b,
        linking("c", Effect.forEach(["init/a", "init/b"], Link.link))
      )
      // The very first sleep under a TestClock can be interrupted even in a finalizer (it forks a warning); none is first now.
      yield* TestClock.adjust(0)
      yield* probes.crash("a")
      assert.deepInclude(yield* root.tree.get("init/b"), { state: "running" })
      yield* TestClock.adjust(6_999)
      assert.deepInclude(yield* root.tree.get("init/b"), { incarnation: 1 })
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* lives(root, "b"), ["2 LinkedActorEnded"])
      const events = (yield* root.tree.history("init/b")).map(({ event }) => event)
      assert.deepStrictEqual(events, ["started", "killed", "abandoned", "ended", "started"])
      yield* Effect.forkScoped(root.end("release"))
      yield* TestClock.adjust("1 minute")
    })
  )
})

describe("a scoped link", () => {
  it.effect("lasts as long as one of those who hold it", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const scopes = [yield* Scope.make(), yield* Scope.make()]
      const hold = Effect.forEach(scopes, (scope) => Scope.provide(Link.linkScoped("init/a"), scope))
      const root = yield* init(probes.make("a", permanent), linking("b", hold))
      const bonds = Effect.map(root.resources, ({ bonds }) => bonds)
      assert.strictEqual(yield* bonds, 2)
      for (const [index, scope] of scopes.entries()) {
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* bonds, index === 0 ? 2 : 0)
      }
      yield* probes.crash("a")
      assert.deepStrictEqual(yield* lives(root, "a", "b"), ["2 Crash", "1 -"])
    })
  )

  it.effect("that a failure goes through still passes it on; unlink takes it away", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const failing = Effect.scoped(Effect.andThen(Link.linkScoped("init/a"), Effect.fail("broken")))
      const root = yield* init(
        probes.make("a", permanent),
        linking("b", Effect.andThen(Effect.sleep(1), failing)),
        linking("c", Effect.andThen(Effect.sleep(2), Effect.andThen(Effect.ignore(failing), Link.unlink("init/a"))))
      )
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* lives(root, "a", "b"), ["2 LinkedActorEnded", "2 string"])
      yield* TestClock.adjust(1)
      yield* probes.crash("a")
      assert.deepStrictEqual(yield* lives(root, "c"), ["1 -"])
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )
})
