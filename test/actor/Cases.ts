/** Random trees with random policies, and random things that happen to them, for the property tests. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { AutoShutdown, ChildSpec } from "../../src/actor/ChildSpec.ts"
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
  }),
  "has a rule": RestartPolicy.make({
    backoff: { ...exact, initial: 100 },
    rules: [
      {
        on: { classes: ["failure"] },
        counts: false,
        backoff: { initial: 50, factor: 1 },
        consecutive: 2,
        whenSpent: "park"
      }
    ]
  })
}
const PolicyName = Schema.Literals([
  "permanent",
  "transient",
  "temporary",
  "patient",
  "parks",
  "transient that escalates",
  "keeps trying",
  "has a rule"
])

const list = <S extends Schema.Constraint>(item: S, minimum: number, maximum: number) =>
  Schema.Array(item).pipe(Schema.check(Schema.isMinLength(minimum), Schema.isMaxLength(maximum)))
const upTo = (maximum: number) => Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum })))

const AutoShutdowns = Schema.Literals(["never", "any_significant", "all_significant"])

/** Where it matters, all that can be significant are. */
const significantIn = (autoShutdown: AutoShutdown, policy: RestartPolicy.RestartPolicy): boolean =>
  autoShutdown !== "never" && policy.restart !== "permanent"

const Group = <S extends Schema.Constraint>(child: S) =>
  Schema.Struct({ strategy: Strategy, intensity: upTo(3), autoShutdown: AutoShutdowns, children: list(child, 1, 3) })
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
export const shapeOf = (example: Case, dynamics: boolean): Shape => {
  /** In a group with this auto-shutdown. */
  const at = (id: string, name: typeof PolicyName.Type, autoShutdown: AutoShutdown): Shape => {
    const policy = policies[name]
    return { id, policy, significant: significantIn(autoShutdown, policy) }
  }
  const { autoShutdown, children, intensity, strategy } = example.root
  const outers = children.map((outer, first): Shape => {
    const place = at("abc".charAt(first), outer.policy, autoShutdown)
    if (outer.group === undefined) return place
    const dynamic = dynamics && outer.dynamic
    const own = dynamic
      ? ({ kind: "dynamic", strategy: "one_for_one", autoShutdown: "never" } as const)
      : ({ kind: "static", strategy: outer.group.strategy, autoShutdown: outer.group.autoShutdown } as const)
    const inners = outer.group.children.map((inner, second): Shape => {
      const below = at(`${place.id}${second + 1}`, inner.policy, own.autoShutdown)
      const { group } = inner
      if (group === undefined || dynamic) return below
      const leaves = group.children.map((name, third) =>
        at(`${below.id}${"xyz".charAt(third)}`, name, group.autoShutdown)
      )
      return { ...below, group: { ...group, kind: "static", children: leaves } }
    })
    return { ...place, group: { ...own, intensity: outer.group.intensity, children: inners } }
  })
  return {
    id: "init",
    policy: policies.permanent,
    group: { kind: "static", strategy, intensity, autoShutdown, children: outers }
  }
}

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
    const { group, id, policy, significant = false } = shape
    if (group === undefined) return leaf(shape)
    const children = yield* Effect.forEach(group.children, (child) => specOf(child, leaf))
    if (group.kind === "dynamic") {
      return (yield* DynamicSupervisor.make(id, { policy, significant, children: Effect.succeed(children) })).spec
    }
    const { autoShutdown, intensity, strategy } = group
    return Supervisor.make(id, { policy, significant, strategy, intensity, period: WITHIN, autoShutdown, children })
  })
