/**
 * The limit on restarts of a whole tree: a token bucket, and a fair queue of those that wait for a token.
 *
 * A storm of crashes (a disk is gone, a dependency answers nobody) must not starve the host that would have to heal it.
 * Each child waits at most once, so the queue is round-robin between children. There are two, for first ends and for
 * repeated ones, that take turns: what crashed once does not wait behind a thousand that crash all the time.
 */
import type { Cancel } from "./Engine.ts"

/** `perSecond` restarts in the long run, `burst` at once after a quiet time. */
export interface RestartRate {
  readonly perSecond: number
  readonly burst: number
}

interface Waiting {
  start: (() => void) | undefined
}

/** What it takes from the engine: monotonic milliseconds and timers. */
export interface GateClock {
  readonly monotonic: () => number
  readonly after: (milliseconds: number, task: () => void) => Cancel
}

/** First in, first out; what was cancelled is passed over. */
class Line {
  #waiting: Array<Waiting> = []
  #head = 0

  push(entry: Waiting): void {
    this.#waiting.push(entry)
  }

  /** The first that still waits; drops those before it that do not any more. */
  take(): Waiting | undefined {
    while (this.#head < this.#waiting.length) {
      const entry = this.#waiting[this.#head++]
      if (this.#head > this.#waiting.length / 2) {
        this.#waiting = this.#waiting.slice(this.#head)
        this.#head = 0
      }
      if (entry?.start !== undefined) return entry
    }
    return undefined
  }
}

export class RestartGate {
  readonly #rate: RestartRate
  readonly #clock: GateClock
  readonly #first = new Line()
  readonly #repeated = new Line()
  #repeatedNext = false
  #tokens: number
  #filledAt: number
  #timer: Cancel | undefined
  /** Those that wait. */
  waiting = 0

  constructor(rate: RestartRate, clock: GateClock) {
    this.#rate = rate
    this.#clock = clock
    this.#tokens = rate.burst
    this.#filledAt = clock.monotonic()
  }

  /** Calls `start` at once, or when its turn has come. `repeated`: not the first end in a row. Answers how not to. */
  admit(repeated: boolean, start: () => void): Cancel {
    this.#fill()
    if (this.waiting === 0 && this.#tokens >= 1) {
      this.#tokens--
      start()
      return () => {}
    }
    const entry: Waiting = { start }
    this.waiting++
    ;(repeated ? this.#repeated : this.#first).push(entry)
    this.#arm()
    return () => {
      if (entry.start === undefined) return
      entry.start = undefined
      this.waiting--
      if (this.waiting > 0) return
      this.#timer?.()
      this.#timer = undefined
    }
  }

  /** How long one that begins to wait now may have to, in words. */
  describe(): string {
    const { perSecond } = this.#rate
    return `all restarts together are held to ${perSecond} per second, and ${this.waiting} wait`
  }

  #fill(): void {
    const now = this.#clock.monotonic()
    this.#tokens = Math.min(this.#rate.burst, this.#tokens + ((now - this.#filledAt) * this.#rate.perSecond) / 1_000)
    this.#filledAt = now
  }

  #arm(): void {
    if (this.#timer !== undefined || this.waiting === 0) return
    // A whole millisecond at least, so that rounding never makes it spin.
    const wait = Math.max(1, Math.ceil(((1 - this.#tokens) * 1_000) / this.#rate.perSecond))
    this.#timer = this.#clock.after(wait, () => {
      this.#timer = undefined
      this.#fill()
      while (this.#tokens >= 1) {
        const entry = this.#next()
        if (entry === undefined) break
        const { start } = entry
        entry.start = undefined
        this.waiting--
        this.#tokens--
        start?.()
      }
      this.#arm()
    })
  }

  #next(): Waiting | undefined {
    const [one, other] = this.#repeatedNext ? [this.#repeated, this.#first] : [this.#first, this.#repeated]
    this.#repeatedNext = !this.#repeatedNext
    return one.take() ?? other.take()
  }
}
