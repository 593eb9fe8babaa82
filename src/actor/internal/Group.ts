/**
 * The one supervisor engine, behind static and dynamic supervisors: starts children, carries out decisions and the
 * strategy, ends them. It belongs to a supervisor's node and outlives its incarnations; so do the children's nodes.
 *
 * Three walks over the children, never two at a time:
 * - the *start pass* starts waiting children in order, each after the acknowledgement of the one before (`#cursor`);
 * - the *clearing* of `one_for_all` and `rest_for_one` ends what must be started anew, newest first, waits for the
 *   back-off of the child that crashed, then a start pass follows (`#restart`); a further crash widens it;
 * - the *ending* of the whole group, newest first one after another; in parallel for dynamic supervisors.
 * Under `one_for_one` a crash concerns no walk: the child has its own timer.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as ActorPath from "../ActorPath.ts"
import type { ChildSpec, DynamicControl } from "../ChildSpec.ts"
import { decide } from "../Decision.ts"
import * as Errors from "../Errors.ts"
import * as Exits from "../ExitView.ts"
import type { ExitView } from "../ExitView.ts"
import type { Tree } from "../Tree.ts"
import { Node } from "./Node.ts"
import { RestartWindow } from "./RestartWindow.ts"
import { Siblings } from "./Siblings.ts"

interface GroupRestart<R> {
  /** The earliest child concerned. */
  from: Node<R>
  /** Monotonic time before which nothing is started. */
  dueAt: number
  /** Ends the wait for `dueAt`; set once everything is cleared. */
  wait: (() => void) | undefined
}

export class Group<R> {
  readonly children = new Siblings<R>()
  /** Why it gave up, from the moment it does to the next start. */
  failure: ExitView | undefined
  readonly #node: Node<R>
  readonly #tree: Tree["Service"]
  #phase: "down" | "starting" | "up" | "ending" = "down"
  #intensity: RestartWindow | undefined
  #cursor: Node<R> | undefined
  /** The child whose start by a person began the start pass: only when it comes up do others follow. */
  #asked: Node<R> | undefined
  #restart: GroupRestart<R> | undefined
  #onDown: (() => void) | undefined
  #killing = false

