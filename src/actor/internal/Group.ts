/**
 * The one supervisor engine, behind static and dynamic supervisors: starts children, carries out decisions and the
 * strategy, ends them. It belongs to a supervisor's node and outlives its incarnations; so do the children's nodes.
 *
 * Three walks over the children, never two at a time:
 * - the *start pass* starts waiting children in order, each after the acknowledgement of the one before (`#cursor`);
 * - the *restart* of `one_for_all`, `rest_for_one` and `restart-group` (`GroupRestart`), after which a start pass follows;
 * - the *ending* of the whole group, newest first one after another; in parallel for dynamic supervisors.
 * Under `one_for_one` a crash concerns no walk: the child has its own timer. Who depends on siblings is held back at every
 * start until these are as it needs them, and looked at again whenever one of them changes (`GroupNeeds`).
 */
import * as Exit from "effect/Exit"
import * as ActorPath from "../ActorPath.ts"
import type { ChildSpec } from "../ChildSpec.ts"
import { decide } from "../Decision.ts"
import * as Errors from "../Errors.ts"
import * as Exits from "../ExitView.ts"
import type { ExitView } from "../ExitView.ts"
import * as SpecProblems from "../SpecProblems.ts"
import type { Moment, Tree } from "../Tree.ts"
import * as Fallbacks from "./Fallbacks.ts"
import { control } from "./GroupControl.ts"
import { GroupNeeds } from "./GroupNeeds.ts"
import { GroupRestart } from "./GroupRestart.ts"
import { type Because, type Intent, Node } from "./Node.ts"
import { RestartWindow } from "./RestartWindow.ts"
import { Roster } from "./Roster.ts"
import { noPatch } from "./View.ts"
import * as Walks from "./Walks.ts"

const byPerson: Because = { path: undefined, words: "somebody asked for it" }

export class Group<R> {
  readonly #roster: Roster<R>
  /** Why it gave up, from the moment it does to the next start. */
  failure: ExitView | undefined
  readonly #node: Node<R>
  readonly #tree: Tree["Service"]
  #phase: "down" | "starting" | "up" | "ending" = "down"
  #intensity: RestartWindow | undefined
  #cursor: Node<R> | undefined
  /** The child whose start by a person began the start pass: only when it comes up do others follow. */
  #asked: Node<R> | undefined
  readonly #restart: GroupRestart<R>
  readonly #needs: GroupNeeds<R>
  /** A significant child has ended as a bystander: the group ends as soon as that is carried out. */
  #autoShutdown: string | undefined
  #onDown: (() => void) | undefined
  #killing = false

