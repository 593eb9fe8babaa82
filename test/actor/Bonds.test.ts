/**
 * Names, monitors and links against a small model: random starts, crashes, ends and stops of actors that register, monitor
 * and link at random. After every action both must know the same names, the same `Down`s and the same lives, and the real
 * one must hold no more than what the model says is still wanted.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Actor from "../../src/actor/Actor.ts"
import type { ChildSpec } from "../../src/actor/ChildSpec.ts"
import * as Link from "../../src/actor/Link.ts"
import * as Registry from "../../src/actor/Registry.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Tree } from "../../src/actor/Tree.ts"
import { Probes } from "./Probe.ts"

const byName = ([one]: readonly [string, string], [other]: readonly [string, string]): number =>
  one < other ? -1 : Number(one > other)

const actors = {
  a: RestartPolicy.permanent,
  b: RestartPolicy.transient,
  c: RestartPolicy.temporary,
  d: RestartPolicy.permanent,
  e: RestartPolicy.transient
} as const
type Id = keyof typeof actors
const Id = Schema.Literals(["a", "b", "c", "d", "e"])
const Name = Schema.Literals(["x", "y"])

const Action = Schema.Union([
  Schema.Struct({ act: Schema.Literals(["crash", "finish", "stop", "start"]), id: Id }),
  Schema.Struct({ act: Schema.Literals(["register", "unregister"]), id: Id, name: Name }),
  Schema.Struct({ act: Schema.Literals(["monitor", "link", "unlink"]), id: Id, other: Id }),
  Schema.Struct({
    act: Schema.Literal("demonitor"),
    index: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 9 })))
  })
])
type Action = typeof Action.Type
const Case = Schema.Array(Action).pipe(Schema.check(Schema.isMinLength(3), Schema.isMaxLength(40)))

interface Monitored {
  readonly id: Id
  readonly told: Array<string>
  wanted: boolean
}

class Model {
  readonly incarnation = { a: 1, b: 1, c: 1, d: 1, e: 1 }
  readonly alive = new Set<Id>(["a", "b", "c", "d", "e"])
  readonly gone = new Set<Id>()
  readonly names = new Map<string, Id>()
  readonly monitors: Array<Monitored> = []
  links = new Set<string>()

  #pair(one: Id, other: Id): string {
    return [one, other].sort().join("")
  }
  link(one: Id, other: Id): void {
    if (one !== other) this.links.add(this.#pair(one, other))
  }
  unlink(one: Id, other: Id): void {
    this.links.delete(this.#pair(one, other))
  }

  /** All that end when `id` fails. */
  #component(id: Id): ReadonlySet<Id> {
    const reached = new Set<Id>([id])
    for (const at of reached) {
      for (const pair of this.links) {
        if (!pair.includes(at)) continue
        for (const other of ["a", "b", "c", "d", "e"] as const) if (pair.includes(other)) reached.add(other)
      }
    }
    return reached
  }

  #end(id: Id, reason: string): void {
    this.alive.delete(id)
    for (const [name, holder] of this.names) if (holder === id) this.names.delete(name)
    for (const monitor of this.monitors) {
      if (monitor.id !== id || !monitor.wanted) continue
      monitor.told.push(`#${this.incarnation[id]} ${reason}`)
      monitor.wanted = false
    }
    this.links = new Set([...this.links].filter((pair) => !pair.includes(id)))
  }

  /** Ends by itself: restarted at once, or not at all. */
  ends(id: Id, failed: boolean): void {
    const all = failed ? this.#component(id) : new Set([id])
    for (const one of all) {
      this.#end(one, "ended")
      const policy = actors[one].restart
      if (policy === "temporary") this.gone.add(one)
      if (policy === "permanent" || (policy === "transient" && failed)) this.start(one)
    }
  }
  stop(id: Id): void {
    this.#end(id, "stopped")
    if (actors[id].restart === "temporary") this.gone.add(id)
  }
  start(id: Id): void {
    this.alive.add(id)
    this.incarnation[id]++
  }
  monitor(id: Id): void {
    if (this.alive.has(id)) this.monitors.push({ id, told: [], wanted: true })
    else {
      const text = this.gone.has(id) ? "#0 no-such-actor" : `#${this.incarnation[id]} not-alive`
      this.monitors.push({ id, told: [text], wanted: false })
    }
  }
  /** Lives that something hangs on. */
  get bonds(): number {
    const held = new Set<Id>(this.names.values())
    for (const monitor of this.monitors) if (monitor.wanted) held.add(monitor.id)
    for (const id of this.alive) if ([...this.links].some((pair) => pair.includes(id))) held.add(id)
    return held.size
  }
}

