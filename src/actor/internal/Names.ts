/**
 * The names of a tree: who holds which, and who waits for one to appear. Everything is a look into a map.
 *
 * Taking and giving back a name touches nothing but these maps, so it needs no task in the engine's queue: it is done when
 * the call returns, also in the middle of a start. Names are given back with the life that holds them (`Bonds.onEnd`),
 * before its supervisor hears that it is over: a restart never meets the name of its own predecessor.
 */
import type { ActorPath } from "../ActorPath.ts"
import type { Self } from "../Self.ts"
import type { NameOutcome, NameTable } from "../Tree.ts"
import type { Cancel, Engine } from "./Engine.ts"
import type { Node } from "./Node.ts"

/** The names of one life. */
interface Held {
  readonly names: Set<string>
  /** There is nothing to be given back at its end. */
  readonly forget: Cancel
}

interface Waiter {
  readonly tell: (path: ActorPath) => void
}

export class Names<R> implements NameTable {
  readonly #engine: Engine<R>
  readonly #holders = new Map<string, Node<R>>()
  readonly #heldBy = new Map<Node<R>, Held>()
  readonly #waiters = new Map<string, Set<Waiter>>()

  constructor(engine: Engine<R>) {
    this.#engine = engine
  }

  /** Entries of all maps; for leak checks. */
  get size(): number {
    return this.#holders.size + this.#heldBy.size + this.#waiters.size
  }

  holder(name: string): ActorPath | undefined {
    return this.#holders.get(name)?.view.path
  }

  /** All names with their holders, as they are now. */
  all(): ReadonlyMap<string, ActorPath> {
    return new Map(Array.from(this.#holders, ([name, { view }]) => [name, view.path]))
  }

  take(self: Self["Service"], name: string): NameOutcome {
    const node = this.#engine.bonds.nodeOf(self)
    if (node === undefined) return { _tag: "Over" }
    const holder = this.#holders.get(name)
    if (holder !== undefined) return holder === node ? { _tag: "Held" } : { _tag: "Taken", by: holder.view.path }
    let held = this.#heldBy.get(node)
    if (held === undefined) {
      held = { names: new Set(), forget: this.#engine.bonds.onEnd(node, () => this.#releaseAll(node)) }
      this.#heldBy.set(node, held)
    }
    held.names.add(name)
    this.#holders.set(name, node)
    show(self, held.names)
    if (this.#waiters.has(name)) this.#wake(name)
    return { _tag: "Held" }
  }

  /** Gives a name back, if it is this one's. */
  give(self: Self["Service"], name: string): void {
    const node = this.#engine.bonds.nodeOf(self)
    const held = node === undefined ? undefined : this.#heldBy.get(node)
    if (node === undefined || held?.names.delete(name) !== true) return
    this.#holders.delete(name)
    show(self, held.names)
    if (held.names.size > 0) return
    this.#heldBy.delete(node)
    held.forget()
  }

  #releaseAll(node: Node<R>): void {
    for (const name of this.#heldBy.get(node)?.names ?? []) this.#holders.delete(name)
    this.#heldBy.delete(node)
  }

  /** Tells the holder as soon as there is one. */
  wait(name: string, tell: (path: ActorPath) => void): Cancel {
    const waiter: Waiter = { tell }
    const waiters = this.#waiters.get(name) ?? new Set()
    waiters.add(waiter)
    this.#waiters.set(name, waiters)
    this.#wake(name)
    return () => {
      if (waiters.delete(waiter) && waiters.size === 0 && this.#waiters.get(name) === waiters)
        this.#waiters.delete(name)
    }
  }

  /** One per task, and only while somebody still holds the name. */
  #wake(name: string): void {
    this.#engine.post(() => {
      const waiters = this.#waiters.get(name)
      const path = this.holder(name)
      if (waiters === undefined || path === undefined) return
      for (const waiter of waiters) {
        waiters.delete(waiter)
        this.#engine.answer(() => waiter.tell(path))
        break
      }
      if (waiters.size === 0) this.#waiters.delete(name)
      else this.#wake(name)
    })
  }
}

const show = (self: Self["Service"], held: ReadonlySet<string>): void => self.annotate({ name: [...held].join(", ") })
