/**
 * How many restarts a budget counts, when only "fewer than `limit` or not" matters: sliding (those in the last so many
 * milliseconds) or tumbling (those since the start that opened the window).
 *
 * The sliding one is a ring of at most `limit` times: recording and counting cost O(1) (amortised), whatever the history;
 * nothing is allocated before the first restart and the ring grows only as far as it is used.
 *
 * Trap: times must not go backward; take them from a monotonic clock.
 */
import * as Duration from "effect/Duration"
import type { Budget } from "../RestartPolicy.ts"

/** What a budget counts, and how. */
export interface SpentWindow {
  readonly limit: number
  /** What counts at `now` against a restart made `delay` later; never more than `limit`. */
  count(now: number, delay?: number): number
  /** Records a restart decided on at `now` and made `delay` later. */
  record(now: number, delay?: number): void
  /** Hears of a start at `now` that is no restart. */
  started(now: number): void
  /** The times that count, oldest first. */
  times(now: number): ReadonlyArray<number>
}

/** The window of a budget. */
export const windowOf = ({ restarts, window, within }: Budget): SpentWindow =>
  window === "tumbling"
    ? new TumblingWindow(restarts, Duration.toMillis(within))
    : new RestartWindow(restarts, Duration.toMillis(within))

/** Tumbling: counts starts, see `RestartPolicy.Window`. A restart counts when it is made, not when it is decided on. */
export class TumblingWindow implements SpentWindow {
  readonly limit: number
  readonly within: number
  #opened: number | undefined
  #starts = 0

  constructor(limit: number, within: number) {
    this.limit = limit
    this.within = within
  }

  count(now: number, delay = 0): number {
    return this.#opened === undefined || now + delay - this.#opened > this.within ? 0 : this.#starts
  }

  record(now: number, delay = 0): void {
    const at = now + delay
    if (this.count(at) === 0) {
      this.#opened = at
      this.#starts = 0
    }
    this.#starts = Math.min(this.limit, this.#starts + 1)
  }

  started(now: number): void {
    this.record(now)
  }

  times(now: number): ReadonlyArray<number> {
    return Array.from({ length: this.count(now) }, () => this.#opened ?? now)
  }
}

/** Sliding. */
export class RestartWindow implements SpentWindow {
  readonly limit: number
  readonly within: number
  #times: Float64Array<ArrayBuffer> | undefined
  #oldest = 0
  #size = 0

  /** Restarts `limit`, within `within` milliseconds. */
  constructor(limit: number, within: number) {
    this.limit = limit
    this.within = within
  }

  /** Restarts recorded less than `within` before `now`; never more than `limit`. */
  count(now: number): number {
    const times = this.#times
    if (times === undefined) return 0
    while (this.#size > 0 && now - (times[this.#oldest] ?? 0) >= this.within) {
      this.#oldest = (this.#oldest + 1) % times.length
      this.#size--
    }
    return this.#size
  }

  /** A start that is no restart does not count. */
  started(): void {}

  times(now: number): ReadonlyArray<number> {
    const size = this.count(now)
    const times = this.#times
    if (times === undefined) return []
    return Array.from({ length: size }, (_, index) => times[(this.#oldest + index) % times.length] ?? 0)
  }

  /** Records a restart at `now`; the oldest is forgotten when there are more than `limit`. */
  record(now: number): void {
    if (this.limit === 0) return
    let times = this.#times
    if (times === undefined || (this.#size === times.length && times.length < this.limit)) {
      times = this.#grow(times)
    }
    if (this.#size === times.length) {
      this.#oldest = (this.#oldest + 1) % times.length
      this.#size--
    }
    times[(this.#oldest + this.#size) % times.length] = now
    this.#size++
  }

  #grow(old: Float64Array<ArrayBuffer> | undefined): Float64Array<ArrayBuffer> {
    const times = new Float64Array(Math.min(this.limit, old === undefined ? 8 : old.length * 4))
    if (old !== undefined) {
      for (let index = 0; index < this.#size; index++) times[index] = old[(this.#oldest + index) % old.length] ?? 0
    }
    this.#oldest = 0
    this.#times = times
    return times
  }
}
