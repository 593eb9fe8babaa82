/**
 * The machine's watchdog as a step of its start. taproot opens and feeds it from the first moment on; here it is told in what
 * time the hardware is to reset the machine, and how long it may feed it while no brain is heard.
 */
import * as Effect from "effect/Effect"
import { Processes } from "../taproot/Processes.ts"
import { before } from "./Before.ts"
import type { Setting } from "./Setting.ts"
import { following, StepFailed } from "./Step.ts"

/** In seconds. */
export interface Watchdog {
  readonly timeout: number
  readonly patience: number
}

/** What taproot begins with: see its `--watchdog` and `--watchdog-patience`. */
export const usualWatchdog: Watchdog = { timeout: 30, patience: 600 }

const ENODEV = 19

export const watchdogStep = (setting: Setting<Watchdog | undefined>) =>
  following(
    "watchdog",
    { description: "what resets a machine that hangs", deadline: "10 seconds" },
    setting,
    (wanted) =>
      Effect.gen(function* () {
        const { setWatchdog } = yield* Processes
        const { patience, timeout } = wanted ?? usualWatchdog
        const facts = { timeout: `${timeout} s`, patience: `${patience} s` }
        // nobody has said otherwise since the machine started: taproot goes on as its image told it
        const said = yield* before("watchdog", wanted === undefined ? [] : ["said"], () => Promise.resolve("1"))
        if (!("said" in said)) return { facts: {} }
        const refused = yield* Effect.flip(setWatchdog(timeout, patience * 1000)).pipe(Effect.option)
        if (refused._tag === "None") return { facts }
        if (refused.value.errno !== ENODEV) {
          return yield* new StepFailed({ step: "watchdog", problem: refused.value.message })
        }
        return { facts: {}, ...(wanted === undefined ? {} : { degraded: "this machine has no watchdog" }) }
      })
  )
