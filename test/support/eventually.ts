/** Waiting for something that happens soon, without sleeping for longer than it takes and without waiting for ever. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

export class NeverHappened extends Data.TaggedError("NeverHappened")<{ readonly what: string }> {
  override get message(): string {
    return `it did not happen in time: ${this.what}`
  }
}

/** Looks every few milliseconds until it is true, for at most 20 seconds of real time. Not under a TestClock. */
export const eventually = <E = never, R = never>(
  what: string,
  condition: Effect.Effect<boolean, E, R> | (() => boolean)
): Effect.Effect<void, E | NeverHappened, R> =>
  Effect.suspend(() => (typeof condition === "function" ? Effect.sync(condition) : condition)).pipe(
    Effect.filterOrFail(
      (happened) => happened,
      () => new NeverHappened({ what })
    ),
    Effect.retry({ while: (error) => error instanceof NeverHappened, schedule: Schedule.spaced("5 millis") }),
    Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.fail(new NeverHappened({ what })) }),
    Effect.asVoid
  )
