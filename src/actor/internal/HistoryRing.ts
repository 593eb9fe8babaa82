/**
 * The last events of one actor's life: a ring that allocates no more than it holds. Most actors of a healthy tree have
 * one event, their start, and there may be a hundred thousand of them.
 */
import { HISTORY_LIMIT } from "../Journal.ts"
import type { HistoryEntry } from "../Tree.ts"

export class HistoryRing {
  #entries: Array<HistoryEntry>
  #oldest = 0

  constructor(first: HistoryEntry) {
    this.#entries = [first]
  }

  /** Adds an entry; beyond {@link HISTORY_LIMIT} the oldest goes. */
  push(entry: HistoryEntry): void {
    if (this.#entries.length < HISTORY_LIMIT) {
      // Not pushed: that would make room for seventeen.
      this.#entries = [...this.#entries, entry]
    } else {
      this.#entries[this.#oldest] = entry
      this.#oldest = (this.#oldest + 1) % HISTORY_LIMIT
    }
  }

  /** Oldest first. */
  toArray(): ReadonlyArray<HistoryEntry> {
    return [...this.#entries.slice(this.#oldest), ...this.#entries.slice(0, this.#oldest)]
  }
}
