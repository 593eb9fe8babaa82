/**
 * What is wrong with child specs: all of it at once, each with the field that it concerns. A pure check, made before
 * anything starts or changes: by the root of its whole tree, by a supervisor of the children it is given while it runs.
 *
 * OTP checks the same (`supervisor:check_childspecs`) but stops at the first problem.
 *
 * Traps: the children of a dynamic supervisor are not known before it runs; it fails with `SpecInvalid` when they cannot
 * be. There a dependency may name a sibling that is not there yet, so only circles are wrong. In the list of a static one
 * a child may need only what comes before it; once it runs, whatever is there and does not go round in a circle: who was
 * dropped and added again comes last.
 */
import * as ActorPath from "./ActorPath.ts"
import { type AutoShutdown, type ChildSpec, type Dependencies, noDependencies } from "./ChildSpec.ts"
import type { SpecProblem } from "./Errors.ts"
import type { Strategy } from "./Strategy.ts"

type Spec = ChildSpec<unknown, unknown>

/** What a supervisor is to its children. */
export interface Siblings {
  readonly strategy: Strategy
  readonly autoShutdown: AutoShutdown
  /** Every sibling is known, and starts in the order of the list. */
  readonly ordered: boolean
}

const idProblem = (id: string): string | undefined =>
  ActorPath.isId(id) ? undefined : `${JSON.stringify(id)} must be a non-empty string without "/"`

const fieldOf = (at: string, name: string): string => (at === "" ? name : `${at}.${name}`)

const isTime = (value: number): boolean => value >= 0

const isCount = (value: number): boolean =>
  value >= 0 && (Number.isInteger(value) || value === Number.POSITIVE_INFINITY)

/** What is wrong with the limit on the restarts of a tree. */
export const ofRestartRate = (
  rate: { readonly perSecond: number; readonly burst: number } | undefined
): ReadonlyArray<SpecProblem> => {
  const problems: Array<SpecProblem> = []
  if (rate === undefined) return problems
  const { burst, perSecond } = rate
  if (!(perSecond > 0 && Number.isFinite(perSecond))) {
    problems.push({ field: "restartRate.perSecond", problem: `must be a number above 0, not ${perSecond}` })
  }
  if (!(burst >= 1 && Number.isFinite(burst))) {
    problems.push({ field: "restartRate.burst", problem: `must be a number of 1 or more, not ${burst}` })
  }
  return problems
}

/** The names of all lists, each with its list. */
const lists = ({ after, afterSuccess, bindsTo, requires }: Dependencies) => [
  ["after", after] as const,
  ["afterSuccess", afterSuccess] as const,
  ["requires", requires] as const,
  ["bindsTo", bindsTo] as const
]

/** True when a child names a sibling at all. */
export const depends = ({ after, afterSuccess, bindsTo, requires }: Dependencies): boolean =>
  after.length + afterSuccess.length + requires.length + bindsTo.length > 0

/** Every sibling that a child names. */
export const named = ({ after, afterSuccess, bindsTo, requires }: Dependencies): ReadonlyArray<string> => [
  ...after,
  ...afterSuccess,
  ...requires,
  ...bindsTo
]

/** What is wrong with one spec and, for a static supervisor, with all below it. */
export const ofSpec = (spec: Spec, at = ""): ReadonlyArray<SpecProblem> => {
  const problems: Array<SpecProblem> = []
  const say = (name: string, problem: string | undefined): void => {
    if (problem !== undefined) problems.push({ field: fieldOf(at, name), problem })
  }
  say("id", idProblem(spec.id))
  if (!isTime(spec.shutdown)) say("shutdown", `must be a time of 0 or more, not ${spec.shutdown}`)
  if (!(spec.startDeadline > 0)) say("startDeadline", `must be a time above 0, not ${spec.startDeadline}`)
  if (spec.significant && spec.policy.restart === "permanent") {
    say("significant", "does not go with a permanent restart: such a child never ends for good")
  }
  const { behaviour } = spec
  if (behaviour._tag === "Worker") return problems
  const { intensity } = behaviour
  if (intensity !== undefined) {
    if (!isCount(intensity.restarts)) {
      say("intensity", `must be a whole number of 0 or more, not ${intensity.restarts}`)
    }
    if (!(intensity.within > 0)) say("period", `must be a time above 0, not ${intensity.within}`)
  }
  if (behaviour._tag === "Dynamic") {
    if (!isCount(behaviour.maxChildren)) {
      say("maxChildren", `must be a whole number of 0 or more, not ${behaviour.maxChildren}`)
    }
    return problems
  }
  const { autoShutdown, children, strategy } = behaviour
  problems.push(...ofChildren(children, { strategy, autoShutdown, ordered: true }, fieldOf(at, "children")))
  return problems
}

/**
 * What is wrong with a list of siblings: each of them, and what they are to each other and to those that are `present`
 * already. Of the present ones, those that the list names are replaced by it; the others stay.
 */
