/**
 * Supervision as a small executable model: everything happens at once, by plain recursion over plain arrays, however slow
 * that is. The engine must show the same states and do the same things in the same order.
 *
 * Here is what can be asked of it and done to it; how actors live is `Lives`, what a policy says `Verdict`.
 *
 * Simplifications, made by the tests that use it: leaves are ready or fail at once and end at once; there is no jitter.
 * Left open are the order in which dependents of one child end and start side by side, and what follows from one that is
 * started again at once while others are still to start ({@link sideBySide}).
 */
import type { Shape } from "../Shape.ts"
import { type Actor, alive, concerned, type Due, forget, make, misplaced, respec } from "./Actor.ts"
import { Lives } from "./Lives.ts"

export class Model {
  readonly root: Actor
  readonly #lives = new Lives()

  constructor(shape: Shape) {
    this.root = make(shape, undefined)
    this.#lives.start(this.root, false)
  }

  // --- what can be compared ---

  get log(): Array<string> {
    return this.#lives.log
  }

  /** From here on the engine may have done things in another order. */
  get sideBySide(): boolean {
    return this.#lives.sideBySide
  }

  get states(): Record<string, string> {
    const states: Record<string, string> = {}
    this.#visit((actor) => {
      const waiting = actor.waitingFor.length === 0 ? "" : ` for ${actor.waitingFor.join(" ")}`
      states[actor.path] =
        `${actor.state}${waiting} #${actor.incarnation} restarts ${actor.restarts} attempt ${actor.attempt}`
    })
    return states
  }

  /** How many back-offs are waited for. */
  get timers(): number {
    let timers = 0
    this.#visit(({ due, restart }) => {
      timers += Number(due !== undefined) + Number(restart !== undefined)
    })
    return timers
  }

  #visit(see: (actor: Actor) => void): void {
    const visit = (actor: Actor): void => {
      see(actor)
      for (const child of actor.children) visit(child)
    }
    visit(this.root)
  }

  #find(path: string): Actor | undefined {
    let found: Actor | undefined
    this.#visit((actor) => {
      if (actor.path === path) found = actor
    })
    return found
  }

  // --- what can be done to it ---

  /** The next starts of a leaf fail, so often. */
  failStarts(id: string, times: number): void {
    this.#lives.failing.set(id, times)
  }

  /** True when it is a leaf that runs: only then it can end. */
  canEnd(path: string): boolean {
    const actor = this.#find(path)
    return actor?.state === "running" && actor.shape.group === undefined
  }

  crash(path: string): void {
    this.#endItself(path, false)
  }

  finish(path: string): void {
    this.#endItself(path, true)
  }

  #endItself(path: string, normal: boolean): void {
    const actor = this.#find(path)
    if (actor === undefined) return
    this.log.push(`close ${actor.shape.id}`)
    this.#lives.ended(actor, { normal, beforeReady: false })
  }

  stop(path: string): string {
    const actor = this.#find(path)
    if (actor === undefined) return "NoSuchActor"
    if (actor.parent === undefined) return "NotSupervised"
    this.#lives.endByPerson(actor)
    if (actor.shape.policy.restart === "temporary") this.#lives.forget(actor)
    else this.#rest(actor, "stopped")
    return "ok"
  }

  start(path: string): string {
    const actor = this.#find(path)
    if (actor === undefined) return "NoSuchActor"
    if (actor.parent === undefined) return "NotSupervised"
    if (actor.parent.phase === "down") return "SupervisorDown"
    if (alive(actor)) return "AlreadyStarted"
    this.#forgive(actor)
    this.#lives.startByPerson(actor, actor.parent)
    return "done"
  }

  restart(path: string): string {
    const actor = this.#find(path)
    if (actor === undefined) return "NoSuchActor"
    if (actor.parent === undefined) return "NotSupervised"
    if (actor.parent.phase === "down") return "SupervisorDown"
    this.#forgive(actor)
    if (alive(actor)) {
      this.#lives.endByPerson(actor)
      this.#rest(actor, "waiting")
    }
    this.#lives.startByPerson(actor, actor.parent)
    return "done"
  }

  remove(path: string): string {
    const actor = this.#find(path)
    if (actor === undefined) return "NoSuchActor"
    if (actor.parent === undefined) return "NotSupervised"
    if (alive(actor)) return "StillRunning"
    actor.parent.changed.delete(actor.shape.id)
    this.#lives.forget(actor)
    return "ok"
  }

  /** True while the handle of the supervisor at `path` can be used. */
  isManaged(path: string): boolean {
    return this.#find(path)?.phase === "up"
  }

  add(path: string, shape: Shape): string {
    const group = this.#find(path)
    if (group === undefined || group.phase !== "up") return "SupervisorDown"
    const isThere = (id: string): boolean => group.children.some((child) => child.shape.id === id)
    const named = Object.values(shape.dependencies ?? {}).flat()
    if (group.shape.group?.kind === "static" && !named.every(isThere)) return "SpecInvalid"
    const present = group.children.find((child) => child.shape.id === shape.id)
    if (present !== undefined) return alive(present) ? "AlreadyStarted" : "AlreadyPresent"
    const child = this.#lives.add(group, shape)
    if (!concerned(child)) this.#lives.begin(child, false)
    return "done"
  }

  reload(path: string, shapes: ReadonlyArray<Shape>): string {
    const group = this.#find(path)
    if (group === undefined || group.phase !== "up") return "SupervisorDown"
    if (misplaced(group, shapes)) return "SpecInvalid"
    for (const shape of shapes) {
      const child = group.children.find((child) => child.shape.id === shape.id)
      if (child === undefined) this.#lives.add(group, shape).state = "stopped"
      else {
        if (group.shape.group?.kind === "static") group.changed.set(shape.id, shape)
        respec(child, shape)
        if (child.waitingFor.length > 0) this.#lives.begin(child, child.automatic)
      }
    }
    return "ok"
  }

  advance(milliseconds: number): void {
    const target = this.#lives.now + milliseconds
    for (let next = this.#first(target); next !== undefined; next = this.#first(target)) {
      this.#lives.now = next.due[0]
      next.fire()
    }
    this.#lives.now = target
  }

  /** What is due first, until then. */
  #first(target: number): { readonly due: Due; readonly fire: () => void } | undefined {
    const appointments: Array<{ readonly due: Due; readonly fire: () => void }> = []
    this.#visit((actor) => {
      const { due, restart } = actor
      if (due !== undefined) appointments.push({ due, fire: () => this.#lives.begin(actor, true) })
      if (restart !== undefined) appointments.push({ due: restart.due, fire: () => this.#lives.startAnew(actor) })
    })
    return appointments
      .filter(({ due }) => due[0] <= target)
      .sort(({ due: one }, { due: other }) => one[0] - other[0] || one[1] - other[1])[0]
  }

  #forgive(actor: Actor): void {
    actor.attempt = 0
    forget(actor)
  }

  /** It does not live and is not about to, until somebody says so. */
  #rest(actor: Actor, state: "stopped" | "waiting"): void {
    actor.state = state
    actor.waitingFor = []
    this.#lives.tell(actor)
  }
}
