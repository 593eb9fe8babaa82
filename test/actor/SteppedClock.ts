/**
 * The clock of a test whose wall time is set forward and back, as by a person or by NTP, while lengths of time go on as they
 * did. Trap: `Root.start` takes the clock that is there when it is called.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

export class SteppedClock implements Clock.Clock {
  readonly #clock: Clock.Clock
  /** Milliseconds by which the wall time is off. */
  offset = 0

  constructor(clock: Clock.Clock) {
    this.#clock = clock
  }

  currentTimeMillisUnsafe(): number {
    return this.#clock.currentTimeMillisUnsafe() + this.offset
  }
  readonly currentTimeMillis = Effect.sync(() => this.currentTimeMillisUnsafe())

  currentTimeNanosUnsafe(): bigint {
    return this.#clock.currentTimeNanosUnsafe() + BigInt(this.offset) * 1_000_000n
  }
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())

  monotonicTimeNanosUnsafe(): bigint {
    return this.#clock.monotonicTimeNanosUnsafe()
  }
  readonly monotonicTimeNanos = Effect.sync(() => this.monotonicTimeNanosUnsafe())

  sleep(...given: Parameters<Clock.Clock["sleep"]>): Effect.Effect<void> {
    return this.#clock.sleep(...given)
  }
}
