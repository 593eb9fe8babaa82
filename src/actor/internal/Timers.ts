/**
 * All timers of a tree, in one heap: a hundred thousand deadlines cost one sleep, of the earliest.
 *
 * Arming and cancelling cost O(log n) and no fiber. What is due at the same time fires in the order in which it was armed.
 * Nothing sleeps while no timer runs, so none is left behind at the end.
 */

/** Ends a timer before its time; does nothing afterwards. */
export type Cancel = () => void

/** What it takes from the engine. */
export interface TimerClock {
  /** Monotonic milliseconds. */
  readonly monotonic: () => number
  /** Calls `wake` in so many milliseconds, or a little early. */
  readonly sleep: (milliseconds: number, wake: () => void) => Cancel
  /** Has `task` carried out as soon as may be. */
  readonly post: (task: () => void) => void
}

interface Timer {
  readonly due: number
  /** The how manieth timer it is. */
  readonly number: number
  /** Absent once it is cancelled or carried out. */
  task: (() => void) | undefined
  /** Where it stands in the heap; -1 when it does not any more. */
  place: number
}

/** Clocks count in nanoseconds and sleep in milliseconds: what is due within this is due. */
const TOLERANCE = 0.001

const isBefore = (left: Timer, right: Timer): boolean =>
  left.due < right.due || (left.due === right.due && left.number < right.number)

export class Timers {
  readonly #clock: TimerClock
  /** A binary heap, the earliest first. */
  readonly #heap: Array<Timer> = []
  #count = 0
  #sleep: { readonly until: number; readonly cancel: Cancel } | undefined

  constructor(clock: TimerClock) {
    this.#clock = clock
  }

  /** Those that run. */
  get size(): number {
    return this.#heap.length
  }

  /** Posts `task` in so many milliseconds. */
  after(milliseconds: number, task: () => void): Cancel {
    const timer: Timer = {
      due: this.#clock.monotonic() + milliseconds,
      number: this.#count++,
      task,
      place: this.#heap.length
    }
    this.#heap.push(timer)
    this.#rise(timer)
    this.#rest()
    return () => {
      timer.task = undefined
      if (timer.place < 0) return
      this.#take(timer)
      this.#rest()
    }
  }

  /** Sees to it that somebody wakes this for the earliest; one that wakes it too early does no harm. */
  #rest(): void {
    const [first] = this.#heap
    if (first !== undefined && this.#sleep !== undefined && this.#sleep.until <= first.due) return
    this.#sleep?.cancel()
    this.#sleep = undefined
    if (first === undefined) return
    const wait = Math.max(0, first.due - this.#clock.monotonic())
    let awake = false
    const cancel = this.#clock.sleep(wait, () => {
      awake = true
      this.#sleep = undefined
      this.#fire()
    })
    // It may have been no time at all.
    if (!awake) this.#sleep = { until: first.due, cancel }
  }

  #fire(): void {
    const now = this.#clock.monotonic() + TOLERANCE
    for (let [first] = this.#heap; first !== undefined && first.due <= now; [first] = this.#heap) {
      this.#take(first)
      this.#post(first)
    }
    this.#rest()
  }

  #post(timer: Timer): void {
    this.#clock.post(() => {
      const { task } = timer
      timer.task = undefined
      task?.()
    })
  }

  #take(timer: Timer): void {
    const { place } = timer
    timer.place = -1
    const last = this.#heap.pop()
    if (last === undefined || last === timer) return
    this.#put(last, place)
    this.#rise(last)
    this.#sink(last)
  }

  #put(timer: Timer, place: number): void {
    timer.place = place
    this.#heap[place] = timer
  }

  #rise(timer: Timer): void {
    while (timer.place > 0) {
      const { place } = timer
      const above = this.#heap[(place - 1) >> 1]
      if (above === undefined || !isBefore(timer, above)) return
      this.#put(timer, above.place)
      this.#put(above, place)
    }
  }

  #sink(timer: Timer): void {
    for (;;) {
      const { place } = timer
      const left = this.#heap[2 * place + 1]
      const right = this.#heap[2 * place + 2]
      const below = right !== undefined && left !== undefined && isBefore(right, left) ? right : left
      if (below === undefined || !isBefore(below, timer)) return
      this.#put(timer, below.place)
      this.#put(below, place)
    }
  }
}
