/**
 * The machine room of one tree: the run-to-completion queue, time, the directory of actors, and the one place where an
 * actor's state changes become visible.
 *
 * Everything that happens to a tree (an exit, a timer, a call) is a task in one queue and is carried out whole before
 * the next: supervisors need no fiber, no lock and no mailbox, and a task never sees a half-done one. The queue gives
 * way to other work of the process after {@link SLICE} milliseconds, so no storm of crashes starves the event loop.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import * as Scheduler from "effect/Scheduler"
import type { ActorPath } from "../ActorPath.ts"
import * as Exits from "../ExitView.ts"
import type { ExitView } from "../ExitView.ts"
import type { JournalService, JournalState, NodeRecord } from "../Journal.ts"
import type { HistoryEntry, Revision, TreeNode, TreeSnapshot } from "../Tree.ts"
import type { Tree } from "../Tree.ts"
import { Bonds } from "./Bonds.ts"
import { ChangeLog } from "./ChangeLog.ts"
import { JournalWriter } from "./JournalWriter.ts"
import { Names } from "./Names.ts"
import type { Node } from "./Node.ts"
import { RestartGate, type RestartRate } from "./RestartGate.ts"
import { type Cancel, Timers } from "./Timers.ts"

export type { Cancel } from "./Timers.ts"

/** Tasks carried out before other work of the process gets its turn, at most. */
const BATCH = 512
/** Milliseconds after which it gets its turn too. Looked at every {@link LOOK} tasks, since looking costs as well. */
const SLICE = 2
const LOOK = 16
/** The queue is made anew when a storm has left it larger than this. */
const ROOM = 1_024

const nothing = (): void => {}
const nobodyKept = { record: undefined, history: undefined }

/** An actor whose policy wants the host to reboot, and why. */
export interface RebootWish {
  readonly path: ActorPath
  readonly reason: string
}

/** Who can reboot the host. */
export interface HostReboot {
  /** Asked in the middle of a decision: books it, or answers why the host shall not reboot now. Must not call the tree. */
  readonly claim: (wish: RebootWish) => string | undefined
  /** Carries out what has been booked. */
  readonly reboot: (wish: RebootWish) => void
}

/** What holds for the whole tree; see `Root.Options`. */
export interface EngineOptions {
  readonly restartRate?: RestartRate | undefined
  readonly rebootHost?: HostReboot | undefined
}

export class Engine<R> {
  /** What every actor's fiber starts with. */
  readonly context: Context.Context<R | Tree>
  /** How many actors there are. */
  actors = 0
  readonly bonds: Bonds<R> = new Bonds(this)
  readonly names: Names<R> = new Names(this)
  root: Node<R> | undefined
  /** What the tree shows, in its order and up to date; absent since somebody came, went or changed his place. */
  #shown: Array<TreeNode> | undefined
  readonly log: ChangeLog
  /** The limit on the restarts of the whole tree, if there is one. */
  readonly gate: RestartGate | undefined
  /** Called when the root has acknowledged its start. */
  onRootStarted: (() => void) | undefined
  /** Called when the root has ended by itself, with how. */
  onRootEnded: ((exit: ExitView) => void) | undefined
  readonly #clock: Clock.Clock
  readonly #random: (typeof Random.Random)["Service"]
  readonly #dispatcher: Scheduler.SchedulerDispatcher
  readonly #keptNodes: Map<string, NodeRecord>
  readonly #keptHistory: Map<string, ReadonlyArray<HistoryEntry>>
  readonly #journal: JournalWriter | undefined
  /** The tasks that wait are those from `#head` to `#tail`. The places are used again, so that a task costs no memory. */
  #queue: Array<() => void> = []
  #head = 0
  #tail = 0
  #outbox: Array<() => void> = []
  readonly #rebootHost: HostReboot | undefined
  #draining = false
  /** A task happens at one moment: its clocks are read once. */
  #inTask = false
  #now: number | undefined
  #monotonic: number | undefined
  #delivering = false
  readonly #timers: Timers