const check = Effect.fnUntraced(function* (actions: ReadonlyArray<Action>) {
  const probes = new Probes()
  const selves = new Map<Id, Actor.Self["Service"]>()
  /** A probe that shows its `Self`. */
  const actor = (id: Id): ChildSpec<unknown, never> => {
    const { behaviour, ...spec } = probes.make(id, { policy: actors[id] })
    assert(behaviour._tag === "Worker")
    const run = Effect.andThen(
      Effect.map(Actor.Self, (self) => void selves.set(id, self)),
      behaviour.run
    )
    return { ...spec, behaviour: { _tag: "Worker", run } }
  }
  const children = (["a", "b", "c", "d", "e"] as const).map(actor)
  const root = yield* Root.start(Supervisor.make("init", { intensity: 1_000_000, children }))
  const { tree } = root
  const model = new Model()
  const monitors: Array<{ readonly scope: Scope.Closeable; readonly told: Array<string> }> = []
  const as = <A, E>(id: Id, effect: Effect.Effect<A, E, Actor.Self | Tree>) => {
    const self = selves.get(id)
    assert(self !== undefined)
    return Effect.exit(effect.pipe(Effect.provideService(Actor.Self, self), Effect.provideService(Tree, tree)))
  }

  const perform = Effect.fnUntraced(function* (action: Action) {
    switch (action.act) {
      case "crash":
      case "finish":
        if (!model.alive.has(action.id)) return
        model.ends(action.id, action.act === "crash")
        return yield* probes[action.act](action.id)
      case "stop":
        if (model.gone.has(action.id)) return
        if (model.alive.has(action.id)) model.stop(action.id)
        return yield* Effect.ignore(tree.stop(`init/${action.id}`))
      case "start":
        if (model.gone.has(action.id) || model.alive.has(action.id)) return
        model.start(action.id)
        return yield* Effect.ignore(tree.start(`init/${action.id}`))
      case "register": {
        const { id, name } = action
        const holder = model.names.get(name)
        const free = model.alive.has(id) && (holder === undefined || holder === id)
        if (free) model.names.set(name, id)
        const exit = yield* as(id, Registry.register(name))
        return assert.strictEqual(Exit.isSuccess(exit), free)
      }
      case "unregister":
        if (model.names.get(action.name) === action.id) model.names.delete(action.name)
        return yield* as(action.id, Registry.unregister(action.name))
      case "monitor": {
        const scope = yield* Scope.make()
        const told: Array<string> = []
        const path = `init/${action.other}`
        model.monitor(action.other)
        monitors.push({ scope, told })
        const tell = ({ incarnation, reason }: { readonly incarnation: number; readonly reason: string }) =>
          void told.push(`#${incarnation} ${reason}`)
        return yield* Scope.provide(tree.monitor(path, tell), scope)
      }
      case "demonitor": {
        const monitor = monitors[action.index]
        const expected = model.monitors[action.index]
        if (monitor === undefined || expected === undefined) return
        expected.wanted = false
        return yield* Scope.close(monitor.scope, Exit.void)
      }
      case "link": {
        const both = model.alive.has(action.id) && model.alive.has(action.other)
        if (both) model.link(action.id, action.other)
        const exit = yield* as(action.id, Link.link(`init/${action.other}`))
        return assert.strictEqual(Exit.isSuccess(exit), both)
      }
      case "unlink":
        if (model.alive.has(action.id)) model.unlink(action.id, action.other)
        return yield* as(action.id, Link.unlink(`init/${action.other}`))
    }
  })

  const done: Array<string> = []
  for (const action of actions) {
    done.push(JSON.stringify(action))
    yield* perform(action)
    yield* Effect.yieldNow
    const nodes = (yield* tree.snapshot()).nodes.slice(1)
    const real = {
      names: [...tree.names.all()].sort(byName),
      told: monitors.map(({ told }) => told),
      lives: nodes.map(({ incarnation, path }) => `${path} ${incarnation}`),
      alive: nodes.filter(({ state }) => state === "running").length,
      bonds: (yield* root.resources).bonds
    }
    const expected = {
      names: [...model.names].map(([name, id]) => [name, `init/${id}`] as const).sort(byName),
      told: model.monitors.map(({ told }) => told),
      lives: (["a", "b", "c", "d", "e"] as const)
        .filter((id) => !model.gone.has(id))
        .map((id) => `init/${id} ${model.incarnation[id]}`),
      alive: model.alive.size,
      bonds: model.bonds
    }
    assert.deepStrictEqual(JSON.stringify(real), JSON.stringify(expected), `after ${done.join("\n")}`)
  }
  yield* root.end("release")
  assert.deepInclude(yield* root.resources, { bonds: 0, timers: 0 })
})

describe("names, monitors and links", () => {
  it.effect.prop(
    "are as the model says, whatever happens",
    { actions: Case },
    ({ actions }) => Effect.scopedWith((scope) => Effect.provideService(check(actions), Scope.Scope, scope)),
    { arbitrary: { runs: 1_000, size: 40 } }
  )
})
