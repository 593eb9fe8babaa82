/**
 * The two ways to end several children: newest first, one after another, as static supervisors do; or together, as dynamic
 * ones do. Either way those that depend on a child end before it, also where it comes after them: a child of a static list
 * that was dropped and added again is its newest. What "end" means, and what becomes of those that do not live,
 * says the walk.
 *
 * Traps: children may be removed, and may end by themselves, while a walk is under way. A walk asks its questions anew at
 * every child, so the answers may change meanwhile.
 */
import { named } from "../SpecProblems.ts"
import type { Dependents } from "./Dependents.ts"
import type { Node } from "./Node.ts"
import type { Siblings } from "./Siblings.ts"

export interface Walk<R> {
  /** False: the walk stops before this child. */
  readonly concerns: (child: Node<R>) => boolean
  /** Ends a child that lives, then calls `then`. */
  readonly end: (child: Node<R>, then: () => void) => void
  /** A child that does not live. */
  readonly settle: (child: Node<R>) => void
  readonly done: () => void
}

/** From `at` backward. */
export const inOrder = <R>(at: Node<R> | undefined, dependents: Dependents<R>, walk: Walk<R>): void => {
  for (let child = at; child !== undefined && walk.concerns(child); child = child.previous) {
    if (child.removed) continue
    if (child.alive) {
      const first = firstToEnd(child, dependents, walk)
      const next = first === child ? child.previous : child
      return walk.end(first, () => inOrder(next, dependents, walk))
    }
    walk.settle(child)
  }
  walk.done()
}

/** `child`, or one that lives and depends on it, or on one that does, and on which nobody depends who lives. */
const firstToEnd = <R>(child: Node<R>, dependents: Dependents<R>, walk: Walk<R>): Node<R> => {
  for (let first = child; ;) {
    const dependent = dependents.firstLiving(first, walk.concerns)
    if (dependent === undefined) return first
    first = dependent
  }
}

/** All at once, one child per task of `post`; `patient`: whether one waits for the end of those that need it. */
export const together = <R>(
  children: Siblings<R>,
  dependents: Dependents<R>,
  post: (task: () => void) => void,
  patient: () => boolean,
  walk: Walk<R>
): void => {
  let open = 1
  const close = (): void => {
    if (--open > 0) return
    // Who was held for one that ended by itself, or was being ended by a person, is still to end.
    open = 1
    for (let child = children.first; child !== undefined; child = child.next) {
      if (child.alive && walk.concerns(child)) end(child)
    }
    if (--open === 0) walk.done()
  }
  const end = (child: Node<R>): void => {
    // Its turn comes when the last of those that need it has ended.
    if (patient() && dependents.firstLiving(child, () => true) !== undefined) return
    open++
    walk.end(child, () => {
      for (const id of named(child.spec.dependencies)) {
        const sibling = children.get(id)
        if (sibling?.alive === true && sibling.state !== "stopping" && walk.concerns(sibling)) end(sibling)
      }
      close()
    })
  }
  const sweep = (at: Node<R> | undefined): void => {
    if (at === undefined) return close()
    const { next } = at
    if (!at.removed && walk.concerns(at)) {
      if (at.alive) end(at)
      else walk.settle(at)
    }
    post(() => sweep(next))
  }
  sweep(children.first)
}
