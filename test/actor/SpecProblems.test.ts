/** The check of specs: everything that is wrong is told at once, with its field, and nothing has happened then. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Actor from "../../src/actor/Actor.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as SpecProblems from "../../src/actor/SpecProblems.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const idle = (id: string, options: Actor.Options = {}) =>
  Actor.make(id, options, Effect.andThen(Actor.ready(), Effect.never))

/** `field problem` of each. */
const told = (problems: ReadonlyArray<{ readonly field: string; readonly problem: string }>): ReadonlyArray<string> =>
  problems.map(({ field, problem }) => `${field} ${problem}`)

describe("a spec", () => {
  it.effect("is refused with all that is wrong anywhere in the tree, before anything starts", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const children = [
        probes.make("a"),
        idle("a/b", { shutdown: -1, startDeadline: 0 }),
        Supervisor.make("inner", {
          intensity: 1.5,
          period: 0,
          strategy: "rest_for_one",
          children: [
            idle("", { significant: true }),
            idle("x", { dependencies: { after: ["y"] } }),
            idle("x", { significant: true, policy: RestartPolicy.transient })
          ]
        })
      ]
      const failed = yield* Effect.flip(Root.start(Supervisor.make("init", { children })))
      assert(failed._tag === "SpecInvalid")
      assert.strictEqual(failed.id, "init")
      assert.deepStrictEqual(told(failed.problems), [
        'children[1].id "a/b" must be a non-empty string without "/"',
        "children[1].shutdown must be a time of 0 or more, not -1",
        "children[1].startDeadline must be a time above 0, not 0",
        "children[2].intensity must be a whole number of 0 or more, not 1.5",
        "children[2].period must be a time above 0, not 0",
        'children[2].children[0].id "" must be a non-empty string without "/"',
        "children[2].children[0].significant does not go with a permanent restart: such a child never ends for good",
        "children[2].children[0].significant means nothing where autoShutdown is never",
        "children[2].children[1].dependencies do not go with rest_for_one, which says already who depends on whom",
        "children[2].children[2].significant means nothing where autoShutdown is never",
        'children[2].children[2].id "x" is that of children[2].children[1] too',
        'children[2].children[1].after names "y", which is no sibling'
      ])
      assert.deepStrictEqual(probes.take(), [])
    })
  )

  it("needs only siblings that are there and come before", () => {
    const problems = SpecProblems.ofChildren(
      [idle("a", { dependencies: { requires: ["b"], after: ["a"] } }), idle("b", { dependencies: { bindsTo: ["a"] } })],
      { strategy: "one_for_one", autoShutdown: "never", ordered: true }
    )
    assert.deepStrictEqual(told(problems), [
      "children[0].after names the child itself",
      'children[0].requires names "b", which comes later in the list'
    ])
  })

  it("of a dynamic supervisor's child may need one that is not there, but not go round in a circle", () => {
    const relation = { strategy: "one_for_one", autoShutdown: "never", ordered: false } as const
    const circle = [
      idle("a", { dependencies: { requires: ["b"] } }),
      idle("b", { dependencies: { after: ["c"] } }),
      idle("c", { dependencies: { bindsTo: ["a"], after: ["elsewhere"] } })
    ]
    assert.deepStrictEqual(SpecProblems.ofChildren(circle.slice(0, 2), relation), [])
    assert.deepStrictEqual(told(SpecProblems.ofChildren(circle, relation)), [
      "children[0].dependencies go round in a circle: a → b → c → a"
    ])
  })

  it("a chain may be as long as it likes", () => {
    const length = 50_000
    const chain = Array.from({ length }, (_, index) => idle(`${index}`, { dependencies: { after: [`${index + 1}`] } }))
    const relation = { strategy: "one_for_one", autoShutdown: "never", ordered: false } as const
    assert.deepStrictEqual(SpecProblems.ofChildren(chain, relation), [])
    const closed = [...chain, idle(`${length}`, { dependencies: { after: ["0"] } })]
    assert.strictEqual(SpecProblems.ofChildren(closed, relation).length, 1)
  })

  it.effect("of a desired state fails its supervisor, typed", () =>
    Effect.gen(function* () {
      const pool = yield* DynamicSupervisor.make("pool", {
        policy: RestartPolicy.temporary,
        children: Effect.succeed([idle("a"), idle("a")])
      })
      const failed = yield* Effect.flip(Root.start(Supervisor.make("init", { children: [idle("first"), pool.spec] })))
      assert.strictEqual(
        failed.message,
        'init ended: StartFailed: init/pool did not start: SpecInvalid: the spec of "pool" cannot be: children[1].id "a" is that of children[0] too'
      )
    })
  )

  it("falls back to a sibling that is there, and not to itself", () => {
    const policy = (fallback: string) => RestartPolicy.make({ whenSpent: "fallback", fallback, maxConsecutive: 1 })
    const list = [
      idle("a", { policy: policy("b") }),
      idle("b", { policy: policy("b") }),
      idle("c", { policy: policy("d") })
    ]
    const relation = { strategy: "one_for_one", autoShutdown: "never" } as const
    assert.deepStrictEqual(told(SpecProblems.ofChildren(list, { ...relation, ordered: true })), [
      "children[1].policy.fallback names the child itself",
      'children[2].policy.fallback names "d", which is no sibling'
    ])
    // There policies change while it runs: who cannot help is found out when it is needed.
    assert.deepStrictEqual(SpecProblems.ofChildren(list, { ...relation, ordered: false }), [])
    assert.deepStrictEqual(
      told(
        SpecProblems.ofNewChild(idle("x", { policy: policy("y") }), { ...relation, ordered: true }, () => undefined)
      ),
      ['policy.fallback names "y", which is no sibling']
    )
  })
})
