/**
 * Several children started anew because of one: `one_for_all`, `rest_for_one`, and a policy's `restart-group`. At most one
 * is under way in a group; a further crash widens it and puts it off.
 *
 * First everything concerned is ended, then the back-off of the child that crashed is waited for, then the tree's restart
 * rate (one turn for all of them), then the group starts what it has.
 *
 * Traps: between the end and the start those concerned are `waiting`, and nothing else may start them: a group asks
 * {@link concerns} first. A sibling's own appointment (its back-off) is forgotten, since it starts with the others.
 */
import type { Dependents } from "./Dependents.ts"
import type { Cancel } from "./Engine.ts"
import type { Because, Node } from "./Node.ts"
import type { Siblings } from "./Siblings.ts"
import * as Walks from "./Walks.ts"

/** What it takes from the group and its supervisor's node. */
export interface Members<R> {
  readonly children: Siblings<R>
  readonly dependents: Dependents<R>
  readonly node: Node<R>
  /** All that is concerned has ended; a significant child may end the group now. */
  readonly cleared: () => void
  /** Starts what has been ended, beginning at `from`. */
  readonly startAnew: (from: Node<R>, everyone: boolean) => void
  /** A temporary significant child has been ended as a bystander: for good. */
  readonly significantEnded: (child: Node<R>) => void
}

export class GroupRestart<R> {
  readonly #members: Members<R>
  /** The earliest child that has crashed; absent while nothing is under way. */
  #from: Node<R> | undefined
  #everyone = false
  /** Monotonic time before which nothing is started. */
  #dueAt = 0
  /** Ends the wait for that time or for a turn; set once everything is cleared. */
  #wait: Cancel | undefined

  constructor(members: Members<R>) {
    this.#members = members
  }

  /** True when `child` is to be started with the others. */
  concerns(child: Node<R>): boolean {
    return this.#from !== undefined && (this.#everyone || child.order >= this.#from.order)
  }

  /** `child` has crashed, and starts anew not before `dueAt` (monotonic) with those after it, or with `everyone`. */
  begin(child: Node<R>, dueAt: number, everyone: boolean): void {
    const from = this.#from
    if (from === undefined) {
      this.#from = child
      this.#everyone = everyone
      this.#dueAt = dueAt
      return this.#clear()
    }
    if (child.order < from.order) this.#from = child
    this.#everyone ||= everyone
    this.#dueAt = Math.max(this.#dueAt, dueAt)
    // A walk that is under way finds out by itself, but not what it has passed already.
    if (this.#wait === undefined) return
    this.#wait()
    this.#wait = undefined
    this.#clear()
  }

  /** A person wants `child`, which is concerned, started: the back-off is over if it is the one waited for. */
  hurry(child: Node<R>): void {
    if (child !== this.#from) return
    this.#dueAt = 0
    if (this.#wait !== undefined) this.#startAnew()
  }

  cancel(): void {
    this.#wait?.()
    this.#wait = undefined
    this.#from = undefined
    this.#everyone = false
  }

  #clear(): void {
    const { children, dependents, node } = this.#members
    const { behaviour } = node.spec
    const walk: Walks.Walk<R> = {
      concerns: (child) => this.concerns(child),
      end: (child, then) => {
        if (child.spec.significant && child.temporary) this.#members.significantEnded(child)
        // To start a dynamic group anew means what it says: containers that are only let go would be taken over again.
        child.end(behaviour._tag === "Static" ? behaviour.bystanders : "stop", "hold", then, this.#because())
      },
      settle: (child) => {
        if (child.state === "finished") child.move("hold")
      },
      done: () => this.#cleared()
    }
    if (behaviour._tag === "Static") return Walks.inOrder(children.last, dependents, walk)
    Walks.together(
      children,
      dependents,
      (task) => node.engine.post(task),
      () => true,
      walk
    )
  }

  #because(): Because | undefined {
    const from = this.#from
    if (from === undefined) return undefined
    const { behaviour } = this.#members.node.spec
    const byStrategy = behaviour._tag === "Static" && behaviour.strategy !== "one_for_one"
    const why = byStrategy
      ? `under ${behaviour.strategy} it starts anew with it`
      : "the policy of that restarts the group"
    return { path: from.view.path, words: `"${from.spec.id}" ended, and ${why}` }
  }

  #cleared(): void {
    if (this.#from === undefined) return
    this.#members.cleared()
    // The group may have ended then, and even have begun anew: nothing is under way any more.
    if (this.#from === undefined) return
    const { children, node } = this.#members
    const { engine } = node
    for (let child = children.last; child !== undefined && this.concerns(child); child = child.previous) {
      child.cancelBackoff()
    }
    const left = this.#dueAt - engine.monotonic()
    if (left <= 0) this.#queue()
    else this.#wait = engine.after(left, () => this.#queue())
  }

  /** Its time has come; now its turn. */
  #queue(): void {
    const { gate } = this.#members.node.engine
    if (gate === undefined) return this.#startAnew()
    let admitted = false
    const cancel = gate.admit((this.#from?.view.attempt ?? 0) > 1, () => {
      admitted = true
      this.#startAnew()
    })
    if (!admitted) this.#wait = cancel
  }

  #startAnew(): void {
    const from = this.#from
    const everyone = this.#everyone
    this.cancel()
    if (from !== undefined) this.#members.startAnew(from, everyone)
  }
}
