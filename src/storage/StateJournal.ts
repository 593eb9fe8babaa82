/**
 * The tree's journal in the state database: what `actor` must know again after the brain died (revisions, counters, last
 * exits, histories).
 *
 * An append returns when its records are durable. When the disk cannot take them (full, stalled), it returns after
 * `APPEND_DEADLINE` all the same, so supervision goes on; the records wait here within bounds and are written when the
 * disk can again. Beyond the bounds the oldest history is dropped, and counted. Counters and last exits never are: of
 * these only the newest per actor waits.
 *
 * Rows are bounded per actor and in total. The pretty-printed cause of an exit is kept for defects only: rendering it
 * costs more than a restart, and of a typed failure the tag and the message say it all.
 *
 * Traps:
 * - A brain that starts on a full disk and cannot reserve revisions, and is killed before there is room, may be followed
 *   by one that shows the same revisions again. (Space of the log is reused, so a reservation mostly fits.)
 * - A row that does not decode is left out of `load`; a warning tells how many.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { ActorPath } from "../actor/ActorPath.ts"
import type { ExitView } from "../actor/ExitView.ts"
import {
  EntryRecord,
  HISTORY_LIMIT,
  Journal,
  type JournalRecord,
  type JournalState,
  NodeRecord
} from "../actor/Journal.ts"
import type { HistoryEntry } from "../actor/Tree.ts"
import { StateConnection } from "./StateConnection.ts"
import type { Change, JournalBounds, JournalRow } from "./StateProtocol.ts"

/** How long an append waits for the disk. */
export const APPEND_DEADLINE = Duration.seconds(5)

/** Between attempts to write what the disk did not take. */
const retryDelay = Schedule.min([Schedule.exponential("1 second"), Schedule.spaced("30 seconds")])

export interface Options {
  readonly bounds?: JournalBounds
  /** History entries that may wait for the disk. */
  readonly maxWaiting?: number
}

const defaultBounds: JournalBounds = { nodes: 200_000, entriesPerActor: HISTORY_LIMIT, entries: 100_000 }

/** Counts since the layer was built. */
export interface Statistics {
  readonly appended: number
  /** History that was lost because the disk took none for too long. */
  readonly dropped: number
  /** Records that wait for the disk now. */
  readonly waiting: number
}

/** What the journal tells about itself. */
export class StateJournal extends Context.Service<StateJournal, { readonly statistics: Effect.Effect<Statistics> }>()(
  "ironwood/storage/StateJournal"
) {}

const withoutStack = (exit: ExitView | undefined): ExitView | undefined =>
  exit === undefined
    ? undefined
    : {
        at: exit.at,
        class: exit.class,
        tag: exit.tag,
        message: exit.message,
        detail: exit.class === "defect" ? exit.detail : "",
        beforeReady: exit.beforeReady,
        facts: exit.facts,
        causes: exit.causes
      }

// What the tree says of itself is JSON as it is, and needs no schema on its way out: a start of a container writes five rows.
// On its way in it does: another version may have written it.
const encodeNode = ({ path, incarnation, restarts, attempt, lastExit, rest, spent, ruleRestarts }: NodeRecord) =>
  JSON.stringify({ path, incarnation, restarts, attempt, lastExit: withoutStack(lastExit), rest, spent, ruleRestarts })

const encodeEntry = (entry: HistoryEntry) =>
  JSON.stringify({
    at: entry.at,
    revision: entry.revision,
    event: entry.event,
    incarnation: entry.incarnation,
    exit: withoutStack(entry.exit),
    decision: entry.decision,
    reason: entry.reason,
    because: entry.because,
    delay: entry.delay,
    nextAt: entry.nextAt
  })

/** Deletes the oldest of a set or map above a bound. */
const keepNewest = (
  keyed: { readonly size: number; keys(): Iterable<string>; delete(key: string): boolean },
  limit: number
) => {
  for (const key of keyed.keys()) {
    if (keyed.size <= limit) return
    keyed.delete(key)
  }
}

/** What waits for the disk: the newest of every actor, and the history within a bound. */
class Waiting {
  reserve: number | undefined
  readonly removed = new Set<string>()
  readonly nodes = new Map<string, JournalRow>()
  entries: Array<JournalRow> = []
  /** Appends to be told when all this is durable. */
  readonly appends = new Set<Deferred.Deferred<void>>()

  get size(): number {
    return this.removed.size + this.nodes.size + this.entries.length + (this.reserve === undefined ? 0 : 1)
  }

  add(records: ReadonlyArray<JournalRecord>): void {
    // How many of the entries came before the removal of their actor.
    const removedAt = new Map<string, number>()
    for (const record of records) {
      switch (record._tag) {
        case "Reserve":
          this.reserve = Math.max(this.reserve ?? 0, record.ceiling)
          break
        case "Node": {
          const { path } = record.node
          this.nodes.set(path, { path, value: encodeNode(record.node) })
          break
        }
        case "Entry":
          this.entries.push({ path: record.path, value: encodeEntry(record.entry) })
          break
        case "Removed":
          this.removed.add(record.path)
          this.nodes.delete(record.path)
          removedAt.set(record.path, this.entries.length)
          break
      }
    }
    this.#forget((path) => removedAt.get(path) ?? 0, removedAt.size)
  }

  /** Puts what `later` holds behind this. */
  append(later: Waiting): void {
    if (later.reserve !== undefined) this.reserve = Math.max(this.reserve ?? 0, later.reserve)
    for (const path of later.removed) {
      this.removed.add(path)
      this.nodes.delete(path)
    }
    this.#forget((path) => (later.removed.has(path) ? this.entries.length : 0), later.removed.size)
    for (const [path, row] of later.nodes) this.nodes.set(path, row)
    this.entries = this.entries.concat(later.entries)
    for (const append of later.appends) this.appends.add(append)
  }

