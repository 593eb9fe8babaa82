/**
 * Supervision as a small executable model: everything happens at once, by plain recursion over plain arrays, however slow
 * that is. The engine must show the same states and do the same things in the same order.
 *
 * Simplifications, made by the tests that use it: leaves are ready or fail at once and end at once; there is no jitter.
 * Only the order in which dependents of one child end and start side by side is left open.
 */
import * as Duration from "effect/Duration"
import { type Dependencies, noDependencies } from "../../src/actor/ChildSpec.ts"
import type { Rule } from "../../src/actor/RestartRule.ts"
import { type Shape, WITHIN } from "./Shape.ts"

interface Actor {
  shape: Shape
  readonly path: string
  readonly parent: Actor | undefined
  order: number
  state: string
  /** Siblings that its start waits for, and on whose account that start is. */
  waitingFor: ReadonlyArray<string>
  automatic: boolean
  /** A person is ending it. */
  departing: boolean
  incarnation: number
  restarts: number
  attempt: number
  window: Array<number>
  /** Restarts in a row by the policy's one rule. */
  ruled: number
  readyAt: number
  /** one_for_one back-off: when, and as the how manieth timer. */
  due: readonly [at: number, timer: number] | undefined
  // supervisors
  phase: "down" | "starting" | "up"
  children: Array<Actor>
  /** Places given to children in this life. */
  places: number
  /** What persons changed of a static list. */
  readonly changed: Map<string, Shape>
  spent: Array<number>
  pass: number
  restart: { from: Actor; due: readonly [at: number, timer: number] } | undefined
}

interface Ended {
  readonly normal: boolean
  readonly beforeReady: boolean
}

const alive = (actor: Actor): boolean => actor.state === "starting" || actor.state === "running"

const isParked = (actor: Actor): boolean => actor.state === "parked"

export class Model {
  readonly log: Array<string> = []
  readonly root: Actor
  /** How often the next starts of a leaf fail. */
  readonly failing = new Map<string, number>()
  #now = 0
  #timers = 0

  constructor(shape: Shape) {
    this.root = this.#make(shape, undefined)
    this.#start(this.root, false)
  }

  // --- what can be compared ---

  get states(): Record<string, string> {
    const states: Record<string, string> = {}
    const visit = (actor: Actor): void => {
      const waiting = actor.waitingFor.length === 0 ? "" : ` for ${actor.waitingFor.join(" ")}`
      states[actor.path] =
        `${actor.state}${waiting} #${actor.incarnation} restarts ${actor.restarts} attempt ${actor.attempt}`
      for (const child of actor.children) visit(child)
    }
    visit(this.root)
    return states
  }

  /** How many back-offs are waited for. */
  get timers(): number {
    const count = (actor: Actor): number =>
      Number(actor.due !== undefined) +
      Number(actor.restart !== undefined) +
      actor.children.reduce((sum, child) => sum + count(child), 0)
    return count(this.root)
  }

  find(path: string): Actor | undefined {
    const visit = (actor: Actor): Actor | undefined => {
      if (actor.path === path) return actor
      for (const child of actor.children) {
        const found = visit(child)
        if (found !== undefined) return found
      }
      return undefined
    }
    return visit(this.root)
  }

  // --- what can be done to it ---

  /** True when it is a leaf that runs: only then it can end. */
  canEnd(path: string): boolean {
    const actor = this.find(path)
    return actor?.state === "running" && actor.shape.group === undefined
  }

  crash(path: string): void {
    const actor = this.find(path)
    if (actor === undefined) return
    this.log.push(`close ${actor.shape.id}`)
    this.#ended(actor, { normal: false, beforeReady: false })
  }

  finish(path: string): void {
    const actor = this.find(path)
    if (actor === undefined) return
    this.log.push(`close ${actor.shape.id}`)
    this.#ended(actor, { normal: true, beforeReady: false })
  }

