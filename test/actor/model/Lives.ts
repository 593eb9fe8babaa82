/**
 * How the model's actors start and end: by plain recursion over plain arrays, everything at once. Who calls what is `Model`'s.
 */
import type { Shape } from "../Shape.ts"
import {
  type Actor,
  alive,
  concerned,
  dependents,
  drop,
  type Due,
  inOrderOfEnd,
  isDynamic,
  isParked,
  listOf,
  make,
  respec,
  unmet
} from "./Actor.ts"
import { countStart, type Ended, judge, type Verdict } from "./Verdict.ts"

export class Lives {
  /** What leaves do: `start`, `hook` (stop hooks run), `close`. */
  readonly log: Array<string> = []
  /** How often the next starts of a leaf fail. */
  readonly failing = new Map<string, number>()
  now = 0
  /** Something has been started again at once while others were still to start: in what order these do is left open. */
  sideBySide = false
  #timers = 0

  /** So long from now, after all that was appointed for the same time before. */
  appoint(delay: number): Due {
    return [this.now + delay, ++this.#timers]
  }

  // --- starts ---

  /** Starts it, or has it wait: for the others that are to start anew, or for the siblings that it needs. */
  begin(actor: Actor, automatic: boolean): void {
    if (!concerned(actor)) return this.#beginAlone(actor, automatic)
    actor.due = undefined
    actor.waitingFor = []
    actor.state = "waiting"
  }

  #beginAlone(actor: Actor, automatic: boolean): void {
    actor.due = undefined
    actor.waitingFor = unmet(actor)
    if (actor.waitingFor.length === 0) return this.start(actor, automatic)
    const waited = actor.state === "waiting"
    actor.state = "waiting"
    actor.automatic = automatic
    if (!waited) this.tell(actor)
  }

  start(actor: Actor, automatic: boolean): void {
    actor.due = undefined
    actor.waitingFor = []
    actor.state = "starting"
    const again = automatic && actor.incarnation > 0
    actor.incarnation++
    if (again) actor.restarts++
    else countStart(actor, this.now)
    const { group, id } = actor.shape
    if (group === undefined) {
      this.log.push(`start ${id}`)
      const failures = this.failing.get(id) ?? 0
      this.failing.set(id, Math.max(0, failures - 1))
      return failures > 0 ? this.ended(actor, { normal: false, beforeReady: true }) : this.#ready(actor)
    }
    actor.spent = []
    const before = actor.children
    actor.children = listOf(actor).map((shape, order) => {
      const child = before.find((child) => child.shape.id === shape.id) ?? make(shape, actor)
      respec(child, shape)
      child.order = order
      return child
    })
    actor.places = actor.children.length
    if (!isDynamic(actor)) {
      actor.phase = "starting"
      return this.pass(actor, 0)
    }
    actor.phase = "up"
    for (const child of actor.children) child.state = "waiting"
    this.#ready(actor)
    for (const child of actor.children) if (child.state === "waiting") this.begin(child, false)
  }