  /** Drops what is above the bounds, oldest first; answers how many history entries that were. */
  trim(bounds: JournalBounds, maxEntries: number): number {
    keepNewest(this.nodes, bounds.nodes)
    keepNewest(this.removed, bounds.nodes)
    const above = Math.max(0, this.entries.length - maxEntries)
    if (above > 0) this.entries = this.entries.slice(above)
    return above
  }

  /** Drops the first so and so many entries where they are of a removed actor. */
  #forget(before: (path: string) => number, removed: number): void {
    if (removed > 0) this.entries = this.entries.filter((entry, index) => index >= before(entry.path))
  }

  change(bounds: JournalBounds): Change {
    return {
      _tag: "Journal",
      reserve: this.reserve,
      removed: [...this.removed],
      nodes: [...this.nodes.values()],
      entries: this.entries,
      bounds
    }
  }
}

const Row = <A, I>(value: Schema.Codec<A, I>) => Schema.toCodecJson(Schema.Tuple([ActorPath, value]))

/** Hands the rows of a part of the journal to `keep`; answers how many do not decode. */
const makeReader = <A, I>(schema: Schema.Codec<A, I>) => {
  // A part is decoded as a whole, which takes half the time; row by row only to find the bad ones.
  const decodePart = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Array(Row(schema))))
  const decodeJson = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Array(Schema.Unknown)))
  const decodeRow = Schema.decodeUnknownResult(Row(schema))
  return (part: string, keep: (path: string, value: A) => void): number => {
    const whole = decodePart(part)
    if (Result.isSuccess(whole)) {
      for (const [path, value] of whole.success) keep(path, value)
      return 0
    }
    let unreadable = 0
    for (const json of Result.getOrElse(decodeJson(part), () => [])) {
      const row = decodeRow(json)
      if (Result.isSuccess(row)) keep(...row.success)
      else unreadable++
    }
    return unreadable
  }
}
const readNodes = makeReader(NodeRecord)
const readEntries = makeReader(EntryRecord)

const load = (connection: StateConnection["Service"]): Effect.Effect<JournalState> =>
  Effect.gen(function* () {
    let revision = 0
    let unreadable = 0
    const nodes = new Map<string, NodeRecord>()
    const history = new Map<string, Array<HistoryEntry>>()
    yield* connection.loadJournal((part) => {
      revision = Math.max(revision, part.reserved)
      unreadable += readNodes(part.nodes, (path, node) => nodes.set(path, node))
      unreadable += readEntries(part.entries, (path, entry) => {
        const entries = history.get(path)
        if (entries === undefined) history.set(path, [entry])
        else entries.push(entry)
      })
    })
    if (unreadable > 0) yield* Effect.logWarning(`${unreadable} rows of the journal could not be read and are left out`)
    return { revision, nodes, history }
  }).pipe(
    // The database was open a moment ago; what meets us here passes, or the brain cannot start anyway.
    Effect.retry({ schedule: Schedule.spaced("200 millis"), times: 10 }),
    Effect.orDie
  )

const make = Effect.fnUntraced(function* (options: Options) {
  const connection = yield* StateConnection
  const bounds = options.bounds ?? defaultBounds
  const maxWaiting = options.maxWaiting ?? 10_000
  const work = yield* Latch.make(false)
  let waiting = new Waiting()
  let appended = 0
  let dropped = 0

  /** Writes all that waits now. When that fails it waits again, before what came meanwhile. */
  const flush = Effect.suspend(() => {
    const batch = waiting
    waiting = new Waiting()
    if (batch.size === 0) return Effect.void
    return connection.transact([batch.change(bounds)]).pipe(
      Effect.tapError(() =>
        Effect.sync(() => {
          batch.append(waiting)
          waiting = batch
          dropped += waiting.trim(bounds, maxWaiting)
        })
      ),
      Effect.flatMap(() =>
        Effect.sync(() => {
          appended += batch.size
          for (const append of batch.appends) Deferred.doneUnsafe(append, Effect.void)
        })
      )
    )
  })
  const writer = flush.pipe(
    Effect.tapError((error) => Effect.logWarning(`the journal waits for the disk: ${error.message}`)),
    Effect.retry(retryDelay),
    Effect.andThen(Effect.suspend(() => (waiting.size === 0 ? Effect.andThen(work.close, work.await) : Effect.void))),
    Effect.forever
  )
  yield* Effect.addFinalizer(() => Effect.ignore(Effect.timeout(flush, "2 seconds")))
  yield* Effect.forkScoped(writer)

  const append = (records: ReadonlyArray<JournalRecord>): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (records.length === 0) return Effect.void
      waiting.add(records)
      dropped += waiting.trim(bounds, maxWaiting)
      const durable = Deferred.makeUnsafe<void>()
      waiting.appends.add(durable)
      return work.open.pipe(
        Effect.andThen(Deferred.await(durable)),
        Effect.timeoutOrElse({
          duration: APPEND_DEADLINE,
          orElse: () => Effect.sync(() => void waiting.appends.delete(durable))
        })
      )
    })

  return Context.make(Journal, { load: load(connection), append }).pipe(
    Context.add(StateJournal, {
      statistics: Effect.sync(() => ({ appended, dropped, waiting: waiting.size }))
    })
  )
})

/** The journal of the tree, on the database of the `State` layer. */
export const layer = (options: Options = {}): Layer.Layer<StateJournal, never, StateConnection> =>
  Layer.effectContext(make(options))
