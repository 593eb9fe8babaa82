/**
 * A setting: a value that a person may change while everything runs, as the one actor that does what it says sees it. It
 * reads what is wanted, does it, reports what came of it, and waits for the next.
 *
 * Whoever changes the value waits for that report, so that the answer to a person is what happened and not what was hoped.
 */
import * as Effect from "effect/Effect"

export interface Setting<out A> {
  /** What is wanted now. */
  readonly current: Effect.Effect<A>
  /** Waits until something else is wanted than `seen`, the value that `current` gave. */
  readonly changed: (seen: unknown) => Effect.Effect<void>
  /** `seen` has been done; or not, or only in part, and why. Empty: all of it. */
  readonly report: (seen: unknown, problem: string) => Effect.Effect<void>
}

/** One that never changes, for what nobody can configure. */
export const constant = <A>(value: A): Setting<A> => ({
  current: Effect.succeed(value),
  changed: () => Effect.never,
  report: () => Effect.void
})
