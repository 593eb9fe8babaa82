/**
 * The children of a supervisor in order of start: look-up by id, adding and removing cost O(1), walking goes both ways.
 *
 * Trap, and feature: a removed node keeps its links, so a walk that stands on it goes on. Walkers check `removed`.
 */
import type { Count } from "../ChildSpec.ts"
import type { Node } from "./Node.ts"

export class Siblings<R> {
  first: Node<R> | undefined
  last: Node<R> | undefined
  /** Children with a living incarnation; kept by the nodes. */
  active = 0
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
  }

  unlink(child: Node<R>): void {
    if (child.removed) return
    child.removed = true
    this.#cut(child)
    this.#byId.delete(child.spec.id)
    if (child.view.type === "supervisor") this.#supervisors--
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

  count(): Count {
    const specs = this.#byId.size
    return { specs, active: this.active, supervisors: this.#supervisors, workers: specs - this.#supervisors }
  }
}
