/**
 * How many restarts there were in the last so many milliseconds, when only "fewer than `limit` or not" matters.
 *
 * A ring of at most `limit` times: recording and counting cost O(1) (amortised), whatever the history; nothing is
 * allocated before the first restart and the ring grows only as far as it is used.
 *
 * Trap: times must not go backward; take them from a monotonic clock.
 */
export class RestartWindow {
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

  /** The times that count, oldest first. */
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
