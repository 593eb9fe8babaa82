/** The last events of one actor's life: a ring that allocates only what it holds. */
import { HISTORY_LIMIT } from "../Journal.ts"
import type { HistoryEntry } from "../Tree.ts"

export class HistoryRing {
  #entries: Array<HistoryEntry> = []
  #oldest = 0

  /** Adds an entry; beyond {@link HISTORY_LIMIT} the oldest goes. */
  push(entry: HistoryEntry): void {
    if (this.#entries.length < HISTORY_LIMIT) {
      this.#entries.push(entry)
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
