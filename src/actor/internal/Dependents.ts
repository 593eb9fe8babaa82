/**
 * Who among siblings depends on whom: the dependencies of the specs, the other way round. Costs nothing where nobody
 * depends on anybody, and a step per dependent else, however many siblings there are.
 */
import { depends, named } from "../SpecProblems.ts"
import type { Node } from "./Node.ts"
import type { Siblings } from "./Siblings.ts"

const none: ReadonlySet<never> = new Set<never>()

/** True when `child` cannot run without the sibling `id`. */
export const needs = <R>({ spec: { dependencies } }: Node<R>, id: string): boolean =>
  dependencies.requires.includes(id) || dependencies.bindsTo.includes(id)

export const bindsTo = <R>({ spec: { dependencies } }: Node<R>, id: string): boolean =>
  dependencies.bindsTo.includes(id)

/** It is still to be seen whether it comes up. */
const isPending = <R>({ state }: Node<R>): boolean =>
  state === "waiting" || state === "starting" || state === "stopping"

export class Dependents<R> {
  readonly #siblings: Siblings<R>
  readonly #byName = new Map<string, Set<Node<R>>>()
  /** Children of the desired state whose turn is still to come: what is to start after them waits. */
  expected = new Set<string>()

  constructor(siblings: Siblings<R>) {
    this.#siblings = siblings
  }

  get any(): boolean {
    return this.#byName.size > 0
  }

  add(child: Node<R>): void {
    if (!depends(child.spec.dependencies)) return
    for (const id of named(child.spec.dependencies)) {
      const dependents = this.#byName.get(id) ?? new Set()
      this.#byName.set(id, dependents.add(child))
    }
  }

  delete(child: Node<R>): void {
    for (const id of named(child.spec.dependencies)) {
      const dependents = this.#byName.get(id)
      dependents?.delete(child)
      if (dependents?.size === 0) this.#byName.delete(id)
    }
  }

  /** Those that name `child`, whether they live or not, as of now: what is done to one of them may change the set. */
  of(child: Node<R>): ReadonlyArray<Node<R>> {
    return [...this.#of(child)]
  }

  #of(child: Node<R>): ReadonlySet<Node<R>> {
    return this.#byName.get(child.spec.id) ?? none
  }

  /** Those that live and cannot do so without `child`. */
  needing(child: Node<R>): ReadonlyArray<Node<R>> {
    return this.of(child).filter((dependent) => dependent.alive && needs(dependent, child.spec.id))
  }

  /** One that names `child`, lives and `counts`: in an end of several, it goes first. */
  firstLiving(child: Node<R>, counts: (dependent: Node<R>) => boolean): Node<R> | undefined {
    if (!this.any) return undefined
    for (const dependent of this.#of(child)) if (dependent.alive && counts(dependent)) return dependent
    return undefined
  }

  /** For whom `child` has to wait before it can start. */
  unmet(child: Node<R>): ReadonlyArray<string> {
    if (this.#byName.size === 0) return []
    const { after, afterSuccess, bindsTo, requires } = child.spec.dependencies
    const unmet = new Set<string>()
    for (const id of after) {
      const sibling = this.#siblings.get(id)
      if (this.expected.has(id) || (sibling !== undefined && isPending(sibling))) unmet.add(id)
    }
    for (const id of afterSuccess) {
      if (this.expected.has(id) || this.#siblings.get(id)?.state !== "finished") unmet.add(id)
    }
    for (const id of [...requires, ...bindsTo]) {
      const sibling = this.#siblings.get(id)
      if (sibling?.state !== "running" || sibling.departing) unmet.add(id)
    }
    // Those that end because of it must be gone before it is there again.
    for (const dependent of this.#of(child)) {
      const isEnding = dependent.state === "stopping" || (dependent.departing && dependent.alive)
      if (isEnding && needs(dependent, child.spec.id)) unmet.add(dependent.spec.id)
    }
    return [...unmet]
  }
}
