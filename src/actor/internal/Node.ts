/**
 * One actor's place in the tree: its spec, what the tree shows of it, and its current life if it has one.
 *
 * A node outlives its incarnations, and those of its supervisor. It does what its supervisor (a `Group`) or a person
 * tells it and reports what happens to it; it takes no decision.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { ActorPath } from "../ActorPath.ts"
import type { ChildSpec } from "../ChildSpec.ts"
import type { Decision } from "../Decision.ts"
import type { DownReason } from "../Down.ts"
import type { LinkedActorEnded } from "../Errors.ts"
import * as Exits from "../ExitView.ts"
import type { ExitView } from "../ExitView.ts"
import { type NodeRecord, type Rest, SPENT_LIMIT } from "../Journal.ts"
import * as Lifecycle from "../Lifecycle.ts"
import { policyChange } from "../PolicyChange.ts"
import type { RestartPolicy } from "../RestartPolicy.ts"
import type { Annotations } from "../Self.ts"
import { failuresInARow } from "../Tree.ts"
import type { HistoryEntry, HistoryEvent, Moment, TreeNode } from "../Tree.ts"
import { type Above, ActualSituation } from "./ActualSituation.ts"
import type { Cancel, Engine } from "./Engine.ts"
import type { Group } from "./Group.ts"
import * as History from "./History.ts"
import { type EndingKind, Incarnation } from "./Incarnation.ts"
import * as Account from "./RestartAccount.ts"
import {
  entryOf,
  type Happening,
  isReady,
  moves,
  nextView,
  noAnnotations,
  noPatch,
  type Patch,
  restOf
} from "./View.ts"

/** What follows when a node has ended: `hold`: its supervisor starts it again; `halt`: it stays; `start`: at once. */
export type Intent = "hold" | "halt" | "start"

/** Hears how a start went: `undefined` for the acknowledgement, else why there was none. */
export type StartWaiter = (failure: ExitView | undefined) => void

/** On whose account it is ended, and why, in words. */
export interface Because {
  readonly path: ActorPath | undefined
  readonly words: string
}

const nobody: ReadonlyArray<string> = []
const noRestarts: ReadonlyArray<number> = []

const endings = {
  stop: { event: "stopped", reason: "to be ended, with its stop hooks" },
  release: { event: "released", reason: "to be ended; what it manages goes on" },
  kill: { event: "killed", reason: "to be ended at once, its supervisor ran out of time" }
} as const satisfies Record<EndingKind, Happening>

export class Node<R> {
  readonly engine: Engine<R>
  readonly parent: Group<R> | undefined
  /** Place in the order of start: larger than that of every sibling before. */
  order = 0
  /** Place in the last snapshot of the whole tree. */
  place: number | undefined
  spec: ChildSpec<unknown, R>
  view: TreeNode
  previous: Node<R> | undefined
  next: Node<R> | undefined
  /** True once it is no longer in the tree. */
  removed = false
  /** For supervisors: their children. Set right after construction. */
  group: Group<R> | undefined
  incarnation: Incarnation<R> | undefined
  /** It is about to be ended, after those that need it: siblings do not count on it any more. */
  departing = false
  /** It is being ended because of a sibling that ended by itself. */
  bystander = false
  /** Parked: the id of the sibling that was started in its place. */
  fallback: string | undefined
  /** The parked sibling in whose place it runs. */
  standsInFor: Node<R> | undefined
  /** Whose account the start is on that it waits to make. */
  startsAutomatically = false
  /** What of its restarts it has used up. */
  #account: Account.RestartAccount
  #history: History.History
  /** Monotonic time from which on it runs: the acknowledgement, or earlier for what was taken over. */
  #runningSince = 0
  #backoff: Cancel | undefined
  #deadline: Cancel | undefined
  #intent: Intent | undefined
  /** How it is being ended. */
  #ending: "stopped" | "released" = "stopped"
  #startWaiters: Array<StartWaiter> | undefined
  #endWaiters: Array<() => void> | undefined

