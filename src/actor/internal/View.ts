/**
 * What the tree shows of an actor, made anew with every change: the next view from the last one and what is different, and the
 * entry of its history for what happened. Pure; a `Node` says when.
 */
import type { ActorPath } from "../ActorPath.ts"
import type { ChildSpec } from "../ChildSpec.ts"
import type { ExitView } from "../ExitView.ts"
import type { NodeRecord, Rest } from "../Journal.ts"
import { type ActorState, isAlive } from "../Lifecycle.ts"
import type { Annotations } from "../Self.ts"
import type { HistoryDecision, HistoryEntry, HistoryEvent, Revision, TreeNode } from "../Tree.ts"

/** Most actors come up in the same few lives, so that is said in sentences that all share. */
const readiness: Array<string> = []
export const isReady = (incarnation: number): string =>
  incarnation < 256
    ? (readiness[incarnation] ??= `incarnation ${incarnation} is ready`)
    : `incarnation ${incarnation} is ready`

/** The events that come with another state. */
export const moves: ReadonlySet<HistoryEvent> = new Set([
  "started",
  "adopted",
  "ended",
  "start-failed",
  "ignored",
  "stopped",
  "released"
])

/** Views differ only in these, and in what follows from the state; the rest of a view goes with the place. */
export type Patch = {
  readonly [
    Key in
      | "incarnation"
      | "restarts"
      | "startedAt"
      | "lastExit"
      | "nextAttemptAt"
      | "attempt"
      | "policy"
      | "annotations"
      | "waitingFor"
  ]?: TreeNode[Key]
}

/** What a history entry tells beside the time, the revision and the incarnation. */
export interface Happening {
  readonly event: HistoryEvent
  readonly reason: string
  readonly exit?: ExitView | undefined
  readonly decision?: HistoryDecision
  readonly delay?: number | undefined
  readonly because?: ActorPath | undefined
}

/** Nothing is different but the state. */
export const noPatch: Patch = {}

export const noAnnotations: Annotations = {}
const nobody: ReadonlyArray<string> = []

/** The entry for what happened. */
export const entryOf = (
  view: TreeNode,
  patch: Patch,
  { because, decision = "none", delay, event, exit, reason }: Happening,
  at: number,
  revision: Revision
): HistoryEntry => ({
  at,
  revision,
  event,
  incarnation: patch.incarnation ?? view.incarnation,
  exit,
  decision,
  reason,
  because,
  delay,
  nextAt: delay === undefined ? undefined : at + delay
})

/** What comes with a change whatever it is. */
export interface Change {
  /** The state from now on. */
  readonly state: ActorState
  /** That came of an event of the lifecycle, which may have led to the same state. */
  readonly moved: boolean
  readonly at: number
  readonly revision: Revision
  readonly entry: HistoryEntry | undefined
  readonly budgetLeft: number | undefined
}

/**
 * The view after a change. With a move ends what was waited for; with a back-off its appointment; and what an incarnation said
 * of itself (a pid!) is true no longer when that does not live.
 */
export const nextView = (
  view: TreeNode,
  { description, kind }: Pick<ChildSpec<unknown, never>, "description" | "kind">,
  patch: Patch,
  { at, budgetLeft, entry, moved, revision, state }: Change
): TreeNode => ({
  path: view.path,
  kind,
  description,
  type: view.type,
  strategy: view.strategy,
  state,
  incarnation: patch.incarnation ?? view.incarnation,
  restarts: patch.restarts ?? view.restarts,
  since: state === view.state && patch.incarnation === undefined ? view.since : at,
  startedAt: patch.startedAt ?? view.startedAt,
  lastExit: patch.lastExit ?? view.lastExit,
  nextAttemptAt: patch.nextAttemptAt ?? (state === "backing-off" ? view.nextAttemptAt : undefined),
  attempt: patch.attempt ?? view.attempt,
  policy: patch.policy ?? view.policy,
  budgetLeft,
  annotations: isAlive(state) ? (patch.annotations ?? view.annotations) : noAnnotations,
  waitingFor: patch.waitingFor ?? (moved ? nobody : view.waitingFor),
  entry: moved ? (entry ?? view.entry) : view.entry,
  revision
})

/** How an earlier brain left it, where that is to go on. */
export const restOf = (
  spec: Pick<ChildSpec<unknown, never>, "autoStart" | "resume">,
  record: NodeRecord | undefined
): Rest | undefined => {
  const rest = spec.resume ? record?.rest : undefined
  switch (rest?.state) {
    case "backing-off":
      return spec.autoStart ? rest : undefined
    case "finished":
    case "failed":
    case "stopped":
      return spec.autoStart ? undefined : rest
    default:
      return rest
  }
}
