/**
 * Who runs in whose place: a child that fell back is parked and names the sibling (`Node.fallback`), which knows for whom it
 * runs (`Node.standsInFor`) until a person starts either, or stops it. Questions about that; a `Group` does what follows.
 *
 * Trap: the name outlives a restart of the brain, by the journal; the other direction is found again from it.
 */
import type { Node } from "./Node.ts"
import type { Siblings } from "./Siblings.ts"

const namedBy = <R>(siblings: Siblings<R>, child: Node<R>): Node<R> | undefined =>
  child.fallback === undefined ? undefined : siblings.get(child.fallback)

/** Who lives in the place of `child`, and only for that. */
export const standInOf = <R>(siblings: Siblings<R>, child: Node<R>): Node<R> | undefined => {
  const sibling = namedBy(siblings, child)
  return sibling?.alive === true && sibling.standsInFor === child ? sibling : undefined
}

/** After a start of the supervisor: who ran in the place of a parked child is to do so again, and waits for its start. */
export const resume = <R>(siblings: Siblings<R>): ReadonlyArray<Node<R>> =>
  siblings.parked().flatMap((child) => {
    const sibling = namedBy(siblings, child)
    if (sibling?.state === "stopped" && sibling !== child) sibling.move("hold")
    if (sibling?.state !== "waiting") return []
    sibling.standsInFor = child
    return [sibling]
  })

/** Why `sibling` does not start in the place of `child`: it has a life of its own, or is no help. */
export const hindranceOf = <R>(child: Node<R>, sibling: Node<R> | undefined): string | undefined => {
  if (sibling === undefined) return "is no sibling"
  if (sibling === child) return "is the one that failed"
  switch (sibling.state) {
    case "stopped":
    case "finished":
    case "failed":
      return undefined
    case "parked":
      return "is parked itself"
    default:
      return `is ${sibling.state} already`
  }
}
