/**
 * The real engine against the model (`model/Model.ts`): random trees, policies (also with a rule), significant children,
 * dependencies between siblings, crashes, failing starts, calls (those on a running tree and those on a supervisor's handle:
 * add, delete, reload) and steps of the clock, of the wall clock alone too. After every action both must show the same
 * states; where nothing starts side by side they must also have done the same things in the same order. A watch is folded
 * beside it all the time.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import * as Root from "../../src/actor/Root.ts"
import type { Tree } from "../../src/actor/Tree.ts"
import { Case, type Extent, type Handle, type Placed, placesOf, shapeOf, specOf, withPolicy } from "./Cases.ts"
import { Fold, sorted } from "./Fold.ts"
import { nothingHeld } from "./Held.ts"
import { Model } from "./model/Model.ts"
import { Probes } from "./Probe.ts"
import type { Shape } from "./Shape.ts"
import { SteppedClock } from "./SteppedClock.ts"

const long = process.env["IRONWOOD_SOAK"] !== undefined

/** `ok`, `done` (for a start, however it went) or the tag of the refusal. */
const answerOf = (effect: Effect.Effect<unknown, { readonly _tag: string }>, success: string) =>
  Effect.match(effect, {
    onSuccess: () => success,
    onFailure: ({ _tag }) => (_tag === "StartFailed" ? success : _tag)
  })

const statesOf = (tree: Tree["Service"]) =>
  Effect.map(tree.snapshot(), ({ nodes }) =>
    Object.fromEntries(
      nodes.map(({ attempt, incarnation, path, restarts, state, waitingFor }) => [
        path,
        `${state}${["", ...waitingFor].join(" ").replace(/^ /, " for ")} #${incarnation} restarts ${restarts} attempt ${attempt}`
      ])
    )
  )

/**
 * What the log of a tree must never say of leaves with dependencies: that one starts while a sibling that it needs does not
 * live, or that one is ended in order (its stop hook runs) while one that needs it lives.
 */
class Needs {
  readonly #needs: ReadonlyMap<string, ReadonlyArray<string>>
  readonly #leaves: ReadonlySet<string>
  readonly #live = new Set<string>()
  /** Starts that are to fail, and so are the end of nobody. */
  readonly #failing = new Map<string, number>()

  constructor(places: ReadonlyArray<Placed>) {
    const leaves = places.filter(({ shape }) => shape.group === undefined)
    this.#leaves = new Set(leaves.map(({ shape: { id } }) => id))
    this.#needs = new Map(
      leaves.map(({ shape: { dependencies = {}, id } }) => [
        id,
        [...(dependencies.requires ?? []), ...(dependencies.bindsTo ?? [])]
      ])
    )
  }

  startFails(id: string): void {
    this.#failing.set(id, (this.#failing.get(id) ?? 0) + 1)
  }

  read(log: ReadonlyArray<string>, told: string): void {
    for (const line of log) {
      const [what, id = ""] = line.split(" ")
      if (what === "start") {
        const missing = this.#needs.get(id)?.filter((sibling) => this.#leaves.has(sibling) && !this.#live.has(sibling))
        assert.deepStrictEqual(missing ?? [], [], `${id} starts without what it needs, ${told}`)
        const failing = this.#failing.get(id) ?? 0
        if (failing === 0) this.#live.add(id)
        else this.#failing.set(id, failing - 1)
      } else if (what === "close") this.#live.delete(id)
      else {
        const left = [...this.#live].filter((other) => this.#needs.get(other)?.includes(id))
        assert.deepStrictEqual(left, [], `${id} is ended before those that need it, ${told}`)
      }
    }
  }
}

