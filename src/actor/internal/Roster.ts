/**
 * Who the children of a group are: their nodes, which outlive the supervisor's incarnations, and the specs they have. Starts
 * and ends nobody.
 */
import type { ChildSpec } from "../ChildSpec.ts"
import { Dependents } from "./Dependents.ts"
import type { Node } from "./Node.ts"
import { Siblings } from "./Siblings.ts"

/** What it takes from the group. */
export interface Registry<R> {
  /** A node for a spec that has none. */
  readonly make: (spec: ChildSpec<unknown, R>) => Node<R>
  /** Takes a child that does not live out of the tree. */
  readonly forget: (child: Node<R>) => void
}

export class Roster<R> {
  readonly children = new Siblings<R>()
  readonly dependents = new Dependents(this.children)
  /** What the management calls have changed of a static list; empty as long as nobody used them. */
  readonly #changed = new Map<string, ChildSpec<unknown, R>>()
  readonly #registry: Registry<R>

  constructor(registry: Registry<R>) {
    this.#registry = registry
  }

  /** A static list with what has been changed of it: what was added comes last. */
  list(specs: ReadonlyArray<ChildSpec<unknown, R>>): ReadonlyArray<ChildSpec<unknown, R>> {
    if (this.#changed.size === 0) return specs
    const own = new Set(specs.map((spec) => spec.id))
    const added = [...this.#changed.values()].filter((spec) => !own.has(spec.id))
    return [...specs.map((spec) => this.#changed.get(spec.id) ?? spec), ...added]
  }

  /** The supervisor's next start has this spec too, or instead. */
  change(spec: ChildSpec<unknown, R>): void {
    this.#changed.set(spec.id, spec)
  }

  /** The supervisor's next start has nothing of what was changed of this child. */
  changeNothing(id: string): void {
    this.#changed.delete(id)
  }

  /** The node for `spec`: the one of the supervisor's last incarnation, or a new one. `desired`: the list
   * is a desired state. */
  adopt(spec: ChildSpec<unknown, R>, desired: boolean): Node<R> {
    const old = this.children.get(spec.id)
    if (old !== undefined) {
      if (old.alive) return old
      if ((old.group === undefined) === (spec.behaviour._tag === "Worker")) {
        this.respec(old, spec)
        if (desired) this.#desire(old, spec)
        return old
      }
      this.#registry.forget(old)
    }
    return this.introduce(spec)
  }

  /** A new node, for a spec of an id that nobody has. */
  introduce(spec: ChildSpec<unknown, R>): Node<R> {
    const child = this.#registry.make(spec)
    this.children.link(child)
    this.dependents.add(child)
    return child
  }

  /** A desired state knows what persons decided. (A static list does not, so there their word stands.) */
  #desire(child: Node<R>, { autoStart, policy }: ChildSpec<unknown, R>): void {
    if (child.view.policy !== policy) child.setPolicy(policy)
    // One in whose place a sibling runs stays parked.
    if (child.fallback !== undefined) return
    const isOver = child.state === "finished" || child.state === "failed"
    if (autoStart) child.move("hold")
    else if (!isOver) child.move("halt")
  }

  /** Gives a child another spec of the same id and type. */
  respec(child: Node<R>, spec: ChildSpec<unknown, R>): void {
    this.dependents.delete(child)
    this.children.respec(child, spec)
    this.dependents.add(child)
  }

  remove(child: Node<R>): void {
    this.children.unlink(child)
    this.dependents.delete(child)
  }
}
