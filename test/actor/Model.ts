/**
 * Supervision as a small executable model: everything happens at once, by plain recursion over plain arrays, however slow
 * that is. The engine must show the same states and do the same things in the same order.
 *
 * Simplifications, made by the tests that use it: leaves are ready or fail at once and end at once; there is no jitter.
 */
import * as Duration from "effect/Duration"
import type { AutoShutdown } from "../../src/actor/ChildSpec.ts"
import type { RestartPolicy } from "../../src/actor/RestartPolicy.ts"
import type { Rule } from "../../src/actor/RestartRule.ts"
import type { Strategy } from "../../src/actor/Strategy.ts"

/** What both the model and the real tree are built from. */
export interface Shape {
  readonly id: string
  readonly policy: RestartPolicy
  /** Its own end for good may be that of its supervisor. */
  readonly significant?: boolean
  /** Absent: a leaf. */
  readonly group?: {
    readonly kind: "static" | "dynamic"
    readonly strategy: Strategy
    /** Restarts within {@link WITHIN}; dynamic ones have no intensity here. */
    readonly intensity: number
    readonly autoShutdown: AutoShutdown
    readonly children: ReadonlyArray<Shape>
  }
}

/** Window of every supervisor's intensity, in milliseconds. */
export const WITHIN = 1_000

interface Actor {
  readonly shape: Shape
  readonly path: string
  readonly parent: Actor | undefined
  order: number
  state: string
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
      states[actor.path] = `${actor.state} #${actor.incarnation} restarts ${actor.restarts} attempt ${actor.attempt}`
      for (const child of actor.children) visit(child)
    }
    visit(this.root)
    return states
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
    if (alive(actor)) this.#end(actor, "stop")
    actor.due = undefined
    if (actor.shape.policy.restart === "temporary") this.#forget(actor)
    else actor.state = "stopped"
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
      this.#end(actor, "stop")
      actor.state = "waiting"
    }
    this.#startByPerson(actor, actor.parent)
    return "done"
  }

  remove(path: string): string {
    const actor = this.find(path)
    if (actor === undefined) return "NoSuchActor"
    if (actor.parent === undefined) return "NotSupervised"
    if (alive(actor)) return "StillRunning"
    this.#forget(actor)
    return "ok"
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
        consider(actor.due, () => this.#start(actor, true))
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
      incarnation: 0,
      restarts: 0,
      attempt: 0,
      window: [],
      ruled: 0,
      readyAt: 0,
      due: undefined,
      phase: "down",
      children: [],
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
    if (actor.parent !== undefined) actor.parent.children = actor.parent.children.filter((child) => child !== actor)
  }

  #start(actor: Actor, automatic: boolean): void {
    actor.due = undefined
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
    actor.children = group.children.map((shape, order) => {
      const child = before.find((child) => child.shape === shape) ?? this.#make(shape, actor)
      child.order = order
      return child
    })
    if (group.kind === "static") {
      actor.phase = "starting"
      return this.#pass(actor, 0)
    }
    actor.phase = "up"
    this.#ready(actor)
    for (const child of actor.children) {
      child.state = "waiting"
      this.#start(child, false)
    }
  }

  #ready(actor: Actor): void {
    actor.state = "running"
    actor.readyAt = this.#now
  }

  /** Starts, in order, what waits from place `order` on. */
  #pass(group: Actor, order: number): void {
    const pass = ++group.pass
    for (const child of group.children) {
      if (child.order < order || !group.children.includes(child)) continue
      if (child.state !== "waiting" && child.state !== "backing-off") continue
      this.#start(child, group.phase === "up")
      // What came of this start may have begun another pass, or ended the group.
      if (group.pass !== pass || group.phase === "down" || isParked(child)) return
    }
    if (group.phase !== "starting") return
    group.phase = "up"
    this.#ready(group)
  }

  // --- an end of its own ---

  #ended(actor: Actor, exit: Ended): void {
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
      if (exit.normal || actor.shape.group === undefined) this.#forget(actor)
      return this.#overFor(actor, parent)
    }
    const healthy = !exit.beforeReady && this.#now - actor.readyAt >= Duration.toMillis(policy.backoff.resetAfter)
    if (healthy) actor.ruled = 0
    if (policy.restart === "transient" && exit.normal) {
      actor.state = "finished"
      actor.attempt = 0
      return this.#overFor(actor, parent)
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
    if (delay === 0) this.#start(actor, true)
    else actor.due = [this.#now + delay, ++this.#timers]
  }

  /** It has ended for good: if it is significant, that may be the end of its supervisor. */
  #overFor(actor: Actor, group: Actor): void {
    const autoShutdown = group.shape.group?.autoShutdown ?? "never"
    if (actor.shape.significant !== true || autoShutdown === "never" || group.phase === "down") return
    const isPending = ({ shape, state }: Actor): boolean =>
      shape.significant === true && ["starting", "running", "waiting", "backing-off"].includes(state)
    if (autoShutdown === "all_significant" && group.children.some(isPending)) return
    this.#endChildren(group, "stop")
    this.#ended(group, { normal: true, beforeReady: false })
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
    for (const child of group.shape.group?.kind === "dynamic" ? children : children.toReversed()) {
      child.due = undefined
      const { restart } = child.shape.policy
      if (alive(child)) {
        this.#end(child, ending)
        child.state = "waiting"
        if (restart === "temporary") this.#forget(child)
      } else if (restart === "temporary" && child.state !== "failed") this.#forget(child)
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
    this.#start(actor, false)
    if (group.shape.group?.strategy === "one_for_one" || group.pass !== pass || actor.state !== "running") return
    this.#pass(group, actor.order + 1)
  }
}
