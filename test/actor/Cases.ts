/** Random trees with random policies, and random things that happen to them, for the property tests. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { ChildSpec } from "../../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import { Strategy } from "../../src/actor/Strategy.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { type Shape, WITHIN } from "./Model.ts"

const exact = { jitter: 0, resetAfter: 700 }
const policies = {
  permanent: RestartPolicy.permanent,
  transient: RestartPolicy.transient,
  temporary: RestartPolicy.temporary,
  patient: RestartPolicy.make({ backoff: { ...exact, initial: 100, max: 300 } }),
  parks: RestartPolicy.make({
    backoff: { ...exact, initial: 50 },
    budget: { restarts: 2, within: 1_000 },
    whenSpent: "park"
  }),
  "transient that escalates": RestartPolicy.make({
    restart: "transient",
    backoff: { ...exact, initial: 100 },
    budget: { restarts: 1, within: 500 },
    whenSpent: "escalate"
  }),
  "keeps trying": RestartPolicy.make({
    backoff: { ...exact, first: 0, initial: 100, max: 800 },
    budget: { restarts: 2, within: 400 }
  })
}
const PolicyName = Schema.Literals([
  "permanent",
  "transient",
  "temporary",
  "patient",
  "parks",
  "transient that escalates",
  "keeps trying"
])

const list = <S extends Schema.Constraint>(item: S, minimum: number, maximum: number) =>
  Schema.Array(item).pipe(Schema.check(Schema.isMinLength(minimum), Schema.isMaxLength(maximum)))
const upTo = (maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum })))

const Group = <S extends Schema.Constraint>(child: S) =>
  Schema.Struct({ strategy: Strategy, intensity: upTo(3), children: list(child, 1, 3) })
const Inner = Schema.Struct({ policy: PolicyName, group: Schema.optionalKey(Group(PolicyName)) })
const Outer = Schema.Struct({ policy: PolicyName, group: Schema.optionalKey(Group(Inner)), dynamic: Schema.Boolean })
export const Case = Schema.Struct({
  root: Group(Outer),
  actions: list(
    Schema.Struct({
      act: Schema.Literals(["crash", "crash", "finish", "failing start", "stop", "start", "restart", "remove", "wait"]),
      target: upTo(11),
      amount: upTo(9)
    }),
    5,
    25
  )
})
export type Case = typeof Case.Type

/** Ids tell the place, so that a counter-example reads well: `a`, `b`, in them `a1`, `a2`, in them `a1x` … */
export const shapeOf = (example: Case, dynamics: boolean): Shape => ({
  id: "init",
  policy: policies.permanent,
  group: {
    kind: "static",
    strategy: example.root.strategy,
    intensity: example.root.intensity,
    children: example.root.children.map((outer, first): Shape => {
      const id = "abc".charAt(first)
      const policy = policies[outer.policy]
      if (outer.group === undefined) return { id, policy }
      const dynamic = dynamics && outer.dynamic
      const children = outer.group.children.map((inner, second): Shape => {
        const at = { id: `${id}${second + 1}`, policy: policies[inner.policy] }
        if (inner.group === undefined || dynamic) return at
        const leaves = inner.group.children.map((name, third) => ({
          id: `${at.id}${"xyz".charAt(third)}`,
          policy: policies[name]
        }))
        return { ...at, group: { ...inner.group, kind: "static", children: leaves } }
      })
      const kind = dynamic ? "dynamic" : "static"
      const strategy = dynamic ? "one_for_one" : outer.group.strategy
      return { id, policy, group: { kind, strategy, intensity: outer.group.intensity, children } }
    })
  }
})

export const pathsOf = (shape: Shape, above = ""): ReadonlyArray<string> => {
  const path = `${above}${shape.id}`
  return [path, ...(shape.group?.children ?? []).flatMap((child) => pathsOf(child, `${path}/`))]
}

/** The spec of a shape, with leaves made by `leaf`. */
export const specOf = (
  shape: Shape,
  leaf: (shape: Shape) => ChildSpec<unknown, never>
): Effect.Effect<ChildSpec<unknown, never>> =>
  Effect.gen(function* () {
    const { group, id, policy } = shape
    if (group === undefined) return leaf(shape)
    const children = yield* Effect.forEach(group.children, (child) => specOf(child, leaf))
    if (group.kind === "dynamic") {
      return (yield* DynamicSupervisor.make(id, { policy, children: Effect.succeed(children) })).spec
    }
    const { intensity, strategy } = group
    return Supervisor.make(id, { policy, strategy, intensity, period: WITHIN, children })
  })
