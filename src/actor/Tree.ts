/**
 * The supervision tree as data: snapshots, a stream of changes from any revision still held, the history of each actor,
 * and the calls by which a person steers it. In the context of every actor.
 *
 * Every change of an actor gets the next *revision*: one counter for the whole tree, growing over restarts of the brain
 * too. A client remembers the last revision it saw and goes on from there.
 *
 * Traps:
 * - `watch` begins with a `Snapshot` when `from` is absent or no longer held; then forget what you knew. It may come
 *   again later, when a reader was so slow that changes it had not read were dropped. To one who comes back with a
 *   revision of an earlier brain the entries that the histories hold since then come before it, as `Changed` of the
 *   revision he came with, with the newest state: he misses nothing that happened in between, and revisions only grow.
 * - A reader that lags gets only the newest state of an actor instead of every state between. Folding the events always
 *   gives the snapshot.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { ActorPath } from "./ActorPath.ts"
import type { Intensity } from "./ChildSpec.ts"
import type { Down } from "./Down.ts"
import type * as Errors from "./Errors.ts"
import type { ExitView } from "./ExitView.ts"
import type { ActorState } from "./Lifecycle.ts"
import type { RestartPolicy } from "./RestartPolicy.ts"
import type { Annotations, Self } from "./Self.ts"
import type { Strategy } from "./Strategy.ts"

/** A point in the tree's life; larger is later. A safe integer. */
export type Revision = number

/** One actor at one revision. Times are milliseconds since 1970. Immutable. */
export interface TreeNode {
  readonly path: ActorPath
  readonly kind: string
  readonly description: string
  readonly type: "worker" | "supervisor"
  /** Of a supervisor: what a child's crash means for its siblings. */
  readonly strategy: Strategy | undefined
  readonly state: ActorState
  /** Number of the current or last life, from 1; 0 before the first. Goes on over restarts of the brain. */
  readonly incarnation: number
  /** Starts beyond the first of this actor's spec that the supervisor made on its own account. */
  readonly restarts: number
  /** When it came into this state. */
  readonly since: number
  /** When that which runs, or ran last, was started: the acknowledgement, or earlier for what was taken over. */
  readonly startedAt: number | undefined
  /** How it last ended by itself. */
  readonly lastExit: ExitView | undefined
  /** Backing off: when the next try is. */
  readonly nextAttemptAt: number | undefined
  /** Consecutive ends without a healthy run between. */
  readonly attempt: number
  readonly policy: RestartPolicy
  /** Restarts left in the policy's own budget, as of this revision; undefined without a budget. */
  readonly budgetLeft: number | undefined
  /** Facts the incarnation told about itself. */
  readonly annotations: Annotations
  /** Waiting: the siblings that must come up (or be gone) before it starts. Empty when it waits for its turn only. */
  readonly waitingFor: ReadonlyArray<string>
  /** The last event that moved it: why it is in this state and, backing off, why its next try is when it is. */
  readonly entry: HistoryEntry | undefined
  readonly revision: Revision
}

/** What the supervisor did about an event in an actor's life. */
export type HistoryDecision =
  | "restart"
  | "park"
  | "fallback"
  | "restart-group"
  | "reboot-host"
  | "escalate"
  | "finish"
  | "none"

/** One event in an actor's life, with the decision taken and its reason in plain words. */
export interface HistoryEntry {
  readonly at: number
  readonly revision: Revision
  /**
   * What happened: `started`, `adopted` (it took over what ran on), `ended`, `start-failed`, `stopped`, `released`, `abandoned`, `policy-changed`, `held-back`
   * (its restart is due and waits for its turn under the tree's restart rate), …
   */
  readonly event: HistoryEvent
  readonly incarnation: number
  readonly exit?: ExitView | undefined
  readonly decision: HistoryDecision
  readonly reason: string
  /** Whose end it happened on account of, when that was not its own: a sibling's, or that of one elsewhere. */
  readonly because?: ActorPath | undefined
  /** Milliseconds until the restart decided on. */
  readonly delay?: number | undefined
  readonly nextAt?: number | undefined
}

export type HistoryEvent =
  | "started"
  | "adopted"
  | "ended"
  | "start-failed"
  | "ignored"
  | "stopped"
  | "released"
  | "killed"
  | "abandoned"
  | "stop-hook-failed"
  | "policy-changed"
  | "held-back"

/** The whole tree at `revision`; a supervisor comes before its children, siblings in order of start. */
export interface TreeSnapshot {
  readonly revision: Revision
  readonly nodes: ReadonlyArray<TreeNode>
}

/** What a watch tells. `entry` is the event behind a change, where there is one. */
export type TreeEvent =
  | { readonly _tag: "Snapshot"; readonly revision: Revision; readonly snapshot: TreeSnapshot }
  | {
      readonly _tag: "Changed"
      readonly revision: Revision
      readonly node: TreeNode
      readonly entry: HistoryEntry | undefined
    }
  | { readonly _tag: "Removed"; readonly revision: Revision; readonly path: ActorPath }

/** How a person's `restart` ends the running incarnation: with its stop hooks (default) or without. */
export interface RestartOptions {
  readonly ending?: "stop" | "release"
  /** Answer after the acknowledgement (default), or as soon as the restart is under way. */
  readonly wait?: "acknowledged" | "registered"
}

/** What waits for an actor to get to it. */
export interface Load {
  readonly mailboxDepth: number
  /** When the oldest message was sent; undefined when none waits. */
  readonly oldestMessageAt: number | undefined
}