  constructor(node: Node<R>, tree: Tree["Service"]) {
    this.#node = node
    this.#tree = tree
    this.#roster = new Roster({
      make: (spec) => makeNode(new Node(node.engine, this, ActorPath.child(node.view.path, spec.id), spec), tree),
      forget: (child) => this.forget(child)
    })
    this.#needs = new GroupNeeds({
      children: this.children,
      dependents: this.#dependents,
      isOpen: () => this.open,
      startsAnew: (child) => this.#restart.concerns(child),
      start: (child, automatic) => this.start(child, automatic)
    })
    this.#restart = new GroupRestart({
      children: this.children,
      dependents: this.#dependents,
      node,
      significantEnded: (child) => {
        this.#autoShutdown = child.spec.id
      },
      cleared: () => {
        const significant = this.#autoShutdown
        this.#autoShutdown = undefined
        if (significant !== undefined) this.#shutDownBy(significant)
      },
      startAnew: (from, everyone) => this.#startAnew(from, everyone)
    })
  }

  get children(): Roster<R>["children"] {
    return this.#roster.children
  }
  get #dependents() {
    return this.#roster.dependents
  }
  /** The supervisor's id. */
  get id(): string {
    return this.#node.spec.id
  }
  get down(): boolean {
    return this.#phase === "down"
  }
  /** True while children may be started. */
  get open(): boolean {
    return this.#phase === "starting" || this.#phase === "up"
  }
  /** True once all children have been started and until it ends. */
  get up(): boolean {
    return this.#phase === "up"
  }
  /** What its limit on restarts is, and what of it is spent now. */
  get intensity(): Moment["intensity"] {
    const { behaviour } = this.#node.spec
    if (behaviour._tag === "Worker" || behaviour.intensity === undefined) return undefined
    return { ...behaviour.intensity, spent: this.#intensity?.count(this.#engine.monotonic()) ?? 0 }
  }
  get #strategy() {
    const { behaviour } = this.#node.spec
    return behaviour._tag === "Static" ? behaviour.strategy : "one_for_one"
  }
  get #engine() {
    return this.#node.engine
  }
  /** What this supervisor is to its children, for the check of specs. */
  get relation(): SpecProblems.Siblings {
    const { behaviour } = this.#node.spec
    return behaviour._tag === "Static"
      ? { strategy: behaviour.strategy, autoShutdown: behaviour.autoShutdown, ordered: true }
      : { strategy: "one_for_one", autoShutdown: "never", ordered: false }
  }

  // --- starting ---

  /** Begins an incarnation with these children. */
  begin(specs: ReadonlyArray<ChildSpec<unknown, R>>): void {
    const { behaviour } = this.#node.spec
    this.failure = undefined
    this.#killing = false
    this.#phase = "starting"
    const limit = behaviour._tag === "Worker" ? undefined : behaviour.intensity
    this.#intensity = limit === undefined ? undefined : new RestartWindow(limit.restarts, limit.within)
    if (behaviour._tag !== "Dynamic") {
      // The order is that of the list, also when one that was dropped comes back.
      for (const spec of this.#roster.list(specs)) this.children.moveLast(this.#roster.adopt(spec, false))
      Fallbacks.resume(this.children)
      this.#engine.reordered()
      return this.#advance(this.children.first)
    }
    const problems = SpecProblems.ofChildren(specs, this.relation)
    if (problems.length > 0) return this.#fail(new Errors.SpecInvalid({ id: this.id, problems }))
    const wanted = new Set(specs.map((spec) => spec.id))
    for (let child = this.children.first; child !== undefined; child = child.next) {
      if (!wanted.has(child.spec.id)) this.forget(child)
    }
    this.#phase = "up"
    this.#dependents.expected = wanted
    behaviour.attach?.(control(this, this.#node, this.#tree))
    this.#node.acknowledged({})
    this.#populate(specs, 0)
  }

  /** One child per task, so that a hundred thousand of them leave room for others. */
  #populate(specs: ReadonlyArray<ChildSpec<unknown, R>>, index: number): void {
    if (this.#phase !== "up") return
    const spec = specs[index]
    if (spec === undefined) {
      for (const standIn of Fallbacks.resume(this.children)) this.start(standIn, false)
      return
    }
    const child = this.#roster.adopt(spec, true)
    this.#dependents.expected.delete(spec.id)
    if (child.state === "waiting") this.start(child, false)
    else this.#needs.changed(child)
    this.#engine.post(() => this.#populate(specs, index + 1))
  }

  /** One more child, not started yet. `listed`: the spec with which it is there at the supervisor's next start. */
  add(spec: ChildSpec<unknown, R>, listed = spec): Node<R> {
    if (this.#node.spec.behaviour._tag === "Static") this.#roster.change(listed)
    return this.#roster.introduce(spec)
  }

  /** Another spec for a child that is there, from its next start on. */
  replace(child: Node<R>, spec: ChildSpec<unknown, R>): void {
    if (this.#node.spec.behaviour._tag === "Static") this.#roster.change(spec)
    this.#roster.respec(child, spec)
    if (child.view.policy !== spec.policy) child.setPolicy(spec.policy)
    if (child.awaitsSiblings) this.start(child, child.startsAutomatically)
  }

  /** Starts `child`, now or as soon as the siblings that it needs are there; or with the group, if that starts anew. */
  start(child: Node<R>, automatic: boolean): void {
    if (this.#restart.concerns(child)) child.move("hold")
    else if (!this.#needs.holdBack(child, automatic)) child.start(automatic)
  }

  /** A person ends a child, and before it those siblings that need it. `done` when it does not live any more. */
  endByPerson(child: Node<R>, ending: "stop" | "release", intent: Intent, done: () => void, shutdown?: number): void {
    // Nobody's place is taken any more by a child that a person ends, nor that of one.
    child.standsInFor?.noLongerReplaced()
    child.standsInFor = undefined
    const standIn = Fallbacks.standInOf(this.children, child)
    if (standIn !== undefined) {
      child.fallback = undefined
      return this.endByPerson(standIn, "stop", "halt", () => this.endByPerson(child, ending, intent, done, shutdown))
    }
    child.departing = child.alive
    this.#needs.endThoseThatNeed(child, true, () => {
      if (child.alive) return child.end(ending, intent, done, byPerson, shutdown)
      child.departing = false
      if (child.removed) return done()
      if (intent === "halt") child.stopForGood()
      else child.move("hold")
      this.#needs.changed(child)
      done()
    })
  }

  /** Goes on with the start pass at `from`; without waiting children left it is over. */
  #advance(from: Node<R> | undefined): void {
    this.#asked = undefined
    for (let child = from; child !== undefined; child = child.next) {
      if (child.removed) continue
      if (child.state === "starting") {
        this.#cursor = child
        return
      }
      if (child.state === "waiting" || child.state === "backing-off") {
        // Who is to start anew with one that crashed does so when the back-off of that is over, whatever else comes up.
        if (this.#restart.concerns(child)) continue
        if (this.#needs.holdBack(child, this.#phase === "up")) continue
        this.#cursor = child
        return child.start(this.#phase === "up")
      }
    }
    this.#cursor = undefined
    if (this.#phase !== "starting") return
    this.#phase = "up"
    const { behaviour } = this.#node.spec
    if (behaviour._tag === "Static") behaviour.attach?.(control(this, this.#node, this.#tree))
    this.#node.acknowledged({})
  }

  childAcknowledged(child: Node<R>): void {
    if (child === this.#cursor) this.#advance(child.next)
    this.#needs.changed(child)
  }

  /** A child was ended on somebody's word, and is to be forgotten or not; if the start pass waited for it, it goes on. */
  childHalted(child: Node<R>, forget: boolean): void {
    if (forget) {
      this.#drop(child)
      // As under the other strategies: what a sibling took along for good has ended for good.
      if (child.bystander && child.spec.significant && this.#shutDownBy(child.spec.id)) return
    }
    child.bystander = false
    if (child === this.#cursor && child.state === "stopped") this.#advance(child.next)
    this.#needs.changed(child)
  }

  /** A person wants this child, which does not live, to start. The caller has checked `open`. */
  startByPerson(child: Node<R>): void {
    child.standsInFor?.noLongerReplaced()
    child.standsInFor = undefined
    child.cancelBackoff()
    const standIn = Fallbacks.standInOf(this.children, child)
    child.fallback = undefined
    if (standIn === undefined) return this.#startOnRequest(child)
    // Both may want the same port or volume: one goes before the other comes.
    child.awaitSiblings([standIn.spec.id], false)
    this.endByPerson(standIn, "stop", "halt", () => {
      if (this.open && !child.removed && child.state === "waiting") this.#startOnRequest(child)
    })
  }

  #startOnRequest(child: Node<R>): void {
    if (this.#restart.concerns(child)) {
      child.move("hold")
      return this.#restart.hurry(child)
    }
    if (this.#cursor !== undefined && child.order > this.#cursor.order) return child.move("hold")
    // Those that waited for it under rest_for_one and one_for_all follow when it is up.
    if (this.#strategy !== "one_for_one" && this.#cursor === undefined) this.#cursor = this.#asked = child
    this.start(child, false)
  }

  // --- fallbacks ---

  /** Starts `sibling` instead of `child`, which is parked. */
  #standIn(child: Node<R>, sibling: Node<R>): void {
    sibling.standsInFor = child
    sibling.cancelBackoff()
    sibling.forgive()
    this.#startOnRequest(sibling)
  }

  // --- a child ended by itself ---

  childEnded(child: Node<R>, exit: ExitView): void {
    this.#judge(child, exit)
    if (!child.alive && !child.removed) this.#needs.changed(child)
  }

  #judge(child: Node<R>, exit: ExitView): void {
    const event = exit.beforeReady && exit.class !== "normal" ? "start-failed" : "ended"
    if (exit.tag === "Ignored" && exit.class === "not-started") {
      child.move("finish", noPatch, { event: "ignored", exit, decision: "finish", reason: exit.message })
      return this.#over(child, child.temporary)
    }
    if (this.#phase === "ending") {
      const reason = "its supervisor is ending"
      return child.move(exit.class === "normal" ? "finish" : "fail", { lastExit: exit }, { event, exit, reason })
    }
    if (this.#phase === "starting" && child === this.#cursor && event === "start-failed") {
      const attempt = child.view.attempt + 1
      const reason = "its first start failed, so its supervisor does not start"
      child.move("fail", { lastExit: exit, attempt }, { event, exit, decision: "escalate", reason })
      return this.#fail(new Errors.StartFailed({ path: child.view.path, exit }))
    }
    const now = this.#engine.monotonic()
    const behaviour = this.#node.spec.behaviour
    const situation = child.situation(exit, now, {
      intensity: behaviour._tag === "Worker" ? undefined : behaviour.intensity,
      restarts: this.#intensity?.count(now) ?? 0
    })
    const decision = decide(situation)
    const { reason } = decision
    child.spend(decision, situation.healthy, now)
    switch (decision._tag) {
      case "Restart": {
        const { attempt, delay } = decision
        if (decision.spendsIntensity) this.#intensity?.record(now)
        const nextAttemptAt = this.#engine.now() + delay
        const happening = { event, exit, decision: "restart", reason, delay } as const
        child.move("retry", { lastExit: exit, attempt, nextAttemptAt }, happening)
        if (this.#strategy !== "one_for_one" || this.#restart.concerns(child)) {
          return this.#restartFrom(child, now + delay, this.#strategy === "one_for_all")
        }
        // Those bound to it end first, and one of them may be the end of the group.
        this.#needs.changed(child)
        if (child.state !== "backing-off" || !this.open) return
        const again = () => child.awaitAdmission(() => this.start(child, true))
        if (delay > 0) child.armBackoff(delay, again)
        else again()
        // After a restart of the group a start pass may be under way, which does not wait for it.
        return child === this.#cursor ? this.#advance(child.next) : undefined
      }
      case "RestartGroup": {
        const { attempt, delay } = decision
        this.#intensity?.record(now)
        const nextAttemptAt = this.#engine.now() + delay
        const happening = { event, exit, decision: "restart-group", reason, delay } as const
        child.move("retry", { lastExit: exit, attempt, nextAttemptAt }, happening)
        return this.#restartFrom(child, now + delay, true)
      }
      case "Park":
        child.move("park", { lastExit: exit, attempt: decision.attempt }, { event, exit, decision: "park", reason })
        return this.#passOver(child)
      case "Fallback": {
        const { attempt, sibling: id } = decision
        const sibling = this.children.get(id)
        const hindrance = Fallbacks.hindranceOf(child, sibling)
        const why = hindrance === undefined ? reason : `${reason}; but ${id} ${hindrance}`
        // Before the move, so that the journal has it too.
        if (hindrance === undefined) child.fallback = id
        child.move("park", { lastExit: exit, attempt }, { event, exit, decision: "fallback", reason: why })
        this.#passOver(child)
        return sibling === undefined || hindrance !== undefined ? undefined : this.#standIn(child, sibling)
      }
      case "RebootHost": {
        const { attempt } = decision
        const refusal = this.#engine.reboot({ path: child.view.path, reason })
        if (refusal === undefined) {
          child.move("fail", { lastExit: exit, attempt }, { event, exit, decision: "reboot-host", reason })
        } else {
          const why = `${reason}; but ${refusal}: it is parked until somebody starts it`
          child.move("park", { lastExit: exit, attempt }, { event, exit, decision: "park", reason: why })
        }
        return this.#passOver(child)
      }
      case "Escalate": {
        const { attempt, budget, restarts, within } = decision
        child.move("fail", { lastExit: exit, attempt }, { event, exit, decision: "escalate", reason })
        const { path } = this.#node.view
        const spent = { path, child: child.spec.id, budget, restarts, within, lastExit: exit }
        return this.#fail(new Errors.RestartIntensityReached(spent))
      }
      case "Finish": {
        const forget = decision.forget && !child.spec.keep
        child.move(
          decision.failed ? "fail" : "finish",
          { lastExit: exit, attempt: 0 },
          { event, exit, decision: "finish", reason }
        )
        if (decision.failed && child === this.#asked && child === this.#cursor) this.#cursor = undefined
        if (forget) this.#drop(child)
        // First, since nobody is to start who would have to end at once.
        if (child.spec.significant && this.#shutDownBy(child.spec.id)) return
        if (forget) this.#needs.changed(child)
        if (child === this.#cursor) this.#advance(child.next)
      }
    }
  }

  /** It stays down, so a start pass goes on without it; but those after it that stand on it wait until a person starts it. */
  #passOver(child: Node<R>): void {
    if (child !== this.#cursor) return
    if (this.#strategy === "one_for_one") this.#advance(child.next)
    else this.#cursor = undefined
  }

  #over(child: Node<R>, forget: boolean): void {
    if (forget) this.forget(child)
    if (child === this.#cursor) this.#advance(child.next)
  }

  /** Takes a child that does not live out of the tree. */
  forget(child: Node<R>): void {
    if (child.removed) return
    this.#drop(child)
    this.#needs.changed(child)
  }

  #drop(child: Node<R>): void {
    child.cancelBackoff()
    this.#roster.remove(child)
    this.#engine.remove(child)
  }

  /** A person has it forgotten, and it shall not come back with the supervisor's next start. */
  forgetByPerson(child: Node<R>): void {
    const standIn = Fallbacks.standInOf(this.children, child)
    if (standIn !== undefined) this.endByPerson(standIn, "stop", "halt", () => {})
    this.#roster.changeNothing(child.spec.id)
    this.forget(child)
  }

  /** The significant child `id` has ended for good: that may be the end of all. Answers whether it is. */
  #shutDownBy(id: string): boolean {
    const { behaviour } = this.#node.spec
    if (!this.open || behaviour._tag !== "Static" || behaviour.autoShutdown === "never") return false
    const { autoShutdown } = behaviour
    if (autoShutdown === "all_significant" && this.children.significantPending > 0) return false
    const why =
      autoShutdown === "any_significant"
        ? `its significant child "${id}" has ended`
        : "its significant children have ended"
    this.giveUp(Exits.autoShutdown(this.#engine.now(), why), "stop")
    return true
  }

  // --- restarts of several ---

  #restartFrom(child: Node<R>, dueAt: number, everyone: boolean): void {
    this.#cursor = undefined
    this.#restart.begin(child, dueAt, everyone)
  }

  #startAnew(from: Node<R>, everyone: boolean): void {
    // One that was forgotten meanwhile does not know who came after it.
    const first = everyone ? this.children.first : from.removed ? this.children.from(from.order) : from
    if (this.#node.spec.behaviour._tag === "Static") this.#advance(first)
    else this.#startTogether(first)
  }

  /** Under a dynamic supervisor, one child per task. The restart has had its turn; the others need none of their own. */
  #startTogether(at: Node<R> | undefined): void {
    if (at === undefined || !this.open) return
    const { next } = at
    if (!at.removed && (at.state === "waiting" || (at.state === "backing-off" && !at.hasAppointment))) {
      this.start(at, true)
    }
    this.#engine.post(() => this.#startTogether(next))
  }

  // --- ending ---

  #fail(error: Errors.StartFailed | Errors.RestartIntensityReached | Errors.SpecInvalid): void {
    this.giveUp(Exits.fromExit(this.#engine.now(), Exit.fail(error), this.#node.state === "starting"))
  }

  /** Ends by itself: ends the children, then tells the own supervisor why. */
  giveUp(view: ExitView, ending: "stop" | "release" = "release"): void {
    if (!this.open) return
    this.failure = view
    this.shutdown(ending, false, () => this.#node.groupGaveUp(view))
  }

  /**
   * Ends all children, newest first, without any time when `brutal`; then `onDown`. When that is under way already only
   * the latest `onDown` counts.
   */
  shutdown(ending: "stop" | "release", brutal: boolean, onDown: () => void): void {
    if (this.#phase === "down") return onDown()
    this.#onDown = onDown
    if (this.#phase === "ending") return brutal ? this.kill() : undefined
    this.#killing = brutal
    this.#phase = "ending"
    this.#cursor = undefined
    this.#restart.cancel()
    this.#autoShutdown = undefined
    const { behaviour } = this.#node.spec
    if (behaviour._tag !== "Worker") behaviour.attach?.(undefined)
    const walk: Walks.Walk<R> = {
      concerns: () => true,
      end: (child, then) => child.end(this.#killing ? "kill" : ending, "hold", then, this.#becauseOfEnd),
      settle: (child) => this.#settle(child),
      done: () => this.#isDown()
    }
    if (behaviour._tag !== "Dynamic") return Walks.inOrder(this.children.last, this.#dependents, walk)
    Walks.together(
      this.children,
      this.#dependents,
      (task) => this.#engine.post(task),
      () => !this.#killing,
      walk
    )
  }

  /** Why the children end with their supervisor. */
  get #becauseOfEnd(): Because {
    const { failure } = this
    return failure === undefined
      ? { path: this.#node.view.path, words: "its supervisor is being ended" }
      : { path: failure.causes?.[0]?.path ?? this.#node.view.path, words: `its supervisor gives up (${failure.tag})` }
  }

  /**
   * What becomes of a child that does not live when its supervisor ends: it waits for the next incarnation. The desired state
   * of a dynamic supervisor may remember that one is over: then it stays so.
   */
  #settle(child: Node<R>): void {
    child.cancelBackoff()
    const isOver = child.state === "finished" || child.state === "failed"
    if (child.temporary && child.state !== "failed") this.forget(child)
    else if (isOver && this.#node.spec.behaviour._tag === "Dynamic") return
    else if (child.state !== "stopped" && child.state !== "parked") child.move("hold")
  }

  #isDown(): void {
    this.#phase = "down"
    const onDown = this.#onDown
    this.#onDown = undefined
    onDown?.()
  }

  /** The supervisor's own deadline has passed, or it is killed: nobody below gets any more time, now or when it is his turn. */
  kill(): void {
    this.#killing = true
    for (let child = this.children.last; child !== undefined; child = child.previous) child.kill()
  }
}

/** Completes a fresh node: supervisors get their group. */
export const makeNode = <R>(node: Node<R>, tree: Tree["Service"]): Node<R> => {
  if (node.spec.behaviour._tag !== "Worker") node.group = new Group(node, tree)
  return node
}