/** `inOrder`: whether what is done must be done in the model's order. */
const check = Effect.fnUntraced(function* (example: Case, extent: Extent, inOrder: boolean) {
  const shape = shapeOf(example, extent)
  const places = placesOf(shape)
  const handles = new Map<string, Handle>()
  const probes = new Probes()
  const needs = new Needs(places)
  const failing = new Map<string, number>()
  const model = new Model(shape)
  const leaf = ({ dependencies = {}, id, policy, significant = false }: Shape) =>
    probes.make(id, {
      policy,
      significant,
      dependencies,
      failing: () => {
        const failures = failing.get(id) ?? 0
        failing.set(id, Math.max(0, failures - 1))
        if (failures === 0) return undefined
        needs.startFails(id)
        return "told to"
      }
    })
  const clock = new SteppedClock(yield* Clock.Clock)
  const starting = Effect.flatMap(specOf(shape, leaf, handles), (spec) => Root.start(spec))
  const root = yield* Effect.provideService(starting, Clock.Clock, clock)
  const { tree } = root
  const fold = new Fold()
  yield* Effect.forkScoped(Stream.runForEach(tree.watch(), (event) => Effect.sync(() => fold.apply(event))))

  const done: Array<string> = []
  const compare = Effect.gen(function* () {
    yield* TestClock.adjust(0)
    const log = model.log.splice(0)
    const real = { states: yield* statesOf(tree), log: probes.take() }
    const model2 = { states: model.states, log }
    const told = `after: ${done.join("; ")}\nreal: ${JSON.stringify(real, null, 1)}\nmodel: ${JSON.stringify(model2, null, 1)}`
    assert.deepStrictEqual(real.states, model2.states, told)
    if (inOrder) assert.deepStrictEqual(real.log, log, told)
    else assert.deepStrictEqual([...real.log].sort(), [...log].sort(), told)
    needs.read(real.log, told)
    const snapshot = yield* tree.snapshot()
    assert.deepStrictEqual(fold.known, sorted(snapshot.nodes), told)
    assert.strictEqual((yield* root.resources).timers, model.timers, told)
  })
  yield* compare
  for (const { act, amount, target } of example.actions) {
    const place = places[target % places.length] ?? { path: "init", shape, within: undefined }
    const { path } = place
    const { id } = place.shape
    const above = path.slice(0, Math.max(0, path.lastIndexOf("/")))
    const handle = handles.get(above)
    done.push(act === "wait" || act === "step" ? `${act} ${amount}` : `${act} ${path} ${amount}`)
    switch (act) {
      case "crash":
      case "finish":
        if (!model.canEnd(path)) break
        model[act](path)
        yield* probes[act](id)
        break
      case "failing start":
        // The children of a dynamic supervisor start beside its siblings: who is how far when one of these fails is open.
        if (extent.dynamics) break
        model.failStarts(id, amount % 4)
        failing.set(id, amount % 4)
        break
      case "stop":
        assert.strictEqual(yield* answerOf(tree.stop(path), "ok"), model.stop(path), done.join("; "))
        break
      case "start": {
        const expected = model.start(path)
        const options = { wait: "registered" } as const
        assert.strictEqual(yield* answerOf(tree.start(path, options), "done"), expected, done.join("; "))
        break
      }
      case "restart": {
        const expected = model.restart(path)
        const options = { wait: "registered" } as const
        assert.strictEqual(yield* answerOf(tree.restart(path, options), "done"), expected, done.join("; "))
        break
      }
      case "remove": {
        const removal = model.isManaged(above) ? handle?.deleteChild(id) : undefined
        assert.strictEqual(yield* answerOf(removal ?? tree.remove(path), "ok"), model.remove(path), done.join("; "))
        break
      }
      case "add": {
        // What supervisors are made of stays as it is.
        if (handle === undefined || place.shape.group !== undefined) break
        const shape = withPolicy(place, amount)
        const expected = model.add(above, shape)
        const adding = handle.startChild(leaf(shape), { wait: "registered" })
        assert.strictEqual(yield* answerOf(adding, "done"), expected, done.join("; "))
        break
      }
      case "reload": {
        if (handle === undefined) break
        const chosen = places
          .filter((other) => other.within === place.within && other.shape.group === undefined)
          .filter((_, index) => (amount >> (index % 3)) % 2 === 1)
          .map((other, index) => withPolicy(other, amount + index))
        const expected = model.reload(above, chosen)
        const reloading = handle.reloadSpecs(chosen.map(leaf))
        assert.strictEqual(yield* answerOf(reloading, "ok"), expected, done.join("; "))
        break
      }
      case "step":
        clock.offset = (amount - 4) * 3_600_000
        break
      case "wait":
        model.advance(amount * 50)
        yield* TestClock.adjust(amount * 50)
    }
    if (model.sideBySide) break
    yield* compare
    if (model.root.state !== "running") break
  }
  yield* root.end("release")
  const { actors: _, ...left } = yield* root.resources
  assert.deepStrictEqual(left, nothingHeld, `left over after: ${done.join("; ")}`)
})

const alone = { dynamics: false, dependencies: false }

describe("the engine does what the model does", () => {
  for (const [name, extent, inOrder, runs] of [
    ["static supervisors, to the letter", alone, true, 2_000],
    ["static supervisors with dependencies", { ...alone, dependencies: true }, false, 2_000],
    ["static and dynamic supervisors with dependencies", { dynamics: true, dependencies: true }, false, 2_000]
  ] as const) {
    it.effect.prop(
      name,
      { example: Case },
      ({ example }) =>
        Effect.scopedWith((scope) => Effect.provideService(check(example, extent, inOrder), Scope.Scope, scope)),
      { arbitrary: { runs: long ? 50 * runs : runs, size: 60 }, timeout: 1_800_000 }
    )
  }
})