/** How many lives in a row ended before the present one, as of `now`: none once that has run for as long as is healthy. */
export const failuresInARow = ({ attempt, policy, since, startedAt, state }: TreeNode, now: number): number =>
  state === "running" && now - (startedAt ?? since) >= Duration.toMillis(policy.backoff.resetAfter) ? 0 : attempt

/** What time alone changes, and so makes no revision: as it is when asked for. */
export interface Moment {
  /** Ends in a row: see {@link failuresInARow}. */
  readonly attempt: number
  /** What waits in its mailbox; undefined when it has none. */
  readonly mailbox: Load | undefined
  /** Restarts left in the policy's own budget; undefined without a budget. */
  readonly budgetLeft: number | undefined
  /** Of a supervisor with a limit: how many restarts of its children count now. */
  readonly intensity: (Intensity & { readonly spent: number }) | undefined
  /** Restarts by each rule of its policy since the last healthy run, in the rules' order; empty when there were none. */
  readonly ruleRestarts: ReadonlyArray<number>
}

/** One wish for a link to be there; the link is gone with the last. */
export interface LinkHold {
  readonly release: () => void
}

/** The names of a tree, without effects around them; use `Registry.ts`. */
export interface NameTable {
  readonly holder: (name: string) => ActorPath | undefined
  readonly all: () => ReadonlyMap<string, ActorPath>
  readonly take: (self: Self["Service"], name: string) => NameOutcome
  readonly give: (self: Self["Service"], name: string) => void
  /** Tells the holder once there is one; answers how to wait no longer. */
  readonly wait: (name: string, tell: (path: ActorPath) => void) => () => void
}

/** What came of an attempt to take a name. `Over`: the life that wanted it is over itself. */
export type NameOutcome =
  | { readonly _tag: "Held" }
  | { readonly _tag: "Over" }
  | { readonly _tag: "Taken"; readonly by: ActorPath }

export class Tree extends Context.Service<
  Tree,
  {
    readonly revision: Effect.Effect<Revision>
    /** All actors, or those at and below `under`. */
    readonly snapshot: (under?: ActorPath) => Effect.Effect<TreeSnapshot, Errors.NoSuchActor>
    /** Changes after revision `from`; see the module header. Never ends by itself before the tree does. */
    readonly watch: (from?: Revision) => Stream.Stream<TreeEvent>
    readonly get: (path: string) => Effect.Effect<TreeNode, Errors.NoSuchActor>
    /** Direct children, in order of start. */
    readonly children: (path: string) => Effect.Effect<ReadonlyArray<TreeNode>, Errors.NoSuchActor>
    /** The last events of an actor's life, oldest first; bounded. */
    readonly history: (path: string) => Effect.Effect<ReadonlyArray<HistoryEntry>, Errors.NoSuchActor>
    /** Starts an actor that is not running: stopped, parked, finished, failed, or backing off (which ends the wait). */
    readonly start: (
      path: string,
      options?: { readonly wait?: "acknowledged" | "registered" }
    ) => Effect.Effect<
      void,
      Errors.NoSuchActor | Errors.NotSupervised | Errors.AlreadyStarted | Errors.StartFailed | Errors.SupervisorDown
    >
    /**
     * Ends an actor with its stop hooks and keeps it stopped. Answers when it has ended. Idempotent. `shutdown`: the time
     * it gets this once, instead of its spec's; one that is being ended already keeps what it has.
     */
    readonly stop: (
      path: string,
      options?: { readonly shutdown?: Duration.Duration | undefined }
    ) => Effect.Effect<void, Errors.NoSuchActor | Errors.NotSupervised>
    /** Ends an actor if it runs, and starts it at once. Forgets its consecutive failures and spent budget. */
    readonly restart: (
      path: string,
      options?: RestartOptions
    ) => Effect.Effect<void, Errors.NoSuchActor | Errors.NotSupervised | Errors.StartFailed | Errors.SupervisorDown>
    /** Forgets an actor that is not running. Static children too; their supervisor's restart brings them back. */
    readonly remove: (
      path: string
    ) => Effect.Effect<void, Errors.NoSuchActor | Errors.NotSupervised | Errors.StillRunning>
    /** Changes the policy from the next end on; an actor that is backing off keeps its appointment. */
    readonly setPolicy: (path: string, policy: RestartPolicy) => Effect.Effect<void, Errors.NoSuchActor>
    /**
     * Calls `onDown` once when the life that the actor has now is over, until the scope closes; see `Monitor.ts`. It is
     * called between two tasks of the tree, so it must be quick and not throw.
     */
    readonly monitor: (path: string, onDown: (down: Down) => void) => Effect.Effect<void, never, Scope.Scope>
    /** Links two lives; use `Link.ts`. Interrupts the caller when `self` is over. */
    readonly link: (
      self: Self["Service"],
      path: string
    ) => Effect.Effect<LinkHold, Errors.NoSuchActor | Errors.ActorDown>
    /** Use `Link.ts`. */
    readonly unlink: (self: Self["Service"], path: string) => Effect.Effect<void>
    readonly names: NameTable
    /** Whether a policy's `reboot-host` is carried out here; it escalates else. */
    readonly canReboot: boolean
    readonly moment: (path: string) => Effect.Effect<Moment, Errors.NoSuchActor>
  }
>()("ironwood/actor/Tree") {}
