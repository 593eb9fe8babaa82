/**
 * Where the tree keeps what must outlive the brain: revisions, counters, last exits and histories.
 *
 * The engine loads it once before anything starts and appends in batches behind the changes (never waited for on the
 * restart path). By default nothing is kept beyond the process; `storage` gives the SQLite one.
 *
 * Contract of an implementation:
 * - `load` answers the highest `ceiling` ever appended, the last record per path and the last entries per path.
 * - `append` returns when the records are durable. It must not fail: an implementation that cannot write (full disk)
 *   says so in its own way and returns; supervision goes on.
 * - The engine shows no revision above a `ceiling` whose append has returned, so revisions never go back.
 * - At most one `append` runs at a time. `Removed` means that record and entries of this path may be deleted.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { ActorPath } from "./ActorPath.ts"
import { ExitView } from "./ExitView.ts"
import type { HistoryEntry } from "./Tree.ts"

/** How an actor rested: ended, and not about to be started at once. `since` and `nextAttemptAt` are milliseconds since 1970. */
export const Rest = Schema.Struct({
  state: Schema.Literals(["backing-off", "parked", "finished", "failed", "stopped"]),
  since: Schema.Finite,
  nextAttemptAt: Schema.optional(Schema.Finite),
  fallback: Schema.optional(Schema.String)
})
export interface Rest {
  readonly state: "backing-off" | "parked" | "finished" | "failed" | "stopped"
  readonly since: number
  readonly nextAttemptAt?: number | undefined
  /** Parked: the sibling that runs in its place. */
  readonly fallback?: string | undefined
}

/** Restarts kept of a budget: a larger one has that many more after a restart of the brain. */
export const SPENT_LIMIT = 64

/** What is kept of one actor. That a person stopped it is not: desired state belongs to the one who commits it. */
export const NodeRecord = Schema.Struct({
  path: ActorPath,
  incarnation: Schema.Int,
  restarts: Schema.Int,
  attempt: Schema.Int,
  lastExit: Schema.optional(ExitView),
  rest: Schema.optional(Rest),
  spent: Schema.optional(Schema.Array(Schema.Finite)),
  ruleRestarts: Schema.optional(Schema.Array(Schema.Int))
})
export interface NodeRecord {
  readonly path: ActorPath
  readonly incarnation: number
  readonly restarts: number
  readonly attempt: number
  readonly lastExit?: ExitView | undefined
  /** Used by actors that `resume`. */
  readonly rest?: Rest | undefined
  /** When the restarts were made that its own budget counts: milliseconds since 1970, oldest first. */
  readonly spent?: ReadonlyArray<number> | undefined
  /** Restarts by each rule of its policy since the last healthy run, in the rules' order. */
  readonly ruleRestarts?: ReadonlyArray<number> | undefined
}

/** Stored form of a history entry. */
export const EntryRecord = Schema.Struct({
  at: Schema.Finite,
  revision: Schema.Int,
  event: Schema.Literals([
    "started",
    "adopted",
    "ended",
    "start-failed",
    "ignored",
    "stopped",
    "released",
    "killed",
    "abandoned",
    "stop-hook-failed",
    "policy-changed",
    "held-back"
  ]),
  incarnation: Schema.Int,
  exit: Schema.optional(ExitView),
  decision: Schema.Literals([
    "restart",
    "park",
    "fallback",
    "restart-group",
    "reboot-host",
    "escalate",
    "finish",
    "none"
  ]),
  reason: Schema.String,
  because: Schema.optional(ActorPath),
  delay: Schema.optional(Schema.Finite),
  nextAt: Schema.optional(Schema.Finite)
})

/** One thing to keep. */
export type JournalRecord =
  /** From now on revisions up to `ceiling` may be shown. */
  | { readonly _tag: "Reserve"; readonly ceiling: number }
  | { readonly _tag: "Node"; readonly node: NodeRecord }
  | { readonly _tag: "Entry"; readonly path: ActorPath; readonly entry: HistoryEntry }
  | { readonly _tag: "Removed"; readonly path: ActorPath }

/** Everything kept by earlier brains. */
export interface JournalState {
  /** The highest ceiling ever reserved; 0 in the beginning. */
  readonly revision: number
  readonly nodes: ReadonlyMap<string, NodeRecord>
  /** Oldest first; at most the last {@link HISTORY_LIMIT} per path are used. */
  readonly history: ReadonlyMap<string, ReadonlyArray<HistoryEntry>>
}

/** Entries kept per actor, in memory and by a journal. */
export const HISTORY_LIMIT = 32

export interface JournalService {
  readonly load: Effect.Effect<JournalState>
  readonly append: (records: ReadonlyArray<JournalRecord>) => Effect.Effect<void>
}

const nothing: JournalState = { revision: 0, nodes: new Map(), history: new Map() }

/** Keeps nothing: what outlives the process was never meant to. */
export const forgetful: JournalService = { load: Effect.succeed(nothing), append: () => Effect.void }

/** The journal of the tree. By default it is {@link forgetful}. */
export const Journal = Context.Reference<JournalService>("ironwood/actor/Journal", {
  defaultValue: () => forgetful
})

/** A journal in memory: outlives a root, not the process. For tests of a brain's restart. */
export const makeMemory: Effect.Effect<JournalService> = Effect.sync(() => {
  let revision = 0
  const nodes = new Map<string, NodeRecord>()
  const history = new Map<string, ReadonlyArray<HistoryEntry>>()
  const keep = (record: JournalRecord): void => {
    switch (record._tag) {
      case "Reserve":
        revision = Math.max(revision, record.ceiling)
        return
      case "Node":
        nodes.set(record.node.path, record.node)
        return
      case "Entry":
        history.set(record.path, [...(history.get(record.path) ?? []), record.entry].slice(-HISTORY_LIMIT))
        return
      case "Removed":
        nodes.delete(record.path)
        history.delete(record.path)
        return
    }
  }
  return {
    load: Effect.sync(() => ({ revision, nodes: new Map(nodes), history: new Map(history) })),
    append: (records) => Effect.sync(() => records.forEach(keep))
  }
})