export const ofChildren = (
  children: ReadonlyArray<Spec>,
  siblings: Siblings,
  at = "children",
  present: ReadonlyArray<Spec> = []
): Array<SpecProblem> => {
  const problems: Array<SpecProblem> = []
  const places = new Map<string, number>()
  for (const [index, child] of children.entries()) {
    const here = `${at}[${index}]`
    problems.push(...ofSpec(child, here), ...amongSiblings(child, siblings, here))
    const other = places.get(child.id)
    if (other === undefined) places.set(child.id, index)
    else problems.push({ field: `${here}.id`, problem: `"${child.id}" is that of ${at}[${other}] too` })
  }
  const fieldAt = (id: string): string => `${at}[${places.get(id) ?? 0}]`
  const all = new Map<string, Spec>()
  for (const spec of present) all.set(spec.id, spec)
  for (const [id, index] of places) {
    const spec = children[index]
    if (spec !== undefined) all.set(id, spec)
  }
  const dependent = children.filter(({ dependencies }) => depends(dependencies))
  if (siblings.ordered) {
    const isRunning = present.length > 0
    const isBefore = (id: string, child: string): boolean => (places.get(id) ?? Infinity) < (places.get(child) ?? 0)
    for (const child of dependent) {
      const isInPlace = (id: string) => (isRunning ? all.has(id) : isBefore(id, child.id))
      problems.push(...misplaced(child, isInPlace, all, fieldAt(child.id)))
    }
    for (const child of children) problems.push(...fallsNowhere(child, all, fieldAt(child.id)))
    if (!isRunning) return problems
  }
  const circle = findCircle(dependent, (id) => all.get(id)?.dependencies)
  if (circle !== undefined) {
    const field = `${fieldAt(circle.find((id) => places.has(id)) ?? "")}.dependencies`
    problems.push({ field, problem: circular(circle) })
  }
  return problems
}

/** What is wrong with one more child under a supervisor that runs. `sibling` answers what another one needs. */
export const ofNewChild = (
  child: Spec,
  siblings: Siblings,
  sibling: (id: string) => Dependencies | undefined
): ReadonlyArray<SpecProblem> => {
  const problems = [...ofSpec(child), ...amongSiblings(child, siblings)]
  if (siblings.ordered) {
    const there = { has: (id: string) => sibling(id) !== undefined }
    problems.push(...misplaced(child, there.has, there), ...fallsNowhere(child, there))
  }
  if (!depends(child.dependencies)) return problems
  const circle = findCircle([child], (id) => (id === child.id ? child.dependencies : sibling(id)))
  return circle === undefined ? problems : [...problems, { field: "dependencies", problem: circular(circle) }]
}

/** What is wrong with a child because of the supervisor it is under. */
const amongSiblings = (child: Spec, siblings: Siblings, at = ""): ReadonlyArray<SpecProblem> => {
  const problems: Array<SpecProblem> = []
  if (child.significant && siblings.autoShutdown === "never") {
    problems.push({ field: fieldOf(at, "significant"), problem: "means nothing where autoShutdown is never" })
  }
  if (!depends(child.dependencies)) return problems
  if (siblings.strategy !== "one_for_one") {
    const problem = `do not go with ${siblings.strategy}, which says already who depends on whom`
    problems.push({ field: fieldOf(at, "dependencies"), problem })
  }
  for (const [name, ids] of lists(child.dependencies)) {
    if (ids.includes(child.id)) problems.push({ field: fieldOf(at, name), problem: "names the child itself" })
  }
  return problems
}

/**
 * Under a static supervisor the sibling that a policy falls back to must be there. Under a dynamic one it may come and go,
 * and policies are changed while it runs: a name that is no help there is found out when it is needed, and parks.
 */
const fallsNowhere = (
  { id, policy: { fallback } }: Spec,
  all: { readonly has: (id: string) => boolean },
  at = ""
): ReadonlyArray<SpecProblem> =>
  fallback === undefined || (fallback !== id && all.has(fallback))
    ? []
    : [
        {
          field: fieldOf(at, "policy.fallback"),
          problem: fallback === id ? "names the child itself" : `names "${fallback}", which is no sibling`
        }
      ]

/** Under a static supervisor a child can need only what is there, and in its list only what comes before it. */
const misplaced = (
  child: Spec,
  isBefore: (id: string) => boolean,
  all: { readonly has: (id: string) => boolean },
  at = ""
): ReadonlyArray<SpecProblem> =>
  lists(child.dependencies).flatMap(([name, ids]) =>
    ids.flatMap((id) => {
      if (id === child.id || isBefore(id)) return []
      const problem = all.has(id)
        ? `names "${id}", which comes later in the list`
        : `names "${id}", which is no sibling`
      return [{ field: fieldOf(at, name), problem }]
    })
  )

const circular = (circle: ReadonlyArray<string>): string => `go round in a circle: ${circle.join(" → ")}`

/** A circle of dependencies that can be come to from these, as the ids from one round to itself. */
const findCircle = (
  starts: ReadonlyArray<Pick<Spec, "id">>,
  dependenciesOf: (id: string) => Dependencies | undefined
): ReadonlyArray<string> | undefined => {
  const done = new Set<string>()
  for (const { id: start } of starts) {
    // A walk with a stack of its own: a chain may be longer than the machine's.
    const way: Array<{ readonly id: string; readonly rest: Array<string> }> = []
    const on = new Set<string>()
    const enter = (id: string): void => {
      if (done.has(id)) return
      on.add(id)
      way.push({ id, rest: [...named(dependenciesOf(id) ?? noDependencies)] })
    }
    enter(start)
    for (let top = way.at(-1); top !== undefined; top = way.at(-1)) {
      const next = top.rest.pop()
      if (next === undefined) {
        way.pop()
        on.delete(top.id)
        done.add(top.id)
      } else if (on.has(next)) {
        const ids = way.map(({ id }) => id)
        const circle = [...ids.slice(ids.indexOf(next)), next]
        // A child that names itself is told as that.
        if (circle.length > 2) return circle
      } else enter(next)
    }
  }
  return undefined
}