  constructor(
    context: Context.Context<R | Tree>,
    kept: JournalState,
    journal: { readonly service: JournalService; readonly ceiling: Revision } | undefined,
    options: EngineOptions
  ) {
    const { restartRate } = options
    this.context = context
    this.#rebootHost = options.rebootHost
    this.#clock = Context.get(context, Clock.Clock)
    this.#random = Context.get(context, Random.Random)
    this.#dispatcher = Context.get(context, Scheduler.Scheduler).makeDispatcher()
    this.#timers = new Timers({
      monotonic: () => this.monotonic(),
      sleep: (milliseconds, wake) => this.#sleep(milliseconds, wake),
      post: (task) => this.post(task)
    })
    this.gate =
      restartRate === undefined
        ? undefined
        : new RestartGate(restartRate, {
            monotonic: () => this.monotonic(),
            after: (milliseconds, task) => this.after(milliseconds, task)
          })
    this.#keptNodes = new Map(kept.nodes)
    this.#keptHistory = new Map(kept.history)
    this.log = new ChangeLog(
      {
        snapshot: () => this.snapshot(),
        current: (path) => this.find(path)?.view,
        happenedSince: (from, limit) => this.#happenedSince(from, limit)
      },
      kept.revision
    )
    this.#journal =
      journal === undefined
        ? undefined
        : new JournalWriter(journal.ceiling, (records, done) =>
            this.fork(Effect.ignore(Effect.sandbox(journal.service.append(records))), () => this.post(done))
          )
  }

  // --- the queue ---

  /** Has `task` carried out after those that wait already; at once when none does. */
  post(task: () => void): void {
    this.#queue[this.#tail++] = task
    if (!this.#draining) this.#drain()
  }

  /** Tells somebody outside: his fiber goes on when no task is under way, so what he does then finds the tree settled. */
  answer(tell: () => void): void {
    this.#outbox.push(tell)
  }

  #drain(): void {
    this.#draining = true
    let end = Number.POSITIVE_INFINITY
    for (let done = 1; this.#head < this.#tail; done++) {
      const task = this.#queue[this.#head]
      this.#queue[this.#head++] = nothing
      this.#inTask = true
      try {
        task?.()
      } catch (defect) {
        // A supervisor that cannot be trusted supervises nothing: the root dies, and whoever watches it starts anew.
        this.onRootEnded?.(Exits.fromExit(this.now(), Exit.die(defect), false))
      }
      this.#inTask = false
      this.#now = undefined
      this.#monotonic = undefined
      if (done === BATCH) break
      if (done % LOOK !== 0) continue
      const now = this.monotonic()
      if (now >= end) break
      if (done === LOOK) end = now + SLICE
    }
    if (this.#head < this.#tail) {
      // Tasks done are dropped when they are the larger part, so that a storm costs O(1) per task and no memory.
      if (this.#head > this.#tail / 2) {
        this.#queue = this.#queue.slice(this.#head, this.#tail)
        this.#tail -= this.#head
        this.#head = 0
      }
      this.#deliver()
      this.#dispatcher.scheduleTask(() => this.#drain(), 0)
    } else {
      if (this.#tail > ROOM) this.#queue = []
      this.#head = 0
      this.#tail = 0
      this.#draining = false
      this.#journal?.flush(this.log.revision)
      this.#deliver()
    }
  }

  /** Answers given here may post, and so drain and answer again: the outermost delivery goes on until all are told. */
  #deliver(): void {
    this.log.notify()
    if (this.#delivering || this.#outbox.length === 0) return
    this.#delivering = true
    for (let index = 0; index < this.#outbox.length; index++) this.#outbox[index]?.()
    this.#outbox = []
    this.#delivering = false
  }

  /** Whether somebody carries out a policy's `reboot-host`. */
  get canReboot(): boolean {
    return this.#rebootHost !== undefined
  }

  /** Has the host reboot, or answers why it does not. */
  reboot(wish: RebootWish): string | undefined {
    const refusal = this.#rebootHost?.claim(wish)
    if (refusal === undefined) this.answer(() => this.#rebootHost?.reboot(wish))
    return refusal
  }

  /** The root ended by itself: nobody restarts it. */
  rootEnded(root: Node<R>, exit: ExitView): void {
    const normal = exit.class === "normal" || exit.tag === "Ignored"
    root.move(
      normal ? "finish" : "fail",
      { lastExit: exit },
      {
        event: exit.beforeReady && !normal ? "start-failed" : "ended",
        exit,
        decision: "finish",
        reason: "nobody supervises the root"
      }
    )
    this.onRootEnded?.(exit)
  }

  // --- time ---

  /** Wall clock, milliseconds since 1970: for people. */
  now(): number {
    if (!this.#inTask) return this.#clock.currentTimeMillisUnsafe()
    return (this.#now ??= this.#clock.currentTimeMillisUnsafe())
  }

  /** Monotonic milliseconds: for lengths of time. */
  monotonic(): number {
    if (!this.#inTask) return this.#readMonotonic()
    return (this.#monotonic ??= this.#readMonotonic())
  }

  #readMonotonic(): number {
    return Number(this.#clock.monotonicTimeNanosUnsafe()) / 1e6
  }

  random(): number {
    return this.#random.nextDoubleUnsafe()
  }

  /** Posts `task` in `milliseconds`. */
  after(milliseconds: number, task: () => void): Cancel {
    return this.#timers.after(milliseconds, task)
  }

  #sleep(milliseconds: number, wake: () => void): Cancel {
    const fiber = Effect.runForkWith(this.context)(Effect.sleep(milliseconds))
    fiber.addObserver((exit) => {
      if (Exit.isSuccess(exit)) wake()
    })
    return () => fiber.interruptUnsafe()
  }

  /** What is held right now; see `Root.resources`. */
  get resources() {
    return {
      actors: this.actors,
      timers: this.#timers.size,
      watchers: this.log.watchers,
      bonds: this.bonds.size,
      names: this.names.size,
      turns: this.gate?.waiting ?? 0,
      unwritten: this.#journal?.size ?? 0
    }
  }

  /** Runs an effect of ours in a fiber of its own; `done` gets its exit, outside the queue. */
  fork<A, E>(effect: Effect.Effect<A, E>, done: (exit: Exit.Exit<A, E>) => void): void {
    Effect.runForkWith(this.context)(effect).addObserver(done)
  }

  /** Calls `then` when all that has happened so far is in the journal. */
  whenKept(then: () => void): void {
    if (this.#journal === undefined) then()
    else this.#journal.whenIdle(then)
  }

  // --- what the tree shows ---

  /** The actor at `path`, a step per segment: the tree is its own directory, and one more actor costs no entry elsewhere. */
  find(path: string): Node<R> | undefined {
    const { root } = this
    if (root === undefined || path === root.view.path) return root
    const start = `${root.view.path}/`
    if (!path.startsWith(start)) return undefined
    let node: Node<R> | undefined = root
    for (let from = start.length; node !== undefined;) {
      const end = path.indexOf("/", from)
      if (end < 0) return node.group?.children.get(path.slice(from))
      node = node.group?.children.get(path.slice(from, end))
      from = end + 1
    }
    return undefined
  }

  /** Makes `view` (of the next revision) what the tree shows of `node`. */
  publish(node: Node<R>, view: TreeNode, entry: HistoryEntry | undefined, kept = true): void {
    node.view = view
    if (node.place === undefined) this.#shown = undefined
    else if (this.#shown !== undefined) this.#shown[node.place] = view
    this.log.changed(view, entry)
    if (kept) this.#journal?.changed(view.path, node, entry)
  }

  /** Siblings have changed places. */
  reordered(): void {
    this.#shown = undefined
  }

  /** Takes `node` and all below it out of the tree. */
  remove(node: Node<R>): void {
    this.#shown = undefined
    node.place = undefined
    if (node.group !== undefined) {
      const { children } = node.group
      for (let child = children.last; child !== undefined; child = children.last) {
        child.cancelBackoff()
        children.unlink(child)
        this.remove(child)
      }
    }
    const { path } = node.view
    this.actors--
    node.spec.mailbox?.removed(path)
    this.log.removed(path)
    this.#journal?.removed(path)
  }

  /** What earlier brains left of this actor; asked once, by the first node of this path. */
  takeKept(path: ActorPath): {
    readonly record: NodeRecord | undefined
    readonly history: ReadonlyArray<HistoryEntry> | undefined
  } {
    if (this.#keptNodes.size === 0 && this.#keptHistory.size === 0) return nobodyKept
    const kept = { record: this.#keptNodes.get(path), history: this.#keptHistory.get(path) }
    this.#keptNodes.delete(path)
    this.#keptHistory.delete(path)
    return kept
  }

  #happenedSince(from: Revision, limit: number) {
    const found: Array<{ readonly node: TreeNode; readonly entry: HistoryEntry }> = []
    if (this.root !== undefined) {
      walk(this.root, (node) => {
        for (const entry of node.history) if (entry.revision > from) found.push({ node: node.view, entry })
      })
    }
    return found.sort((one, other) => one.entry.revision - other.entry.revision).slice(-limit)
  }

  /**
   * All of the tree, or what is at and below `under`. As long as the same actors are there all of it is a copy of what is
   * kept up to date anyhow: a walk over a hundred thousand of them takes more than ten milliseconds, a copy less than one.
   */
  snapshot(under?: Node<R>): TreeSnapshot {
    const { revision } = this.log
    if (under !== undefined && under !== this.root) {
      const nodes: Array<TreeNode> = []
      walk(under, (node) => void nodes.push(node.view))
      return { revision, nodes }
    }
    if (this.#shown === undefined && this.root !== undefined) {
      const shown: Array<TreeNode> = []
      walk(this.root, (node) => {
        node.place = shown.length
        shown.push(node.view)
      })
      this.#shown = shown
    }
    return { revision, nodes: this.#shown?.slice() ?? [] }
  }
}

/** A supervisor comes before its children, siblings in order of start. */
const walk = <R>(node: Node<R>, visit: (node: Node<R>) => void): void => {
  visit(node)
  for (let child = node.group?.children.first; child !== undefined; child = child.next) walk(child, visit)
}