  stop(path: string): string {
    const actor = this.find(path)
    if (actor === undefined) return "NoSuchActor"
    if (actor.parent === undefined) return "NotSupervised"
    this.#endByPerson(actor)
    if (actor.shape.policy.restart === "temporary") this.#forget(actor)
    else this.#rest(actor, "stopped")
    return "ok"
  }

  start(path: string): string {
    const actor = this.find(path)
    if (actor === undefined) return "NoSuchActor"
    if (actor.parent === undefined) return "NotSupervised"
    if (actor.parent.phase === "down") return "SupervisorDown"
    if (alive(actor)) return "AlreadyStarted"
    this.#forgive(actor)
    this.#startByPerson(actor, actor.parent)
    return "done"
  }

  restart(path: string): string {
    const actor = this.find(path)
    if (actor === undefined) return "NoSuchActor"
    if (actor.parent === undefined) return "NotSupervised"
    if (actor.parent.phase === "down") return "SupervisorDown"
    this.#forgive(actor)
    if (alive(actor)) {
      this.#endByPerson(actor)
      this.#rest(actor, "waiting")
    }
    this.#startByPerson(actor, actor.parent)
    return "done"
  }

  remove(path: string): string {
    const actor = this.find(path)
    if (actor === undefined) return "NoSuchActor"
    if (actor.parent === undefined) return "NotSupervised"
    if (alive(actor)) return "StillRunning"
    actor.parent.changed.delete(actor.shape.id)
    this.#forget(actor)
    return "ok"
  }

  /** True while the handle of the supervisor at `path` can be used. */
  isManaged(path: string): boolean {
    return this.find(path)?.phase === "up"
  }

  add(path: string, shape: Shape): string {
    const group = this.find(path)
    if (group === undefined || group.phase !== "up") return "SupervisorDown"
    const isThere = (id: string): boolean => group.children.some((child) => child.shape.id === id)
    const named = Object.values(shape.dependencies ?? {}).flat()
    if (group.shape.group?.kind === "static" && !named.every(isThere)) return "SpecInvalid"
    const present = group.children.find((child) => child.shape.id === shape.id)
    if (present !== undefined) return alive(present) ? "AlreadyStarted" : "AlreadyPresent"
    const child = this.#append(group, shape)
    if (group.restart !== undefined && this.#concerned(group, child, group.restart.from)) return "done"
    this.#begin(child, false)
    return "done"
  }

  reload(path: string, shapes: ReadonlyArray<Shape>): string {
    const group = this.find(path)
    if (group === undefined || group.phase !== "up") return "SupervisorDown"
    if (this.#misplaced(group, shapes)) return "SpecInvalid"
    for (const shape of shapes) {
      const child = group.children.find((child) => child.shape.id === shape.id)
      if (child === undefined) this.#append(group, shape).state = "stopped"
      else {
        if (group.shape.group?.kind === "static") group.changed.set(shape.id, shape)
        this.#respec(child, shape)
        if (child.waitingFor.length > 0) this.#begin(child, child.automatic)
      }
    }
    return "ok"
  }

  /** A static list is in order: a child can name only what comes before it. */
  #misplaced(group: Actor, shapes: ReadonlyArray<Shape>): boolean {
    if (group.shape.group?.kind !== "static") return false
    const ids = group.children.toSorted((one, other) => one.order - other.order).map(({ shape: { id } }) => id)
    for (const { id } of shapes) if (!ids.includes(id)) ids.push(id)
    return shapes.some(({ dependencies = {}, id: own }) =>
      Object.values(dependencies).some((named) =>
        named.some((id) => !ids.includes(id) || ids.indexOf(id) > ids.indexOf(own))
      )
    )
  }

  #append(group: Actor, shape: Shape): Actor {
    if (group.shape.group?.kind === "static") group.changed.set(shape.id, shape)
    const child = this.#make(shape, group)
    child.order = group.places++
    group.children.push(child)
    return child
  }

