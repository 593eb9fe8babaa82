/**
 * Writes behind the changes: collects what the journal must keep and appends it in batches, one at a time.
 *
 * However slow the journal is, what waits is bounded: one record per changed actor and the last entries of each.
 */
import type * as ActorPath from "../ActorPath.ts"
import { HISTORY_LIMIT, type JournalRecord, type NodeRecord } from "../Journal.ts"
import type { HistoryEntry, Revision } from "../Tree.ts"

/** Revisions reserved at a time; a new block is asked for when half of one is used. */
export const BLOCK = 1_000_000

/** Who can tell what is to be kept of an actor. */
export interface Recorded {
  record(): NodeRecord
}

interface Dirty {
  removed: boolean
  recorded: Recorded | undefined
  entries: Array<HistoryEntry>
}

export class JournalWriter {
  #dirty = new Map<ActorPath.ActorPath, Dirty>()
  #ceiling: Revision
  #reserved: Revision
  #busy = false
  #whenIdle: Array<() => void> = []
  readonly #write: (records: ReadonlyArray<JournalRecord>, done: () => void) => void

  /** `write` appends in a fiber of its own and calls `done` when that has ended. `ceiling` is durable already. */
  constructor(ceiling: Revision, write: (records: ReadonlyArray<JournalRecord>, done: () => void) => void) {
    this.#ceiling = ceiling
    this.#reserved = ceiling
    this.#write = write
  }

  /** Actors of which something waits to be written; for leak checks. */
  get size(): number {
    return this.#dirty.size
  }

  #of(path: ActorPath.ActorPath): Dirty {
    let dirty = this.#dirty.get(path)
    if (dirty === undefined) {
      dirty = { removed: false, recorded: undefined, entries: [] }
      this.#dirty.set(path, dirty)
    }
    return dirty
  }

  /** The actor changed; `recorded` is asked when the batch is written, so it tells the newest state. */
  changed(path: ActorPath.ActorPath, recorded: Recorded, entry: HistoryEntry | undefined): void {
    const dirty = this.#of(path)
    dirty.recorded = recorded
    if (entry === undefined) return
    dirty.entries.push(entry)
    if (dirty.entries.length > 2 * HISTORY_LIMIT) dirty.entries = dirty.entries.slice(-HISTORY_LIMIT)
  }

  removed(path: ActorPath.ActorPath): void {
    const dirty = this.#of(path)
    dirty.removed = true
    dirty.recorded = undefined
    dirty.entries = []
  }

  /** Writes what waits, unless a write is under way (which then goes on with it). */
  flush(revision: Revision): void {
    const reserve = revision > this.#ceiling - BLOCK / 2 && this.#reserved === this.#ceiling
    if (this.#busy) return
    if (this.#dirty.size === 0 && !reserve) {
      for (const then of this.#whenIdle.splice(0)) then()
      return
    }
    const records: Array<JournalRecord> = []
    if (reserve) {
      this.#reserved = this.#ceiling + BLOCK
      records.push({ _tag: "Reserve", ceiling: this.#reserved })
    }
    for (const [path, dirty] of this.#dirty) {
      if (dirty.removed) records.push({ _tag: "Removed", path })
      if (dirty.recorded !== undefined) records.push({ _tag: "Node", node: dirty.recorded.record() })
      for (const entry of dirty.entries.slice(-HISTORY_LIMIT)) records.push({ _tag: "Entry", path, entry })
    }
    this.#dirty = new Map()
    this.#busy = true
    this.#write(records, () => {
      this.#busy = false
      this.#ceiling = this.#reserved
    })
  }

  /** Calls `then` when nothing waits and no write is under way, at the next {@link flush} that finds it so. */
  whenIdle(then: () => void): void {
    this.#whenIdle.push(then)
  }
}
