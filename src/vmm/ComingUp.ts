/**
 * Taking hold of a machine whose program has just been started, or was started by an earlier brain: its socket is not there yet, or
 * nobody listens there yet, and it may end before anybody does.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { Process } from "../taproot/Processes.ts"
import { ControlLost } from "./Hypervisor.ts"

/** How long a program may take until it answers, emulated or not. */
export const COMING_UP = Duration.seconds(30)

/**
 * What `connect` gives, tried again while nobody is there; fails with what it failed with otherwise, or because the process has
 * ended, or because its time is over.
 */
export const answered = <A, E extends { readonly reason: string }, R>(
  process: Process,
  connect: Effect.Effect<A, E, R>,
  lost: (error: E) => ControlLost
): Effect.Effect<A, ControlLost, R> =>
  connect.pipe(
    Effect.retry({
      while: ({ reason }) => reason === "unreachable" || reason === "closed",
      schedule: Schedule.min([Schedule.exponential("2 millis", 1.5), Schedule.spaced("20 millis")])
    }),
    Effect.mapError(lost),
    Effect.timeoutOrElse({
      duration: COMING_UP,
      orElse: () => new ControlLost({ command: "connect", detail: `nothing within ${Duration.format(COMING_UP)}` })
    }),
    Effect.raceFirst(
      Effect.flatMap(
        process.exit,
        (exit) => new ControlLost({ command: "connect", detail: ProcessExit.describe(exit) })
      )
    )
  )