  #respec(child: Actor, shape: Shape): void {
    if (child.shape.policy !== shape.policy) {
      child.window = []
      child.ruled = 0
    }
    child.shape = shape
  }

  advance(milliseconds: number): void {
    const target = this.#now + milliseconds
    for (;;) {
      let first: { due: readonly [number, number]; fire: () => void } | undefined
      const consider = (due: readonly [number, number] | undefined, fire: () => void): void => {
        if (due === undefined || due[0] > target) return
        if (first === undefined || due[0] < first.due[0] || (due[0] === first.due[0] && due[1] < first.due[1])) {
          first = { due, fire }
        }
      }
      const visit = (actor: Actor): void => {
        consider(actor.due, () => this.#begin(actor, true))
        consider(actor.restart?.due, () => this.#startAnew(actor))
        for (const child of actor.children) visit(child)
      }
      visit(this.root)
      const next: { due: readonly [number, number]; fire: () => void } | undefined = first
      if (next === undefined) break
      this.#now = next.due[0]
      next.fire()
    }
    this.#now = target
  }

  // --- lives ---

  #make(shape: Shape, parent: Actor | undefined): Actor {
    return {
      shape,
      path: parent === undefined ? shape.id : `${parent.path}/${shape.id}`,
      parent,
      order: 0,
      state: "waiting",
      waitingFor: [],
      automatic: false,
      departing: false,
      incarnation: 0,
      restarts: 0,
      attempt: 0,
      window: [],
      ruled: 0,
      readyAt: 0,
      due: undefined,
      phase: "down",
      children: [],
      places: 0,
      changed: new Map(),
      spent: [],
      pass: 0,
      restart: undefined
    }
  }

  #forgive(actor: Actor): void {
    actor.attempt = 0
    actor.window = []
    actor.ruled = 0
  }

  #forget(actor: Actor): void {
    this.#drop(actor)
    this.#tell(actor)
  }

  #drop(actor: Actor): void {
    if (actor.parent !== undefined) actor.parent.children = actor.parent.children.filter((child) => child !== actor)
  }

  /** It does not live and is not about to, until somebody says so. */
  #rest(actor: Actor, state: "stopped" | "waiting"): void {
    actor.state = state
    actor.waitingFor = []
    this.#tell(actor)
  }

  /** Starts it, or has it wait for the siblings that it needs. */
  #begin(actor: Actor, automatic: boolean): void {
    actor.due = undefined
    actor.waitingFor = this.#unmet(actor)
    if (actor.waitingFor.length === 0) return this.#start(actor, automatic)
    actor.state = "waiting"
    actor.automatic = automatic
  }

  #start(actor: Actor, automatic: boolean): void {
    actor.due = undefined
    actor.waitingFor = []
    actor.state = "starting"
    actor.incarnation++
    if (automatic && actor.incarnation > 1) actor.restarts++
    const { group, id } = actor.shape
    if (group === undefined) {
      this.log.push(`start ${id}`)
      const failures = this.failing.get(id) ?? 0
      this.failing.set(id, Math.max(0, failures - 1))
      if (failures > 0) return this.#ended(actor, { normal: false, beforeReady: true })
      return this.#ready(actor)
    }
    actor.spent = []
    const before = actor.children
    actor.children = this.#listOf(actor).map((shape, order) => {
      const child = before.find((child) => child.shape.id === shape.id) ?? this.#make(shape, actor)
      this.#respec(child, shape)
      child.order = order
      return child
    })
    actor.places = actor.children.length
    if (group.kind === "static") {
      actor.phase = "starting"
      return this.#pass(actor, 0)
    }
    actor.phase = "up"
    for (const child of actor.children) child.state = "waiting"
    this.#ready(actor)
    for (const child of actor.children) if (child.state === "waiting") this.#begin(child, false)
  }

  /** A static list with what persons changed of it; the desired state of a dynamic one knows nothing of that. */
  #listOf({ changed, shape: { group } }: Actor): ReadonlyArray<Shape> {
    const own = group?.children ?? []
    const added = [...changed.values()].filter(({ id }) => !own.some((shape) => shape.id === id))
    return [...own.map((shape) => changed.get(shape.id) ?? shape), ...added]
  }

  #ready(actor: Actor): void {
    actor.state = "running"
    actor.readyAt = this.#now
    this.#tell(actor)
  }

  /** Starts, in order, what waits from place `order` on. */
  #pass(group: Actor, order: number): void {
    const pass = ++group.pass
    for (const child of group.children) {
      if (child.order < order || !group.children.includes(child)) continue
      if (child.state !== "waiting" && child.state !== "backing-off") continue
      if (group.restart !== undefined && this.#concerned(group, child, group.restart.from)) continue
      this.#begin(child, group.phase === "up")
      // What came of this start may have begun another pass, or ended the group.
      if (group.pass !== pass || group.phase === "down" || isParked(child)) return
    }
    if (group.phase !== "starting") return
    group.phase = "up"
    this.#ready(group)
  }

  // --- dependencies between siblings ---

  /** For whom its start waits. */
  #unmet({ parent, shape }: Actor): ReadonlyArray<string> {
    const { after, afterSuccess, bindsTo, requires } = { ...noDependencies, ...shape.dependencies }
    const sibling = (id: string) => parent?.children.find((child) => child.shape.id === id)
    const isUndecided = (id: string) => ["waiting", "starting"].includes(sibling(id)?.state ?? "")
    const isMissing = (id: string) => sibling(id)?.state !== "running" || sibling(id)?.departing === true
    const isUnfinished = (id: string) => sibling(id)?.state !== "finished"
    const unmet = [
      ...after.filter(isUndecided),
      ...afterSuccess.filter(isUnfinished),
      ...[...requires, ...bindsTo].filter(isMissing)
    ]
    return [...new Set(unmet)]
  }

  #dependents({ parent, shape: { id } }: Actor, ...kinds: ReadonlyArray<keyof Dependencies>) {
    const names = ({ shape: { dependencies = {} } }: Actor) => kinds.some((kind) => dependencies[kind]?.includes(id))
    return (parent?.children ?? []).filter(names)
  }

  /** `actor` has changed: who waited looks again, who is bound to it ends with it. */
  #tell(actor: Actor): void {
    const { parent } = actor
    for (const dependent of this.#dependents(actor, "after", "afterSuccess", "requires", "bindsTo")) {
      if (parent === undefined || parent.phase === "down") return
      if (dependent.waitingFor.length > 0) this.#begin(dependent, dependent.automatic)
      else if (this.#dependents(actor, "bindsTo").includes(dependent) && actor.state !== "running") {
        this.#endBound(dependent, true)
      }
    }
  }

  /** Ends a child on account of a sibling, after those that need it; it follows when that one is back. */
  #endBound(actor: Actor, own: boolean): void {
    if (!alive(actor)) return
    actor.departing = true
    for (const dependent of this.#dependents(actor, "requires", "bindsTo")) this.#endBound(dependent, own)
    actor.departing = false
    if (!alive(actor)) return
    this.#end(actor, "stop")
    actor.state = "waiting"
    const { parent, shape } = actor
    if (parent === undefined) return
    if (shape.policy.restart !== "temporary") {
      this.#tell(actor)
      if (parent.phase !== "down" && actor.state === "waiting") this.#begin(actor, true)
      return
    }
    // It has ended for good, as a bystander, unless that is a person's doing.
    this.#drop(actor)
    if (!own || !this.#overFor(actor, parent)) this.#tell(actor)
  }

  /** Whatever its state, and before it those that need it. */
  #endByPerson(actor: Actor): void {
    actor.departing = alive(actor)
    for (const dependent of this.#dependents(actor, "requires", "bindsTo")) this.#endBound(dependent, false)
    if (alive(actor)) this.#end(actor, "stop")
    actor.departing = false
    actor.due = undefined
  }

  // --- an end of its own ---

  #ended(actor: Actor, exit: Ended): void {
    this.#judge(actor, exit)
    if (!alive(actor) && actor.parent?.children.includes(actor) === true) this.#tell(actor)
  }

  #judge(actor: Actor, exit: Ended): void {
    const { parent } = actor
    const { policy } = actor.shape
    if (parent === undefined) {
      actor.state = exit.normal ? "finished" : "failed"
      return
    }
    if (parent.phase === "starting" && exit.beforeReady) {
      actor.state = "failed"
      actor.attempt++
      return this.#giveUp(parent)
    }
    if (policy.restart === "temporary") {
      actor.state = exit.normal ? "finished" : "failed"
      actor.attempt = 0
      const forget = exit.normal || actor.shape.group === undefined
      if (forget) this.#drop(actor)
      if (!this.#overFor(actor, parent) && forget) this.#tell(actor)
      return
    }
    const healthy = !exit.beforeReady && this.#now - actor.readyAt >= Duration.toMillis(policy.backoff.resetAfter)
    if (healthy) actor.ruled = 0
    if (policy.restart === "transient" && exit.normal) {
      actor.state = "finished"
      actor.attempt = 0
      this.#overFor(actor, parent)
      return
    }
    const [rule] = policy.rules
    if (rule !== undefined && !exit.normal) return this.#byRule(actor, parent, rule, healthy)
    actor.attempt = healthy ? 1 : actor.attempt + 1
    const { first, initial, factor, max } = policy.backoff
    const curve = (step: number) => Math.min(Duration.toMillis(max), Duration.toMillis(initial) * factor ** step)
    let delay =
      first === undefined
        ? curve(actor.attempt - 1)
        : actor.attempt === 1
          ? Duration.toMillis(first)
          : curve(actor.attempt - 2)
    if (policy.budget !== undefined) {
      const within = Duration.toMillis(policy.budget.within)
      if (actor.window.filter((at) => this.#now - at < within).length >= policy.budget.restarts) {
        if (policy.whenSpent === "park") {
          actor.state = "parked"
          return
        }
        if (policy.whenSpent === "escalate") {
          actor.state = "failed"
          return this.#giveUp(parent)
        }
        delay = Duration.toMillis(max)
      }
    }
    const { group } = parent.shape
    if (policy.whenSpent === "escalate" && group?.kind === "static") {
      if (parent.spent.filter((at) => this.#now - at < WITHIN).length >= group.intensity) {
        actor.state = "failed"
        return this.#giveUp(parent)
      }
      parent.spent.push(this.#now)
    }
    actor.window.push(this.#now)
    this.#retry(actor, parent, delay)
  }

  /** A rule about failures, which do not count; so many in a row, and it parks. */
  #byRule(actor: Actor, parent: Actor, { backoff, consecutive }: Rule, healthy: boolean): void {
    if (actor.ruled >= (consecutive ?? Number.POSITIVE_INFINITY)) {
      actor.attempt++
      actor.state = "parked"
      return
    }
    actor.ruled++
    if (healthy) actor.attempt = 0
    this.#retry(actor, parent, backoff === undefined ? 0 : Duration.toMillis(backoff.initial))
  }

  #retry(actor: Actor, parent: Actor, delay: number): void {
    actor.state = "backing-off"
    const { group } = parent.shape
    if (group?.strategy !== "one_for_one") return this.#restartFrom(parent, actor, this.#now + delay)
    this.#tell(actor)
    if (actor.state !== "backing-off") return
    if (delay === 0) this.#begin(actor, true)
    else actor.due = [this.#now + delay, ++this.#timers]
  }

  /** It has ended for good: if it is significant, that may be the end of its supervisor. Answers whether it is. */
  #overFor(actor: Actor, group: Actor): boolean {
    const autoShutdown = group.shape.group?.autoShutdown ?? "never"
    if (actor.shape.significant !== true || autoShutdown === "never" || group.phase === "down") return false
    const isPending = ({ shape, state }: Actor): boolean =>
      shape.significant === true && ["starting", "running", "waiting", "backing-off"].includes(state)
    if (autoShutdown === "all_significant" && group.children.some(isPending)) return false
    this.#endChildren(group, "stop")
    this.#ended(group, { normal: true, beforeReady: false })
    return true
  }

  #giveUp(group: Actor): void {
    const beforeReady = group.state === "starting"
    this.#endChildren(group, "release")
    this.#ended(group, { normal: false, beforeReady })
  }

  // --- one_for_all and rest_for_one ---

  #concerned(group: Actor, child: Actor, from: Actor): boolean {
    return group.shape.group?.strategy === "one_for_all" || child.order >= from.order
  }

  #restartFrom(group: Actor, child: Actor, at: number): void {
    group.pass++
    const before = group.restart
    const from = before !== undefined && before.from.order < child.order ? before.from : child
    const due = Math.max(at, before?.due[0] ?? 0)
    let over: Actor | undefined
    for (const other of group.children.toReversed()) {
      if (!this.#concerned(group, other, from)) continue
      if (alive(other)) {
        this.#end(other, "release")
        other.state = "waiting"
        if (other.shape.policy.restart === "temporary") {
          over = other.shape.significant === true ? other : over
          this.#forget(other)
        }
      } else if (other.state === "finished") other.state = "waiting"
    }
    // A temporary bystander has ended for good too.
    const { pass } = group
    if (over !== undefined) this.#overFor(over, group)
    // The group may have ended, and even have begun anew.
    if (group.pass !== pass) return
    group.restart = { from, due: [due, ++this.#timers] }
    if (due <= this.#now) this.#startAnew(group)
  }

  #startAnew(group: Actor): void {
    const { restart } = group
    if (restart === undefined) return
    group.restart = undefined
    this.#pass(group, group.shape.group?.strategy === "one_for_all" ? 0 : restart.from.order)
  }

  // --- ends asked for ---

  #end(actor: Actor, ending: "stop" | "release"): void {
    if (actor.shape.group !== undefined) return this.#endChildren(actor, ending)
    if (ending === "stop") this.log.push(`hook ${actor.shape.id}`)
    this.log.push(`close ${actor.shape.id}`)
  }

  #endChildren(group: Actor, ending: "stop" | "release"): void {
    group.phase = "down"
    group.pass++
    group.restart = undefined
    const { children } = group
    const isDynamic = group.shape.group?.kind === "dynamic"
    for (const child of isDynamic ? children : children.toReversed()) {
      child.due = undefined
      child.waitingFor = []
      const { restart } = child.shape.policy
      if (alive(child)) {
        this.#end(child, ending)
        child.state = "waiting"
        if (restart === "temporary") this.#forget(child)
      } else if (restart === "temporary" && child.state !== "failed") this.#forget(child)
      // what is over is over until the desired state says otherwise
      else if (isDynamic && (child.state === "finished" || child.state === "failed")) continue
      else if (child.state !== "stopped" && child.state !== "parked") child.state = "waiting"
    }
  }

  #startByPerson(actor: Actor, group: Actor): void {
    actor.due = undefined
    const { restart } = group
    if (restart !== undefined && this.#concerned(group, actor, restart.from)) {
      actor.state = "waiting"
      if (actor === restart.from) this.#startAnew(group)
      return
    }
    const pass = ++group.pass
    this.#begin(actor, false)
    if (group.shape.group?.strategy === "one_for_one" || group.pass !== pass || actor.state !== "running") return
    this.#pass(group, actor.order + 1)
  }
}
