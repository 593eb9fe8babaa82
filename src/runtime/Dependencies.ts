/**
 * What a container needs of the others in its sandbox (`after`, `afterSuccess`, `requires`, `bindsTo`; their meaning is that of
 * `actor/ChildSpec.ts`), and what can be wrong with it: a name nobody has there, itself, a circle. All of it is told, each
 * with its field.
 *
 * One that others name in `afterSuccess` is an *init container*: it runs to its end before they start.
 *
 * Traps: a sandbox's containers are what can depend on each other, since they have one supervisor; a name of another
 * sandbox is refused. What is needed must be there first, so that a circle can only close when a container that others
 * name was removed and comes back with another spec.
 */
import type { Dependencies } from "../actor/ChildSpec.ts"
import type { FieldProblem } from "../storage/StateErrors.ts"
import type { ContainerSpec } from "./ContainerSpec.ts"

const lists = ["after", "afterSuccess", "requires", "bindsTo"] as const

/** Whom a container needs, by name. */
export type Needs = Pick<ContainerSpec, (typeof lists)[number]>

/** One that can be needed. */
export interface Needed extends Needs {
  /** Its policy starts it again however it ends, so that it never finishes. */
  readonly permanent: boolean
}

/** What others need to know of a container with this spec. */
export const neededOf = ({ after, afterSuccess, bindsTo, requires, restart }: ContainerSpec): Needed => ({
  after,
  afterSuccess,
  bindsTo,
  requires,
  permanent: restart.restart === "permanent"
})

/** As the supervisor takes them. */
export const dependenciesOf = ({ after, afterSuccess, bindsTo, requires }: Needs): Dependencies => ({
  after,
  afterSuccess,
  bindsTo,
  requires
})

/** Whether it needs anybody. */
export const dependsOnAny = (spec: Needs): boolean => lists.some((list) => spec[list].length > 0)

/** What is known of other containers. */
export interface Others {
  /** Those in the same sandbox, by name. */
  readonly siblings: ReadonlyMap<string, Needed>
  /** The sandbox of any container. */
  readonly sandboxOf: (name: string) => string | undefined
}

/** The way from `name` along what containers need to `goal`, both included. */
const wayTo = (name: string, goal: string, siblings: Others["siblings"]): ReadonlyArray<string> | undefined => {
  const seen = new Set<string>()
  const visit = (at: string): ReadonlyArray<string> | undefined => {
    if (at === goal) return [at]
    if (seen.has(at)) return undefined
    seen.add(at)
    const needs = siblings.get(at)
    for (const next of needs === undefined ? [] : lists.flatMap((list) => needs[list])) {
      const rest = visit(next)
      if (rest !== undefined) return [at, ...rest]
    }
    return undefined
  }
  return visit(name)
}

/** What is wrong with the container that a policy falls back to: `siblings` are those of the same sandbox. */
export const fallbackProblems = (
  name: string,
  fallback: string | undefined,
  siblings: { readonly has: (name: string) => boolean }
): ReadonlyArray<FieldProblem> => {
  const wrong = (problem: string) => [{ field: "restart.fallback", problem }]
  if (fallback === undefined) return []
  if (fallback === name) return wrong("names the container itself")
  return siblings.has(fallback)
    ? []
    : wrong(`no container of its sandbox is named "${fallback}": create that one first`)
}

/** All that is wrong with what `spec` needs. */
export const problemsOf = (
  spec: Needs & Pick<ContainerSpec, "name">,
  { sandboxOf, siblings }: Others
): ReadonlyArray<FieldProblem> =>
  lists.flatMap((list) =>
    spec[list].flatMap((name, index): ReadonlyArray<FieldProblem> => {
      const wrong = (problem: string) => [{ field: `${list}[${index}]`, problem }]
      if (name === spec.name) return wrong("names the container itself")
      const sibling = siblings.get(name)
      if (sibling === undefined) {
        const sandbox = sandboxOf(name)
        return wrong(
          sandbox === undefined
            ? `no container of its sandbox is named "${name}": create that one first`
            : `"${name}" is in the sandbox "${sandbox}", and only containers of one sandbox can need each other: put both into one`
        )
      }
      if (list === "afterSuccess" && sibling.permanent) {
        return wrong(`"${name}" never finishes, since its policy is permanent: make that transient or temporary`)
      }
      const way = wayTo(name, spec.name, siblings)
      return way === undefined ? [] : wrong(`goes round in a circle: ${[spec.name, ...way].join(" → ")}`)
    })
  )
