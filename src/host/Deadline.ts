/**
 * A deadline for what may hang where nobody can end it: a mount, a module whose driver waits for its device, a program that is
 * stuck in the kernel.
 *
 * `Effect.timeout` is for everything else. It interrupts what it times and then waits until that has ended, so it answers late,
 * or never, where an acquisition or a release hangs: these cannot be interrupted.
 *
 * Trap: what is left behind goes on. When it ends after all, its own releases run, and what it answers is lost; so what it must
 * not do then belongs behind the deadline, not under it.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/** What `self` answers within the time, else `orElse`, at once: `self` is interrupted, and nobody waits for its end. */
export const within = <A, E, R, A2, E2, R2>(
  self: Effect.Effect<A, E, R>,
  { duration, orElse }: { readonly duration: Duration.Input; readonly orElse: () => Effect.Effect<A2, E2, R2> }
): Effect.Effect<A | A2, E | E2, R | R2> =>
  Effect.gen(function* () {
    // what it is started with may be that it cannot be interrupted
    const fiber = yield* Effect.forkDetach(Effect.interruptible(self))
    return yield* Fiber.join(fiber).pipe(
      Effect.timeoutOrElse({
        duration,
        orElse: () =>
          Effect.suspend(() => {
            fiber.interruptUnsafe()
            return orElse()
          })
      }),
      Effect.onInterrupt(() => Fiber.interrupt(fiber))
    )
  })