  constructor(node: Node<R>, tree: Tree["Service"]) {
    this.#node = node
    this.#tree = tree
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
  get #strategy() {
    const { behaviour } = this.#node.spec
    return behaviour._tag === "Static" ? behaviour.strategy : "one_for_one"
  }
  get #engine() {
    return this.#node.engine
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
      for (const spec of specs) this.children.moveLast(this.#adopt(spec, false))
      return this.#advance(this.children.first)
    }
    const wanted = new Set<string>()
    for (const spec of specs) {
      if (wanted.has(spec.id)) {
        const bug = new TypeError(`the desired state holds two children with the id "${spec.id}"`)
        return this.giveUp(Exits.fromExit(this.#engine.now(), Exit.die(bug), true))
      }
      wanted.add(spec.id)
    }
    for (let child = this.children.first; child !== undefined; child = child.next) {
      if (!wanted.has(child.spec.id)) this.forget(child)
    }
    this.#phase = "up"
    behaviour.attach(this.#control)
    this.#node.acknowledged({})
    this.#populate(specs, 0)
  }

  /** One child per task, so that a hundred thousand of them leave room for others. */
  #populate(specs: ReadonlyArray<ChildSpec<unknown, R>>, index: number): void {
    const spec = specs[index]
    if (spec === undefined || this.#phase !== "up") return
    const child = this.#adopt(spec, true)
    if (child.state === "waiting") child.start(false)
    this.#engine.post(() => this.#populate(specs, index + 1))
  }

  /** The node for `spec`: the one of the supervisor's last incarnation, or a new one. */
  #adopt(spec: ChildSpec<unknown, R>, desired: boolean): Node<R> {
    const old = this.children.get(spec.id)
    if (old !== undefined) {
      if (old.alive) return old
      if ((old.group === undefined) === (spec.behaviour._tag === "Worker")) {
        old.spec = spec
        // A desired state knows what persons decided; a static list does not, so their word stands.
        if (desired) {
          if (old.view.policy !== spec.policy) old.setPolicy(spec.policy)
          old.move(spec.autoStart ? "hold" : "halt")
        }
        return old
      }
      this.forget(old)
    }
    const path = ActorPath.child(this.#node.view.path, spec.id)
    const child = makeNode(new Node(this.#engine, this, path, spec), this.#tree)
    this.children.link(child)
    return child
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
        this.#cursor = child
        return child.start(this.#phase === "up")
      }
    }
    this.#cursor = undefined
    if (this.#phase !== "starting") return
    this.#phase = "up"
    this.#node.acknowledged({})
  }

  childAcknowledged(child: Node<R>): void {
    if (child === this.#cursor) this.#advance(child.next)
  }

  /** A child was ended on somebody's word; if the start pass waited for it, it goes on. */
  childHalted(child: Node<R>): void {
    if (child === this.#cursor && child.state === "stopped") this.#advance(child.next)
  }

  /** A person wants this child, which does not live, to start. The caller has checked `open`. */
  startByPerson(child: Node<R>): void {
    child.cancelBackoff()
    const restart = this.#restart
    if (restart !== undefined && this.#concerned(child, restart)) {
      child.move("hold")
      if (child !== restart.from) return
      restart.dueAt = 0
      if (restart.wait !== undefined) this.#startAnew(restart)
      return
    }
    if (this.#cursor !== undefined && child.order > this.#cursor.order) return child.move("hold")
    // Those that waited for it under rest_for_one and one_for_all follow when it is up.
    if (this.#strategy !== "one_for_one" && this.#cursor === undefined) this.#cursor = this.#asked = child
    child.start(false)
  }

  // --- a child ended by itself ---

  childEnded(child: Node<R>, exit: ExitView): void {
    const event = exit.beforeReady && exit.class !== "normal" ? "start-failed" : "ended"
    if (exit.tag === "Ignored" && exit.class === "not-started") {
      child.move("finish", {}, { event: "ignored", exit, decision: "finish", reason: exit.message })
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
    const situation = child.situation(exit, now)
    const decision = decide({
      ...situation,
      intensity: behaviour._tag === "Worker" ? undefined : behaviour.intensity,
      restartsOfSupervisor: this.#intensity?.count(now) ?? 0,
      random: this.#engine.random()
    })
    const { reason } = decision
    child.spend(decision, situation.healthy, now)
    switch (decision._tag) {
      case "Restart": {
        const { attempt, delay } = decision
        if (decision.spendsIntensity) this.#intensity?.record(now)
        const nextAttemptAt = this.#engine.now() + delay
        const happening = { event, exit, decision: "restart", reason, delay } as const
        child.move("retry", { lastExit: exit, attempt, nextAttemptAt }, happening)
        if (this.#strategy !== "one_for_one") return this.#restartFrom(child, now + delay)
        if (delay === 0) return child.start(true)
        return child.armBackoff(delay, () => child.start(true))
      }
      case "Fallback": // NOT YET CARRIED OUT: the sibling is not started; treated as Park
      case "Park":
        // Those after it in a start pass wait until a person starts it.
        if (child === this.#cursor) this.#cursor = undefined
        return child.move(
          "park",
          { lastExit: exit, attempt: decision.attempt },
          { event, exit, decision: "park", reason }
        )
      case "RestartGroup": // NOT YET CARRIED OUT: treated as Escalate
      case "RebootHost": // NOT YET CARRIED OUT: treated as Escalate
      case "Escalate": {
        const { attempt } = decision
        const { budget, restarts, within } =
          decision._tag === "Escalate" ? decision : { budget: "rule" as const, restarts: 0, within: 0 }
        child.move("fail", { lastExit: exit, attempt }, { event, exit, decision: "escalate", reason })
        const { path } = this.#node.view
        const spent = { path, child: child.spec.id, budget, restarts, within, lastExit: exit }
        return this.#fail(new Errors.RestartIntensityReached(spent))
      }
      case "Finish":
        child.move(
          decision.failed ? "fail" : "finish",
          { lastExit: exit, attempt: 0 },
          { event, exit, decision: "finish", reason }
        )
        if (decision.failed && child === this.#asked && child === this.#cursor) this.#cursor = undefined
        return this.#over(child, decision.forget)
    }
  }

  #over(child: Node<R>, forget: boolean): void {
    if (forget) this.forget(child)
    if (child === this.#cursor) this.#advance(child.next)
  }

  /** Takes a child that does not live out of the tree. */
  forget(child: Node<R>): void {
    if (child.removed) return
    child.cancelBackoff()
    this.children.unlink(child)
    this.#engine.remove(child)
  }

  // --- one_for_all and rest_for_one ---

  #concerned(child: Node<R>, restart: GroupRestart<R>): boolean {
    return this.#strategy === "one_for_all" || child.order >= restart.from.order
  }

  #restartFrom(child: Node<R>, dueAt: number): void {
    this.#cursor = undefined
    const restart = this.#restart
    if (restart === undefined) {
      this.#restart = { from: child, dueAt, wait: undefined }
      return this.#clear(this.children.last)
    }
    if (child.order < restart.from.order) restart.from = child
    restart.dueAt = Math.max(restart.dueAt, dueAt)
    if (restart.wait === undefined) return
    restart.wait()
    restart.wait = undefined
    this.#clear(this.children.last)
  }

  /** Ends what must be started anew, from `at` backward, one after another; then waits until it is due. */
  #clear(at: Node<R> | undefined): void {
    const restart = this.#restart
    const { behaviour } = this.#node.spec
    if (restart === undefined || behaviour._tag !== "Static") return
    for (let child = at; child !== undefined && this.#concerned(child, restart); child = child.previous) {
      if (child.removed) continue
      if (child.alive) {
        const before = child.previous
        return child.end(behaviour.bystanders, "hold", () => this.#clear(before))
      }
      if (child.state === "finished") child.move("hold")
    }
    const left = restart.dueAt - this.#engine.monotonic()
    if (left <= 0) this.#startAnew(restart)
    else restart.wait = this.#engine.after(left, () => this.#startAnew(restart))
  }

  #startAnew(restart: GroupRestart<R>): void {
    if (this.#restart !== restart) return
    restart.wait?.()
    this.#restart = undefined
    this.#advance(this.#strategy === "one_for_all" ? this.children.first : restart.from)
  }

  // --- ending ---

  #fail(error: Errors.StartFailed | Errors.RestartIntensityReached): void {
    this.giveUp(Exits.fromExit(this.#engine.now(), Exit.fail(error), this.#node.state === "starting"))
  }

  /** Ends by itself: releases the children, then tells the own supervisor why. */
  giveUp(view: ExitView): void {
    if (!this.open) return
    this.failure = view
    this.shutdown("release", false, () => this.#node.groupGaveUp(view))
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
    this.#restart?.wait?.()
    this.#restart = undefined
    const { behaviour } = this.#node.spec
    if (behaviour._tag === "Dynamic") {
      behaviour.attach(undefined)
      this.#endTogether(ending)
    } else {
      this.#endBefore(ending, this.children.last)
    }
  }

  #endBefore(ending: "stop" | "release", at: Node<R> | undefined): void {
    for (let child = at; child !== undefined; child = child.previous) {
      if (child.removed) continue
      if (child.alive) {
        const before = child.previous
        return child.end(this.#killing ? "kill" : ending, "hold", () => this.#endBefore(ending, before))
      }
      this.#settle(child)
    }
    this.#isDown()
  }

  #endTogether(ending: "stop" | "release"): void {
    let open = 1
    const close = () => {
      if (--open === 0) this.#isDown()
    }
    const sweep = (at: Node<R> | undefined): void => {
      if (at === undefined) return close()
      const { next } = at
      if (at.alive) {
        open++
        at.end(this.#killing ? "kill" : ending, "hold", close)
      } else if (!at.removed) {
        this.#settle(at)
      }
      this.#engine.post(() => sweep(next))
    }
    sweep(this.children.first)
  }

  /** What becomes of a child that does not live when its supervisor ends: it waits for the next incarnation. */
  #settle(child: Node<R>): void {
    child.cancelBackoff()
    if (child.temporary && child.state !== "failed") this.forget(child)
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

  // --- dynamic supervisors ---

  get #control(): DynamicControl<R> {
    return {
      path: this.#node.view.path,
      tree: this.#tree,
      count: () => this.children.count(),
      startChild: (spec, wait) =>
        Effect.callback((resume) =>
          this.#engine.post(() => this.#startChild(spec, wait, (answer) => this.#engine.answer(() => resume(answer))))
        )
    }
  }

  #startChild(
    spec: ChildSpec<unknown, R>,
    wait: boolean,
    answer: (answer: Effect.Effect<ActorPath.ActorPath, Errors.StartChildError>) => void
  ): void {
    const { spec: own, view } = this.#node
    const { behaviour } = own
    if (this.#phase !== "up") return answer(Effect.fail(new Errors.SupervisorDown({ id: this.#node.spec.id })))
    const present = this.children.get(spec.id)
    if (present !== undefined) {
      const { path, state } = present.view
      const error = present.alive ? new Errors.AlreadyStarted({ path }) : new Errors.AlreadyPresent({ path, state })
      return answer(Effect.fail(error))
    }
    if (behaviour._tag === "Dynamic" && this.children.size >= behaviour.maxChildren) {
      return answer(Effect.fail(new Errors.MaxChildren({ path: view.path, maximum: behaviour.maxChildren })))
    }
    const child = this.#adopt(spec, false)
    const { path } = child.view
    if (!wait || child.state !== "waiting") answer(Effect.succeed(path))
    else {
      child.onStarted((exit) =>
        answer(exit === undefined ? Effect.succeed(path) : Effect.fail(new Errors.StartFailed({ path, exit })))
      )
    }
    if (child.state === "waiting") child.start(false)
  }
}

/** Completes a fresh node: supervisors get their group. */
export const makeNode = <R>(node: Node<R>, tree: Tree["Service"]): Node<R> => {
  if (node.spec.behaviour._tag !== "Worker") node.group = new Group(node, tree)
  return node
}