  constructor(engine: Engine<R>, parent: Group<R> | undefined, path: ActorPath, spec: ChildSpec<unknown, R>) {
    this.engine = engine
    this.parent = parent
    this.spec = spec
    const { history, record } = engine.takeKept(path)
    if (history !== undefined) for (const entry of history) this.#remember(entry)
    const now = engine.now()
    this.#account = Account.open(spec.policy)
    if (record !== undefined) {
      const monotonic = engine.monotonic()
      const times = record.spent?.map((at) => monotonic - Math.max(0, now - at)) ?? []
      this.#account.resume(times, record.ruleRestarts)
    }
    const rest = restOf(spec, record)
    const behaviour = spec.behaviour
    this.view = {
      path,
      kind: spec.kind,
      description: spec.description,
      type: behaviour._tag === "Worker" ? "worker" : "supervisor",
      strategy:
        behaviour._tag === "Worker" ? undefined : behaviour._tag === "Static" ? behaviour.strategy : "one_for_one",
      state: rest?.state ?? "waiting",
      incarnation: record?.incarnation ?? 0,
      restarts: record?.restarts ?? 0,
      since: rest?.since ?? now,
      startedAt: undefined,
      lastExit: record?.lastExit,
      nextAttemptAt: rest?.nextAttemptAt,
      attempt: record?.attempt ?? 0,
      policy: spec.policy,
      budgetLeft: this.#budgetLeft(),
      annotations: noAnnotations,
      waitingFor: nobody,
      entry: rest === undefined ? undefined : history?.findLast(({ event }) => moves.has(event)),
      revision: engine.log.next()
    }
    this.fallback = rest?.fallback
    engine.actors++
    engine.publish(this, this.view, undefined)
    if (rest?.state === "backing-off") {
      this.armBackoff(Math.max(0, (rest.nextAttemptAt ?? now) - now), () => this.start(true))
    } else if (rest === undefined && !spec.autoStart) this.move("halt")
  }

  get state(): Lifecycle.ActorState {
    return this.view.state
  }
  get alive(): boolean {
    return Lifecycle.isAlive(this.view.state)
  }
  /** It is forgotten when it is over. */
  get temporary(): boolean {
    return this.view.policy.restart === "temporary" && !this.spec.keep
  }
  get history(): ReadonlyArray<HistoryEntry> {
    return History.toArray(this.#history)
  }
  /** For how many milliseconds it has run. */
  get ranFor(): number {
    return this.engine.monotonic() - this.#runningSince
  }
  /** For the journal. */
  record(): NodeRecord {
    const { attempt, incarnation, lastExit, path, restarts } = this.view
    const ruleRestarts = this.#account.byRule
    return { path, incarnation, restarts, attempt, lastExit, rest: this.#rest(), spent: this.#spent(), ruleRestarts }
  }

  #rest(): Rest | undefined {
    const { nextAttemptAt, since, state } = this.view
    switch (state) {
      case "backing-off":
        return { state, since, nextAttemptAt }
      case "parked":
        return { state, since, fallback: this.fallback }
      case "finished":
      case "failed":
      case "stopped":
        return { state, since }
      default:
        return undefined
    }
  }

  #spent(): ReadonlyArray<number> | undefined {
    const now = this.engine.monotonic()
    const times = this.#account.times(now)
    if (times.length === 0) return undefined
    const wall = this.engine.now()
    return times.slice(-SPENT_LIMIT).map((at) => Math.round(wall - (now - at)))
  }

  // --- showing ---

