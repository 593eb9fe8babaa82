/** Monitors: one `Down` each, after the scope has closed, about the life that was monitored; nothing is left behind. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actor/Actor.ts"
import * as Monitor from "../../src/actor/Monitor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Tree } from "../../src/actor/Tree.ts"
import { Probes } from "./Probe.ts"

const permanent = { policy: RestartPolicy.permanent }

const started = (probes: Probes, ...ids: ReadonlyArray<string>) =>
  Root.start(Supervisor.make("init", { intensity: 1_000, children: ids.map((id) => probes.make(id, permanent)) }))

/** Monitors from outside the tree. */
const heard = (root: Root.Root, path: string) => Effect.provideService(Monitor.make(path), Tree, root.tree)

const text = ({ exit, incarnation, path, reason }: Monitor.Down) =>
  `${path} #${incarnation} ${reason}${exit === undefined ? "" : ` ${exit.message}`}`

describe("a monitor", () => {
  it.effect("tells an end of its own with how, after the scope has closed", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const child = probes.make("a", { ...permanent, finalizer: Effect.sleep("1 second") })
      const root = yield* Root.start(Supervisor.make("init", { children: [child] }))
      const gone = yield* Effect.forkScoped(Effect.flatten(heard(root, "init/a")))
      yield* Effect.yieldNow
      yield* probes.crash("a", "disk full")
      assert.strictEqual(gone.pollUnsafe(), undefined, "its finalizer still runs")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(text(yield* Fiber.join(gone)), "init/a #1 ended disk full")
      assert.deepInclude(yield* root.tree.get("init/a"), { state: "running", incarnation: 2 })
      yield* Effect.forkScoped(root.end("release"))
      yield* TestClock.adjust("1 second")
    })
  )

  it.effect("tells stop and release apart, of workers and of supervisors", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const inner = Supervisor.make("inner", { children: [probes.make("b"), probes.make("c")] })
      const root = yield* Root.start(Supervisor.make("init", { children: [probes.make("a"), inner] }))
      const downs = yield* Effect.forEach(["init/a", "init/inner", "init/inner/b"], (path) => heard(root, path))
      yield* root.tree.restart("init/a", { ending: "release" })
      yield* root.tree.stop("init/inner")
      const told = yield* Effect.forEach(downs, (down) => Effect.map(down, text))
      assert.deepStrictEqual(told, ["init/a #1 released", "init/inner #1 stopped", "init/inner/b #1 stopped"])
    })
  )

  it.effect("of one that is not alive, or not there, tells at once", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* started(probes, "a")
      yield* root.tree.stop("init/a")
      assert.strictEqual(text(yield* Effect.flatten(heard(root, "init/a"))), "init/a #1 not-alive")
      assert.strictEqual(text(yield* Effect.flatten(heard(root, "init/b"))), "init/b #0 no-such-actor")
      yield* root.end("stop")
      assert.strictEqual(text(yield* Effect.flatten(heard(root, "init"))), "init #1 not-alive")
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("tells once, of the life that was monitored, also when that is replaced in the same task", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* started(probes, "a")
      const first = yield* heard(root, "init/a")
      yield* probes.crash("a", "1")
      const second = yield* heard(root, "init/a")
      yield* probes.crash("a", "2")
      assert.deepStrictEqual(
        [text(yield* first), text(yield* first), text(yield* second)],
        ["init/a #1 ended 1", "init/a #1 ended 1", "init/a #2 ended 2"]
      )
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("ends with its scope, and one that has told leaves nothing in a scope that stays", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* started(probes, "a", "b")
      let told = 0
      const scope = yield* Scope.make()
      const monitor = (path: string) =>
        Scope.provide(
          root.tree.monitor(path, () => void told++),
          scope
        )
      yield* monitor("init/a")
      yield* monitor("init/b")
      yield* monitor("init/nobody")
      assert.strictEqual(told, 1)
      yield* probes.crash("a")
      assert.strictEqual(told, 2)
      assert.isTrue(scope.state._tag === "Open" && (scope.state.finalizers?.size ?? 1) === 1)
      yield* Scope.close(scope, Exit.void)
      assert.deepInclude(yield* root.resources, { bonds: 0 })
      yield* probes.crash("b")
      yield* monitor("init/b")
      assert.strictEqual(told, 2, "nothing after the scope has closed")
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("whose scope closes while a Down is under way tells nothing", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* started(probes, "a")
      const told: Array<number> = []
      let close = () => {}
      yield* root.tree.monitor("init/a", () => {
        told.push(1)
        close()
      })
      const other = root.tree.monitor("init/a", () => void told.push(2))
      const second = yield* Effect.forkScoped(Effect.scoped(Effect.andThen(other, Effect.never)))
      yield* Effect.yieldNow
      close = () => second.interruptUnsafe()
      yield* root.tree.monitor("init/a", () => void told.push(3))
      yield* probes.crash("a")
      assert.deepStrictEqual(told, [1, 3])
    })
  )

  it.effect("of one that is abandoned tells when it is", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [probes.make("a", { shutdown: 1_000, finalizer: Effect.never })]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      const gone = yield* heard(root, "init/a")
      const waiting = yield* Effect.forkScoped(gone)
      yield* Effect.forkScoped(root.tree.stop("init/a"))
      yield* TestClock.adjust(5_999)
      assert.strictEqual(waiting.pollUnsafe(), undefined)
      yield* TestClock.adjust(1)
      assert.strictEqual(text(yield* Fiber.join(waiting)), "init/a #1 stopped")
    })
  )

  it.effect("belongs to an actor like anything else in its scope", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const told: Array<string> = []
      const watcher = Actor.make(
        "watcher",
        permanent,
        Effect.gen(function* () {
          yield* Actor.ready()
          yield* Effect.forkScoped(Monitor.down("init/watcher"))
          told.push(text(yield* Monitor.down("init/a")))
        })
      )
      const children = [probes.make("a", permanent), watcher]
      const root = yield* Root.start(Supervisor.make("init", { children }))
      yield* probes.crash("a", "1")
      yield* probes.crash("a", "2")
      assert.deepStrictEqual(told, ["init/a #1 ended 1", "init/a #2 ended 2"])
      yield* root.end("release")
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )
})

describe("many monitors", () => {
  it.effect("of several actors are a stream in the order in which they went", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* started(probes, "a", "b", "c")
      const downs = Stream.runCollect(Monitor.downs(["init/a", "init/b", "init/x", "init/c"]))
      const all = yield* Effect.forkScoped(Effect.provideService(downs, Tree, root.tree))
      yield* Effect.yieldNow
      for (const id of ["b", "c", "a"]) yield* probes.crash(id)
      const paths = (yield* Fiber.join(all)).map(({ path }) => path)
      assert.deepStrictEqual(paths, ["init/x", "init/b", "init/c", "init/a"])
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("of one actor are told a batch at a time, and the tree answers between", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const root = yield* started(probes, "a")
      const many = 20_000
      let told = 0
      for (let index = 0; index < many; index++) yield* root.tree.monitor("init/a", () => void told++)
      yield* probes.crash("a")
      yield* root.tree.stop("init/a")
      assert.isBelow(told, many / 2, "a call need not wait for all of them")
      while (told < many) yield* Effect.yieldNow
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )
})
