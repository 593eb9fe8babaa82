/**
 * The children of a supervisor in order of start: look-up by id, adding and removing cost O(1), walking goes both ways.
 *
 * Trap, and feature: a removed node keeps its links, so a walk that stands on it goes on. Walkers check `removed`, and who
 * comes back to one later asks {@link Siblings.from}, since it knows nobody who was added after it was removed.
 */
import type { ChildSpec, Count } from "../ChildSpec.ts"
import { type ActorState, isAlive } from "../Lifecycle.ts"
import type { Node } from "./Node.ts"

/** It runs, or its supervisor is about to see to it that it does. */
const isPending = (state: ActorState): boolean => isAlive(state) || state === "waiting" || state === "backing-off"

export class Siblings<R> {
  first: Node<R> | undefined
  last: Node<R> | undefined
  /** Children with a living incarnation. */
  active = 0
  /** Significant children that have not come to an end for good. */
  significantPending = 0
  #supervisors = 0
  #order = 0
  readonly #byId = new Map<string, Node<R>>()

  get size(): number {
    return this.#byId.size
  }

  get(id: string): Node<R> | undefined {
    return this.#byId.get(id)
  }

  /** Adds `child` as the last. */
  link(child: Node<R>): void {
    this.#append(child)
    this.#byId.set(child.spec.id, child)
    if (child.view.type === "supervisor") this.#supervisors++
    if (child.spec.significant && isPending(child.state)) this.significantPending++
  }

  /** `child` has gone from one state to another. */
  moved(child: Node<R>, from: ActorState, to: ActorState): void {
    if (isAlive(from) !== isAlive(to)) this.active += isAlive(to) ? 1 : -1
    if (!child.spec.significant || isPending(from) === isPending(to)) return
    if (this.#byId.get(child.spec.id) === child) this.significantPending += isPending(to) ? 1 : -1
  }

  /** Gives `child` another spec of the same id and type. */
  respec(child: Node<R>, spec: ChildSpec<unknown, R>): void {
    if (isPending(child.state)) this.significantPending += Number(spec.significant) - Number(child.spec.significant)
    child.spec = spec
  }

  unlink(child: Node<R>): void {
    if (child.removed) return
    child.removed = true
    this.#cut(child)
    this.#byId.delete(child.spec.id)
    if (child.view.type === "supervisor") this.#supervisors--
    if (child.spec.significant && isPending(child.state)) this.significantPending--
  }

  /** Makes `child` the last. */
  moveLast(child: Node<R>): void {
    this.#cut(child)
    child.next = undefined
    this.#append(child)
  }

  #append(child: Node<R>): void {
    child.order = this.#order++
    child.previous = this.last
    if (this.last === undefined) this.first = child
    else this.last.next = child
    this.last = child
  }

  #cut(child: Node<R>): void {
    if (child.previous === undefined) this.first = child.next
    else child.previous.next = child.next
    if (child.next === undefined) this.last = child.previous
    else child.next.previous = child.previous
  }

  /** The first child of this or a later place in the order. */
  from(order: number): Node<R> | undefined {
    let first: Node<R> | undefined
    for (let child = this.last; child !== undefined && child.order >= order; child = child.previous) first = child
    return first
  }

  /** Their specs, in order of start. */
  specs(): ReadonlyArray<ChildSpec<unknown, R>> {
    return [...this.#byId.values()].sort((one, other) => one.order - other.order).map(({ spec }) => spec)
  }

  /** Those that are parked, in order of start, as of now. */
  parked(): ReadonlyArray<Node<R>> {
    const parked: Array<Node<R>> = []
    for (let child = this.first; child !== undefined; child = child.next)
      if (child.state === "parked") parked.push(child)
    return parked
  }

  count(): Count {
    const specs = this.#byId.size
    return { specs, active: this.active, supervisors: this.#supervisors, workers: specs - this.#supervisors }
  }
}