  #remember(entry: HistoryEntry): void {
    this.#history = History.remember(this.#history, entry)
  }

  get moment(): Moment {
    return {
      attempt: failuresInARow(this.view, this.engine.now()),
      mailbox: this.spec.mailbox?.load(),
      budgetLeft: this.#budgetLeft(),
      intensity: this.group?.intensity,
      ruleRestarts: this.#account.byRule ?? noRestarts
    }
  }

  #budgetLeft(): number | undefined {
    return this.#account.limited ? this.#account.left(this.engine.monotonic()) : undefined
  }

  /** Makes a change visible, with the event behind it if there is one. */
  change(patch: Patch, happening?: Happening): void {
    this.#show(this.view.state, false, patch, happening)
  }

  /** Moves along the lifecycle table; see `change`. */
  move(event: Lifecycle.LifecycleEvent, patch = noPatch, happening?: Happening): void {
    const { state: from, waitingFor } = this.view
    const state = Lifecycle.next(from, event)
    // Nothing is shown when nothing changed.
    if (state === from && happening === undefined && patch === noPatch && waitingFor.length === 0) return
    this.parent?.children.moved(this, from, state)
    this.#show(state, true, patch, happening)
  }

  #show(state: Lifecycle.ActorState, moved: boolean, patch: Patch, happening: Happening | undefined): void {
    const { engine, view } = this
    const revision = engine.log.next()
    const at = engine.now()
    const entry = happening === undefined ? undefined : entryOf(view, patch, happening, at, revision)
    if (entry !== undefined) this.#remember(entry)
    const change = { state, moved, at, revision, entry, budgetLeft: this.#budgetLeft() }
    // what an actor says of itself ends with its incarnation: the journal has nothing of it
    const kept = moved || entry !== undefined || patch.annotations === undefined
    engine.publish(this, nextView(view, this.spec, patch, change), entry, kept)
  }

  /** An event that changes no state. */
  note(event: HistoryEvent, reason: string): void {
    this.change(noPatch, { event, reason })
  }

  annotate(annotations: Annotations): void {
    const present = this.view.annotations
    // whoever tells how things are whenever it looks would have everybody hear, and the journal write, what is known
    if (Object.entries(annotations).every(([key, value]) => (present[key] ?? "") === value)) return
    const all: Record<string, string> = { ...present, ...annotations }
    for (const key of Object.keys(all)) if (all[key] === "") delete all[key]
    this.change({ annotations: all })
  }

  setPolicy(policy: RestartPolicy): void {
    this.#account = Account.open(policy)
    const reason = policyChange(this.view.policy, policy)
    this.change({ policy }, { event: "policy-changed", reason })
  }

  /** A person takes the matter in hand: failures so far count no more. */
  forgive(): void {
    this.#account = Account.open(this.view.policy)
    if (this.view.attempt !== 0) this.change({ attempt: 0 })
  }

  /** What a decision about its end must know of it. `now`: monotonic. */
  situation(exit: ExitView, now: number, supervisor: Above): ActualSituation {
    const ranFor = exit.beforeReady ? 0 : this.ranFor
    return new ActualSituation(this, exit, ranFor, this.#account, now, supervisor)
  }

  /** Counts what a decision spends. `healthy`: the run before it was. */
  spend(decision: Decision, healthy: boolean, now: number): void {
    this.#account.spend(decision, healthy, now)
  }

  // --- starting ---

  /** Hears how the start under way goes. */
  onStarted(waiter: StartWaiter): void {
    if (this.#startWaiters === undefined) this.#startWaiters = [waiter]
    else this.#startWaiters.push(waiter)
  }

  #started(failure: ExitView | undefined): void {
    const waiters = this.#startWaiters
    this.#startWaiters = undefined
    if (waiters !== undefined) for (const waiter of waiters) waiter(failure)
  }

  /** Starts the next incarnation. `automatic`: by the supervisor on its own account. */
  start(automatic: boolean): void {
    this.cancelBackoff()
    this.fallback = undefined
    const { incarnation, restarts } = this.view
    const again = automatic && incarnation > 0
    if (!again) this.#account.started(this.engine.monotonic())
    this.move("start", {
      incarnation: incarnation + 1,
      annotations: noAnnotations,
      restarts: again ? restarts + 1 : restarts
    })
    const { behaviour } = this.spec
    switch (behaviour._tag) {
      case "Worker":
        this.incarnation = new Incarnation(this)
        return this.incarnation.run(this.#opensMailbox() ?? behaviour.run)
      case "Static":
        return this.group?.begin(behaviour.children)
      case "Dynamic": {
        const life = new Incarnation(this)
        this.incarnation = life
        // The body waits for ever once it has told its children, and so keeps its scope open until it is interrupted.
        return life.run(
          Effect.flatMap(behaviour.children, (specs) => {
            this.engine.post(() => {
              if (this.incarnation === life && life.ending === undefined) this.group?.begin(specs)
            })
            return Effect.never
          })
        )
      }
    }
  }

  /** Makes the mailbox, if there is one, this life's; answers what to die of when it is another's. */
  #opensMailbox(): Effect.Effect<never> | undefined {
    const { mailbox } = this.spec
    if (mailbox === undefined) return undefined
    const { incarnation, path } = this.view
    const other = mailbox.begin(path, incarnation)
    if (other !== undefined) return Effect.die(new TypeError(`the mailbox of ${path} is that of ${other} already`))
    this.engine.bonds.onEnd(this, mailbox.end)
    return undefined
  }

  /**
   * The start is acknowledged, of something that has run for `runningFor` ms already; `adopted`: that it took over.
   * Annotations are added also later.
   */
  acknowledged(annotations: Annotations, runningFor = 0, adopted = false): void {
    if (this.state !== "starting") {
      if (Object.keys(annotations).length > 0) this.annotate(annotations)
      return
    }
    const { standsInFor } = this
    this.incarnation?.started()
    this.#runningSince = this.engine.monotonic() - runningFor
    this.move(
      "acknowledge",
      { startedAt: this.engine.now() - runningFor, annotations: this.#withTold(annotations) },
      {
        event: adopted ? "adopted" : "started",
        reason: this.#cameUp(adopted),
        because: standsInFor?.view.path
      }
    )
    this.#started(undefined)
    this.parent?.childAcknowledged(this)
    if (this.parent === undefined) this.engine.onRootStarted?.()
  }

  #cameUp(adopted: boolean): string {
    const { incarnation } = this.view
    const how = adopted ? `incarnation ${incarnation} took over what ran on` : isReady(incarnation)
    return this.standsInFor === undefined ? how : `${how}, in the place of "${this.standsInFor.spec.id}"`
  }

  /** What it told before it was ready stays. */
  #withTold(annotations: Annotations): Annotations {
    const told = this.view.annotations
    return told === noAnnotations ? annotations : { ...told, ...annotations }
  }

  // --- waiting ---

  /** Its start waits for these siblings. */
  awaitSiblings(ids: ReadonlyArray<string>, automatic: boolean): void {
    this.cancelBackoff()
    this.startsAutomatically = automatic
    const { waitingFor } = this.view
    if (waitingFor.length === ids.length && waitingFor.every((id, index) => id === ids[index])) return
    this.move("hold", { waitingFor: ids })
  }

  get awaitsSiblings(): boolean {
    return this.view.waitingFor.length > 0
  }

  /** Starts it in `delay` milliseconds, by way of `then`. */
  armBackoff(delay: number, then: () => void): void {
    this.cancelBackoff()
    this.#backoff = this.engine.after(delay, then)
  }

  /** Restarts it when the tree's limit on restarts lets it, by way of `then`. */
  awaitAdmission(then: () => void): void {
    this.cancelBackoff()
    const { gate } = this.engine
    if (gate === undefined) return then()
    let admitted = false
    const cancel = gate.admit(this.view.attempt > 1, () => {
      admitted = true
      then()
    })
    if (admitted) return
    this.#backoff = cancel
    this.note("held-back", `its restart is due; ${gate.describe()}`)
  }

  /** True while a timer or a turn is waited for that starts it. */
  get hasAppointment(): boolean {
    return this.#backoff !== undefined
  }

  cancelBackoff(): void {
    this.#backoff?.()
    this.#backoff = undefined
  }

  // --- ending ---

  /**
   * Ends the incarnation that lives; `done` when it has, after the move that `intent` asks for. A person's intent (`halt`
   * or `start`) stands against a supervisor's `hold`. `shutdown`: the time for it, in milliseconds.
   */
  end(ending: EndingKind, intent: Intent, done: () => void, because?: Because, shutdown = this.spec.shutdown): void {
    if (intent !== "hold" || this.#intent === undefined) this.#intent = intent
    if (this.#endWaiters === undefined) this.#endWaiters = [done]
    else this.#endWaiters.push(done)
    if (this.state === "stopping") return
    this.#ending = ending === "stop" ? "stopped" : "released"
    const { event, reason } = endings[ending]
    this.move("stop", noPatch, { event, reason: because?.words ?? reason, because: because?.path })
    const brutal = ending === "kill" || shutdown === 0
    const deadline = brutal ? 0 : shutdown
    const orderly = ending === "kill" ? "release" : ending
    if (this.group === undefined) {
      this.incarnation?.end(orderly, deadline)
      return
    }
    if (deadline > 0 && Number.isFinite(deadline)) this.#deadline = this.engine.after(deadline, () => this.kill())
    this.group.shutdown(orderly, brutal, () => {
      if (this.incarnation === undefined) this.#ended()
      else this.incarnation.end(orderly, brutal ? 0 : Number.POSITIVE_INFINITY)
    })
  }

  /** Nobody runs in its place any more. */
  noLongerReplaced(): void {
    if (this.fallback === undefined) return
    this.fallback = undefined
    // So that the journal hears of it.
    this.change(noPatch)
  }

  /** A person wants it stopped, and it does not live. */
  stopForGood(): void {
    this.cancelBackoff()
    if (this.temporary) return this.parent?.forget(this)
    if (this.state !== "stopped") this.move("halt", noPatch, { event: "stopped", reason: "it was not running" })
  }

  /** Cuts short an end that has begun, here and below. */
  kill(): void {
    if (this.state !== "stopping") return
    this.group?.kill()
    this.incarnation?.kill("its supervisor ran out of time")
  }

  #ended(): void {
    this.#deadline?.()
    this.#deadline = undefined
    this.incarnation = undefined
    this.departing = false
    const intent = this.#intent ?? "hold"
    this.#intent = undefined
    const waiters = this.#endWaiters ?? []
    this.#endWaiters = undefined
    this.#lifeOver(this.#ending, undefined)
    if (this.#startWaiters !== undefined) {
      this.#started(Exits.notStarted(this.engine.now(), "StartTimeout", "it was stopped before it was ready"))
    }
    if (intent === "halt") this.move("halt")
    else this.move("hold")
    this.parent?.childHalted(this, intent !== "start" && this.temporary)
    for (const waiter of waiters) waiter()
  }

  /** How it, or what it looked after, ended when it was told to. */
  endedWhileStopping(exit: ExitView): void {
    this.change({ lastExit: exit }, { event: "ended", exit, reason: `while it was being ended: ${exit.message}` })
  }

  /** The fiber of `life` has ended. */
  incarnationEnded(exit: Exit.Exit<void, unknown>, life: Incarnation<R>): void {
    const now = this.engine.now()
    if (this.state === "stopping") {
      if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) {
        this.endedWhileStopping(Exits.fromExit(now, exit, false))
      }
      // A dynamic supervisor whose own body ends first still has children to end; its group goes on by itself.
      if (this.group === undefined || this.group.down) this.#ended()
      else this.incarnation = undefined
      return
    }
    if (Exit.isSuccess(exit) && this.state === "starting") this.acknowledged(noAnnotations)
    const beforeReady = this.state === "starting"
    const own = this.group?.down === true ? this.group.failure : undefined
    const view =
      own ??
      (life.ignored
        ? Exits.notStarted(now, "Ignored", "it had nothing to do")
        : life.timedOut
          ? Exits.notStarted(now, "StartTimeout", `not ready ${this.spec.startDeadline} ms after its start`)
          : Exits.fromExit(now, this.#exitOf(exit), beforeReady))
    this.incarnation = undefined
    if (this.group === undefined || this.group.down) this.endedByItself(view)
    else this.group.giveUp(view)
  }

  /** How it ended, or, when a link had it interrupted, why. */
  #exitOf(exit: Exit.Exit<void, unknown>): Exit.Exit<void, unknown> {
    const doom = this.engine.bonds.doomOf(this)
    return doom !== undefined && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? Exit.fail(doom) : exit
  }

  /** An actor that it is linked to has failed, so it ends by itself with `failure`. */
  endLinked(failure: LinkedActorEnded): void {
    const { group, state } = this
    if (state !== "starting" && state !== "running") return
    if (group?.open === true)
      return group.giveUp(Exits.fromExit(this.engine.now(), Exit.fail(failure), state === "starting"))
    if (group === undefined || group.down) this.incarnation?.end("release", this.spec.shutdown)
  }

  /** What hangs on this life is settled before its supervisor hears that it is over. */
  #lifeOver(reason: DownReason, exit: ExitView | undefined): void {
    this.engine.bonds.ended(this, reason, exit)
  }

  /** Its group has ended of itself; the body of a dynamic supervisor must end too. */
  groupGaveUp(view: ExitView): void {
    if (this.incarnation === undefined) this.endedByItself(view)
    else this.incarnation.end("release", Number.POSITIVE_INFINITY)
  }

  /** It has ended wholly, without having been told to. */
  endedByItself(view: ExitView): void {
    if (this.state === "stopping") return this.#ended()
    const waiters = this.#startWaiters
    this.#startWaiters = undefined
    this.#lifeOver("ended", view)
    if (this.parent === undefined) this.engine.rootEnded(this, view)
    else this.parent.childEnded(this, view)
    if (waiters !== undefined) for (const waiter of waiters) waiter(view.tag === "Ignored" ? undefined : view)
  }
}
