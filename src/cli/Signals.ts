/**
 * Ctrl-C and its kin as values.
 *
 * Without a claim the first signal interrupts the command (exit code 130). A command that has something to end in order
 * claims them with {@link Signals.claim} for as long as its scope is open, and then decides by itself, also about a second one.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"

/** The signals that ask a command to end. */
export type StopSignal = "SIGINT" | "SIGTERM" | "SIGHUP"

/** All of {@link StopSignal}. */
export const stopSignals: ReadonlyArray<StopSignal> = ["SIGINT", "SIGTERM", "SIGHUP"]

/**
 * One Ctrl-C can arrive several times: the terminal sends it to the whole process group, and npm (or `timeout`, or a shell) hands on
 * what it got itself. Signals that come so soon after one are that one.
 */
const onePressMilliseconds = 1000

/** Gives signals to whoever claims them. */
export class Signals extends Context.Service<
  Signals,
  {
    /** From now on signals come here, until the scope closes. The latest claim gets them. */
    readonly claim: Effect.Effect<Queue.Dequeue<StopSignal>, never, Scope.Scope>
  }
>()("ironwood/cli/Signals") {}

/** A {@link Signals} and the function that feeds it; `deliver` says whether somebody had claimed the signal. */
export const make = (): { readonly layer: Layer.Layer<Signals>; readonly deliver: (signal: StopSignal) => boolean } => {
  const claims: Array<Queue.Queue<StopSignal>> = []
  let pressed = -Infinity
  return {
    deliver: (signal) => {
      const queue = claims.at(-1)
      if (queue === undefined) return false
      const now = performance.now()
      if (now - pressed < onePressMilliseconds) return true
      pressed = now
      Queue.offerUnsafe(queue, signal)
      return true
    },
    layer: Layer.succeed(
      Signals,
      Signals.of({
        claim: Effect.acquireRelease(
          Effect.tap(Queue.unbounded<StopSignal>(), (queue) => Effect.sync(() => void claims.push(queue))),
          (queue) => Effect.sync(() => void claims.splice(claims.indexOf(queue), 1))
        )
      })
    )
  }
}
