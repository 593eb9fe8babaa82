/**
 * What dependencies between siblings mean while a group runs: who waits for whom before it starts (`after`,
 * `afterSuccess`, `requires`, `bindsTo`), who ends with whom, and in what order.
 *
 * A group asks {@link holdBack} at every start, tells of every {@link changed} child, and before a person ends one lets
 * {@link endThoseThatNeed} go first.
 *
 * Traps: a child that is `departing` still runs, but counts as gone; it is so until it has ended. What is ended here is
 * `waiting` afterwards and follows when what it needs is back, unless it is temporary: then it is gone.
 */
import { depends, named } from "../SpecProblems.ts"
import { bindsTo, type Dependents } from "./Dependents.ts"
import type { Node } from "./Node.ts"
import type { Siblings } from "./Siblings.ts"

/** What it takes from the group. */
export interface Members<R> {
  readonly children: Siblings<R>
  readonly dependents: Dependents<R>
  /** True while children may be started. */
  readonly isOpen: () => boolean
  /** Whether a child is being started anew with others, and so is ended anyhow when its turn comes. */
  readonly startsAnew: (child: Node<R>) => boolean
  /** Starts a child, or has it wait. */
  readonly start: (child: Node<R>, automatic: boolean) => void
}

export class GroupNeeds<R> {
  readonly #members: Members<R>

  constructor(members: Members<R>) {
    this.#members = members
  }

  /** True when `child` cannot start yet; it then waits, and tells for whom. */
  holdBack(child: Node<R>, automatic: boolean): boolean {
    const unmet = this.#members.dependents.unmet(child)
    if (unmet.length === 0) return false
    const waited = child.state === "waiting"
    child.awaitSiblings(unmet, automatic)
    // Who waits for others may now wait for this one, too.
    if (!waited) this.changed(child)
    return true
  }

  /** `child` has changed: those that are bound to it end with it, and those that waited for the change go on. */
  changed(child: Node<R>): void {
    const { children, dependents, isOpen, start, startsAnew } = this.#members
    if (!isOpen()) return
    const all = dependents.any ? dependents.of(child) : []
    // Those that end go first: others may be to start after them.
    for (const dependent of all) {
      if (!dependent.alive || startsAnew(dependent)) continue
      if (bindsTo(dependent, child.spec.id) && child.state !== "running") this.#endBound(dependent, child, false)
    }
    for (const dependent of all) {
      if (isOpen() && dependent.awaitsSiblings) start(dependent, dependent.startsAutomatically)
    }
    // Also when it was the last to depend on anybody: it may be gone.
    if (!depends(child.spec.dependencies)) return
    for (const id of named(child.spec.dependencies)) {
      const sibling = children.get(id)
      if (sibling?.awaitsSiblings === true) start(sibling, sibling.startsAutomatically)
    }
  }

  /** Ends those that live and cannot do so without `child`, then calls `done`. `byPerson`: since a person ends `child`. */
  endThoseThatNeed(child: Node<R>, byPerson: boolean, done: () => void): void {
    const { dependents } = this.#members
    const needing = dependents.any ? dependents.needing(child) : []
    let open = needing.length
    if (open === 0) return done()
    for (const dependent of needing) {
      this.#endBound(dependent, child, byPerson, () => {
        if (--open === 0) done()
      })
    }
  }

  /** Ends a child because of a sibling that it `needed`, after those that need it; it follows when that one is back. */
  #endBound(child: Node<R>, needed: Node<R>, byPerson: boolean, done: () => void = () => {}): void {
    if (child.state === "stopping") return child.end("stop", "hold", done)
    const because = {
      path: needed.view.path,
      words: `it needs "${needed.spec.id}", which ${needed.alive ? "is being ended" : "has ended"}`
    }
    child.departing = true
    this.endThoseThatNeed(child, byPerson, () => {
      if (!child.alive) {
        child.departing = false
        return done()
      }
      child.bystander = !byPerson
      const ended = () => {
        const { isOpen, start } = this.#members
        if (isOpen() && child.state === "waiting" && !child.removed) start(child, true)
        done()
      }
      child.end("stop", "hold", ended, because)
    })
  }
}
