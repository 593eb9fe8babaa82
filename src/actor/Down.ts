/**
 * That an actor's life is over, as one who waits for it hears it: from a monitor (`Monitor.ts`), or as the reason why a
 * message found nobody (`ActorDown`).
 *
 * Trap: it speaks of one incarnation. By the time it is read the next one may be up.
 */
import * as Schema from "effect/Schema"
import type { ExitView } from "./ExitView.ts"

/**
 * `ended`: by itself, see `exit`; `stopped`, `released`: by its supervisor or a person, with or without its stop hooks;
 * `not-alive`: it did not live when it was asked for (OTP's `noproc`); `no-such-actor`: nobody has that path.
 */
export const DownReason = Schema.Literals(["ended", "stopped", "released", "not-alive", "no-such-actor"])
export type DownReason = typeof DownReason.Type

export interface Down {
  readonly path: string
  /** The life that is over: the last one of an actor that is not alive; 0 when there never was one. */
  readonly incarnation: number
  readonly reason: DownReason
  /** How it ended, when it did so by itself. */
  readonly exit: ExitView | undefined
}
