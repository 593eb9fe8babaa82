/**
 * For how long a process has been running, by the kernel's own account: also right for a process that another brain had
 * started, and when the wall clock was set in between.
 *
 * Traps: exact to the kernel's tick (10 ms); of a process of this boot.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as os from "node:os"
import type { Process } from "./Processes.ts"

/** The kernel tells times of processes in these (USER_HZ), on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100

/** Time since the process was started; never negative. */
export const of = (
  { startTime }: Pick<Process, "startTime">,
  /** Of the machine that it runs on, in seconds; default: this one. */
  uptime: Effect.Effect<number> = Effect.sync(() => os.uptime())
): Effect.Effect<Duration.Duration> =>
  Effect.map(uptime, (now) => Duration.seconds(Math.max(0, now - Number(startTime) / TICKS_PER_SECOND)))
