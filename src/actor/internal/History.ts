/**
 * The last events of one actor's life, without any room that is not used. Most actors of a healthy tree have one event,
 * their start, and there may be a hundred thousand of them: that one is its own history. Several are in a ring.
 */
import { HISTORY_LIMIT } from "../Journal.ts"
import type { HistoryEntry } from "../Tree.ts"

/** Nothing, one event, or several. */
export type History = undefined | HistoryEntry | HistoryRing

const none: ReadonlyArray<HistoryEntry> = []

class HistoryRing {
  #entries: Array<HistoryEntry>
  #oldest = 0

  constructor(first: HistoryEntry, second: HistoryEntry) {
    this.#entries = [first, second]
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

/** The history with one more event; it may be the same one. */
export const remember = (history: History, entry: HistoryEntry): History => {
  if (history === undefined) return entry
  if (!(history instanceof HistoryRing)) return new HistoryRing(history, entry)
  history.push(entry)
  return history
}

/** Oldest first. */
export const toArray = (history: History): ReadonlyArray<HistoryEntry> =>
  history === undefined ? none : history instanceof HistoryRing ? history.toArray() : [history]
