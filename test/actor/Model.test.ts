/**
 * The real engine against the model (`Model.ts`): random trees, policies (also with a rule), significant children, crashes,
 * failing starts, calls and steps of the clock. After every action both must show the same states; in trees without dynamic
 * supervisors (whose children start side by side) they must also have done the same things in the same order. A watch is
 * folded beside it all the time.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import * as Root from "../../src/actor/Root.ts"
import type { Tree } from "../../src/actor/Tree.ts"
import { Case, pathsOf, shapeOf, specOf } from "./Cases.ts"
import { Fold, sorted } from "./Fold.ts"
import { Model, type Shape } from "./Model.ts"
import { Probes } from "./Probe.ts"

/** `ok`, `done` (for a start, however it went) or the tag of the refusal. */
const answerOf = (effect: Effect.Effect<void, { readonly _tag: string }>, success: string) =>
  Effect.match(effect, {
    onSuccess: () => success,
    onFailure: ({ _tag }) => (_tag === "StartFailed" ? success : _tag)
  })

const statesOf = (tree: Tree["Service"]) =>
  Effect.map(tree.snapshot(), ({ nodes }) =>
    Object.fromEntries(
      nodes.map((node) => [
        node.path,
        `${node.state} #${node.incarnation} restarts ${node.restarts} attempt ${node.attempt}`
      ])
    )
  )

const check = Effect.fnUntraced(function* (example: Case, dynamics: boolean) {
  const shape = shapeOf(example, dynamics)
  const paths = pathsOf(shape)
  const probes = new Probes()
  const failing = new Map<string, number>()
  const model = new Model(shape)
  const leaf = ({ id, policy, significant = false }: Shape) =>
    probes.make(id, {
      policy,
      significant,
      failing: () => {
        const failures = failing.get(id) ?? 0
        failing.set(id, Math.max(0, failures - 1))
        return failures > 0 ? "told to" : undefined
      }
    })
  const root = yield* Root.start(yield* specOf(shape, leaf))
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
    if (dynamics) assert.deepStrictEqual([...real.log].sort(), [...log].sort(), told)
    else assert.deepStrictEqual(real.log, log, told)
    const snapshot = yield* tree.snapshot()
    assert.deepStrictEqual(fold.known, sorted(snapshot.nodes), told)
  })
  yield* compare
  for (const { act, amount, target } of example.actions) {
    const path = paths[target % paths.length] ?? "init"
    const id = path.slice(path.lastIndexOf("/") + 1)
    done.push(act === "wait" ? `wait ${amount * 50}` : `${act} ${path}`)
    switch (act) {
      case "crash":
      case "finish":
        if (!model.canEnd(path)) break
        model[act](path)
        yield* probes[act](id)
        break
      case "failing start":
        // The children of a dynamic supervisor start beside its siblings: who is how far when one of these fails is open.
        if (dynamics) break
        model.failing.set(id, amount % 4)
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
      case "remove":
        assert.strictEqual(yield* answerOf(tree.remove(path), "ok"), model.remove(path), done.join("; "))
        break
      case "wait":
        model.advance(amount * 50)
        yield* TestClock.adjust(amount * 50)
    }
    yield* compare
    if (model.root.state !== "running") break
  }
  yield* root.end("release")
  const { actors: _, ...left } = yield* root.resources
  assert.deepStrictEqual(left, { timers: 0, watchers: 0, bonds: 0 }, `left over after: ${done.join("; ")}`)
})

describe("the engine does what the model does", () => {
  for (const [name, dynamics, runs] of [
    ["static supervisors, to the letter", false, 3_000],
    ["static and dynamic supervisors", true, 1_000]
  ] as const) {
    it.effect.prop(
      name,
      { example: Case },
      ({ example }) =>
        Effect.scopedWith((scope) => Effect.provideService(check(example, dynamics), Scope.Scope, scope)),
      { arbitrary: { runs, size: 60 } }
    )
  }
})