  #ready(actor: Actor): void {
    actor.state = "running"
    actor.readyAt = this.now
    this.tell(actor)
  }

  /** Starts, in order, what waits from place `order` on. */
  pass(group: Actor, order: number): void {
    const pass = ++group.pass
    const waitsForPersons = group.shape.group?.strategy !== "one_for_one"
    for (const child of group.children) {
      if (child.order < order || !group.children.includes(child)) continue
      if (child.state !== "waiting" && child.state !== "backing-off") continue
      if (concerned(child)) continue
      const { incarnation } = child
      this.begin(child, group.phase === "up")
      if (child.incarnation > incarnation + 1) this.sideBySide = true
      // What came of this start may have begun another pass, or ended the group.
      if (group.pass !== pass || group.phase === "down" || (waitsForPersons && isParked(child))) return
    }
    if (group.phase !== "starting") return
    group.phase = "up"
    this.#ready(group)
  }

  add(group: Actor, shape: Shape): Actor {
    if (!isDynamic(group)) group.changed.set(shape.id, shape)
    const child = make(shape, group)
    child.order = group.places++
    group.children.push(child)
    return child
  }

  // --- what siblings hear ---

  /** `actor` has changed: who is bound to it ends with it, then who waited looks again. */
  tell(actor: Actor): void {
    const { parent } = actor
    const isDown = (): boolean => parent === undefined || parent.phase === "down"
    if (isDown()) return
    const all = dependents(actor, "after", "afterSuccess", "requires", "bindsTo")
    if (actor.state !== "running") {
      for (const dependent of dependents(actor, "bindsTo")) {
        if (!isDown() && !concerned(dependent)) this.#endBound(dependent, true)
      }
    }
    let started = 0
    for (const dependent of all) {
      if (dependent.waitingFor.length === 0) continue
      if (isDown()) return
      started++
      this.begin(dependent, dependent.automatic)
      // The start of one was the end of the group, while others were as far as that one.
      if (isDown() && all.length > started) this.sideBySide = true
    }
  }

  /** Ends a child on account of a sibling, after those that need it; it follows when that one is back. */
  #endBound(actor: Actor, own: boolean): void {
    if (!alive(actor)) return
    actor.departing = true
    for (const dependent of dependents(actor, "requires", "bindsTo")) this.#endBound(dependent, own)
    actor.departing = false
    if (!alive(actor)) return
    this.end(actor, "stop")
    actor.state = "waiting"
    const { parent, shape } = actor
    if (parent === undefined) return
    if (shape.policy.restart !== "temporary") {
      this.tell(actor)
      if (parent.phase !== "down" && actor.state === "waiting") this.begin(actor, true)
      return
    }
    // It has ended for good, as a bystander, unless that is a person's doing.
    drop(actor)
    if (!own || !this.#overFor(actor, parent)) this.tell(actor)
  }

  /** Whatever its state, and before it those that need it. */
  endByPerson(actor: Actor): void {
    actor.departing = alive(actor)
    for (const dependent of dependents(actor, "requires", "bindsTo")) this.#endBound(dependent, false)
    if (alive(actor)) this.end(actor, "stop")
    actor.departing = false
    actor.due = undefined
  }

  forget(actor: Actor): void {
    drop(actor)
    this.tell(actor)
  }

  // --- an end of its own ---

  ended(actor: Actor, exit: Ended): void {
    const { parent } = actor
    if (parent === undefined) actor.state = exit.normal ? "finished" : "failed"
    else if (parent.phase === "starting" && exit.beforeReady) {
      actor.state = "failed"
      actor.attempt++
      this.#giveUp(parent)
    } else this.#carryOut(judge(actor, parent, exit, this.now), actor, parent, exit)
    if (!alive(actor) && parent?.children.includes(actor) === true) this.tell(actor)
  }

  #carryOut(verdict: Verdict, actor: Actor, group: Actor, exit: Ended): void {
    switch (verdict._tag) {
      case "Over": {
        actor.state = exit.normal ? "finished" : "failed"
        const forgotten = actor.shape.policy.restart === "temporary" && (exit.normal || actor.shape.group === undefined)
        if (forgotten) drop(actor)
        if (!this.#overFor(actor, group) && forgotten) this.tell(actor)
        return
      }
      case "Parked":
        actor.state = "parked"
        return
      case "GivesUp":
        actor.state = "failed"
        return this.#giveUp(group)
      case "Restarts": {
        const { delay, everyone } = verdict
        actor.state = "backing-off"
        const { strategy } = group.shape.group ?? {}
        if (everyone || strategy !== "one_for_one" || concerned(actor)) {
          return this.#restartFrom(group, actor, delay, everyone || strategy === "one_for_all")
        }
        this.tell(actor)
        if (actor.state !== "backing-off") return
        if (delay === 0) this.begin(actor, true)
        else actor.due = this.appoint(delay)
      }
    }
  }

  /** It has ended for good: if it is significant, that may be the end of its supervisor. Answers whether it is. */
  #overFor(actor: Actor, group: Actor): boolean {
    const autoShutdown = group.shape.group?.autoShutdown ?? "never"
    if (actor.shape.significant !== true || autoShutdown === "never" || group.phase === "down") return false
    const isPending = ({ shape, state }: Actor): boolean =>
      shape.significant === true && ["starting", "running", "waiting", "backing-off"].includes(state)
    if (autoShutdown === "all_significant" && group.children.some(isPending)) return false
    this.#endChildren(group, "stop")
    this.ended(group, { normal: true, beforeReady: false })
    return true
  }

  #giveUp(group: Actor): void {
    const beforeReady = group.state === "starting"
    this.#endChildren(group, "release")
    this.ended(group, { normal: false, beforeReady })
  }

  // --- several anew ---

  #restartFrom(group: Actor, child: Actor, delay: number, everyone: boolean): void {
    const pass = ++group.pass
    const before = group.restart
    const from = before !== undefined && before.from.order < child.order ? before.from : child
    const at = Math.max(this.now + delay, before?.due[0] ?? 0)
    group.restart = { from, everyone: everyone || before?.everyone === true, due: [at, Number.POSITIVE_INFINITY] }
    let over: Actor | undefined
    for (const other of isDynamic(group) ? group.children : inOrderOfEnd(group)) {
      if (!concerned(other)) continue
      if (alive(other)) {
        this.end(other, isDynamic(group) ? "stop" : "release")
        other.state = "waiting"
        const { policy, significant } = other.shape
        if (policy.restart === "temporary") {
          over = significant === true ? other : over
          drop(other)
        }
        this.tell(other)
      } else if (other.state === "finished") other.state = "waiting"
      if (other !== child) other.due = undefined
    }
    child.due = undefined
    // A temporary bystander has ended for good too.
    if (over !== undefined) this.#overFor(over, group)
    // The group may have ended, and even have begun anew.
    if (group.pass !== pass) return
    group.restart.due = this.appoint(at - this.now)
    if (at <= this.now) this.startAnew(group)
  }

  startAnew(group: Actor): void {
    const { restart } = group
    if (restart === undefined) return
    group.restart = undefined
    if (!isDynamic(group)) return this.pass(group, restart.everyone ? 0 : restart.from.order)
    for (const child of group.children) {
      if (child.state === "waiting" || (child.state === "backing-off" && child.due === undefined)) {
        this.begin(child, true)
      }
    }
  }

  startByPerson(actor: Actor, group: Actor): void {
    actor.due = undefined
    const { restart } = group
    if (restart !== undefined && concerned(actor)) {
      actor.state = "waiting"
      if (actor === restart.from) this.startAnew(group)
      return
    }
    const pass = ++group.pass
    this.begin(actor, false)
    if (group.shape.group?.strategy === "one_for_one" || group.pass !== pass || actor.state !== "running") return
    this.pass(group, actor.order + 1)
  }

  // --- ends asked for ---

  end(actor: Actor, ending: "stop" | "release"): void {
    if (actor.shape.group !== undefined) return this.#endChildren(actor, ending)
    if (ending === "stop") this.log.push(`hook ${actor.shape.id}`)
    this.log.push(`close ${actor.shape.id}`)
  }

  #endChildren(group: Actor, ending: "stop" | "release"): void {
    group.phase = "down"
    group.pass++
    group.restart = undefined
    for (const child of isDynamic(group) ? group.children : inOrderOfEnd(group)) {
      child.due = undefined
      child.waitingFor = []
      const { restart } = child.shape.policy
      if (alive(child)) {
        this.end(child, ending)
        child.state = "waiting"
        if (restart === "temporary") this.forget(child)
      } else if (restart === "temporary" && child.state !== "failed") this.forget(child)
      // what is over is over until the desired state says otherwise
      else if (isDynamic(group) && (child.state === "finished" || child.state === "failed")) continue
      else if (child.state !== "stopped" && child.state !== "parked") child.state = "waiting"
    }
  }
}
