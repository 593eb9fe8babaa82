/** Random trees with random policies, and random things that happen to them, for the property tests. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { AutoShutdown, ChildSpec, Dependencies } from "../../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import type * as Management from "../../src/actor/Management.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import { Strategy } from "../../src/actor/Strategy.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { type Shape, WITHIN } from "./Shape.ts"

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
  "works in rounds": RestartPolicy.make({ restart: "on-success", backoff: { ...exact, initial: 100, max: 100 } }),
  "parks after three ends": RestartPolicy.make({
    backoff: { ...exact, initial: 50 },
    maxConsecutive: 3,
    whenSpent: "park"
  }),
  "counts starts": RestartPolicy.make({
    backoff: { ...exact, initial: 100 },
    budget: { restarts: 2, within: 400, window: "tumbling" },
    whenSpent: "park"
  }),
  "restarts the group": RestartPolicy.make({
    backoff: { ...exact, initial: 50, max: 200 },
    budget: { restarts: 1, within: 1_500 },
    whenSpent: "restart-group"
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
  "works in rounds",
  "parks after three ends",
  "counts starts",
  "restarts the group",
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
/** How it depends on the sibling before it, and on the one before that. */
const Need = Schema.optionalKey(Schema.Literals(["after", "afterSuccess", "requires", "bindsTo"]))
const place = { policy: PolicyName, previous: Need, first: Need }
const Leaf = Schema.Struct(place)
const Inner = Schema.Struct({ ...place, group: Schema.optionalKey(Group(Leaf)) })
const Outer = Schema.Struct({ ...place, group: Schema.optionalKey(Group(Inner)), dynamic: Schema.Boolean })
export const Case = Schema.Struct({
  root: Group(Outer),
  actions: list(
    Schema.Struct({
      act: Schema.Literals([
        "crash",
        "crash",
        "finish",
        "failing start",
        "stop",
        "start",
        "restart",
        "remove",
        "add",
        "reload",
        "step",
        "wait"
      ]),
      target: upTo(14),
      amount: upTo(12)
    }),
    5,
    25
  )
})
export type Case = typeof Case.Type

/** What of a case is made use of. */
export interface Extent {
  readonly dynamics: boolean
  readonly dependencies: boolean
}

/** What of a supervisor its children's shapes are made with. */
type Siblings = Pick<NonNullable<Shape["group"]>, "kind" | "strategy" | "autoShutdown">

const dependenciesOf = (
  { first, previous }: typeof Leaf.Type,
  ids: ReadonlyArray<string>,
  index: number
): Partial<Dependencies> => {
  const needs = {
    after: new Array<string>(),
    afterSuccess: new Array<string>(),
    requires: new Array<string>(),
    bindsTo: new Array<string>()
  }
  const [before, earlier] = [ids[index - 1], ids[0]]
  if (previous !== undefined && before !== undefined) needs[previous].push(before)
  if (first !== undefined && earlier !== undefined && index > 1) needs[first].push(earlier)
  return needs
}

/** Ids tell the place, so that a counter-example reads well: `a`, `b`, in them `a1`, `a2`, in them `a1x` … */
export const shapeOf = (example: Case, { dependencies, dynamics }: Extent): Shape => {
  const list = <Child extends typeof Leaf.Type>(
    children: ReadonlyArray<Child>,
    idOf: (index: number) => string,
    { autoShutdown, kind, strategy }: Siblings,
    groupOf: (child: Child, id: string) => Shape["group"] | undefined
  ): ReadonlyArray<Shape> => {
    const ids = children.map((_, index) => idOf(index))
    const shapes = children.map((child, index): Shape => {
      const id = idOf(index)
      const policy = policies[child.policy]
      const group = groupOf(child, id)
      return {
        id,
        policy,
        significant: significantIn(autoShutdown, policy),
        ...(dependencies && strategy === "one_for_one" && { dependencies: dependenciesOf(child, ids, index) }),
        ...(group !== undefined && { group })
      }
    })
    // A desired state may be in any order.
    return kind === "dynamic" && dependencies ? shapes.toReversed() : shapes
  }
  const { intensity } = example.root
  const root: Siblings = { ...example.root, kind: "static" }
  const children = list(
    example.root.children,
    (first) => "abc".charAt(first),
    root,
    (outer, id) => {
      if (outer.group === undefined) return undefined
      const dynamic = dynamics && outer.dynamic
      const own: Siblings = dynamic
        ? { kind: "dynamic", strategy: "one_for_one", autoShutdown: "never" }
        : { ...outer.group, kind: "static" }
      const below = list(
        outer.group.children,
        (second) => `${id}${second + 1}`,
        own,
        ({ group }, id) => {
          if (group === undefined || dynamic) return undefined
          const leaves: Siblings = { ...group, kind: "static" }
          const children = list(
            group.children,
            (third) => `${id}${"xyz".charAt(third)}`,
            leaves,
            () => undefined
          )
          return { ...leaves, intensity: group.intensity, children }
        }
      )
      return { ...own, intensity: outer.group.intensity, children: below }
    }
  )
  return { id: "init", policy: policies.permanent, group: { ...root, intensity, children } }
}

/** A shape and the group that it is in. */
export interface Placed {
  readonly path: string
  readonly shape: Shape
  readonly within: Shape | undefined
}

/** Every place of a tree, also those that are empty at first: each group can be given one more leaf, `…n`. */
export const placesOf = (shape: Shape, within?: Shape, above = ""): ReadonlyArray<Placed> => {
  const { group, id } = shape
  const path = `${above}${id}`
  const own = { path, shape, within }
  if (group === undefined) return [own]
  const [first] = group.children
  const more: Shape = {
    id: id === "init" ? "n" : `${id}n`,
    policy: policies.permanent,
    ...(first?.dependencies !== undefined && { dependencies: { requires: [first.id] } })
  }
  return [own, ...[...group.children, more].flatMap((child) => placesOf(child, shape, `${path}/`))]
}

const policyList = Object.values(policies)

/** A leaf with another policy. */
export const withPolicy = ({ shape, within }: Placed, number: number): Shape => {
  const policy = policyList[number % policyList.length] ?? policies.permanent
  return { ...shape, policy, significant: significantIn(within?.group?.autoShutdown ?? "never", policy) }
}

/** The handle of a supervisor, as far as both kinds have it in common. */
export type Handle = Pick<Management.Management<never>, "startChild" | "deleteChild" | "reloadSpecs">

/** Specs of shapes, with leaves made by `leaf`; the handles of their supervisors are kept in `handles`, by path. */
export const specOf = (
  shape: Shape,
  leaf: (shape: Shape) => ChildSpec<unknown, never>,
  handles: Map<string, Handle>,
  above = ""
): Effect.Effect<ChildSpec<unknown, never>> =>
  Effect.gen(function* () {
    const { dependencies = {}, group, id, policy, significant = false } = shape
    if (group === undefined) return leaf(shape)
    const path = `${above}${id}`
    const children = yield* Effect.forEach(group.children, (child) => specOf(child, leaf, handles, `${path}/`))
    const options = { policy, significant, dependencies } as const
    if (group.kind === "dynamic") {
      const dynamic = yield* DynamicSupervisor.make(id, { ...options, children: Effect.succeed(children) })
      handles.set(path, dynamic)
      return dynamic.spec
    }
    const { autoShutdown, intensity, strategy } = group
    const limits = { intensity, period: WITHIN } as const
    const managed = yield* Supervisor.managed<never>(id, { ...options, ...limits, strategy, autoShutdown, children })
    handles.set(path, managed)
    return managed.spec
  })
