/**
 * The time of a machine, as a step of its start: the kernel took it from the real-time clock, which may be empty. A clock that
 * is before the time when this Ironwood was made is wrong for sure and is set to that time; then the time servers of
 * `ironwood.ntp` are asked, and again every hour.
 *
 * Trap: the clock jumps when it is set. Everything here that waits does so by the monotonic clock.
 */
import * as Effect from "effect/Effect"
import { readFile } from "node:fs/promises"
import { describe, isSuccess } from "../taproot/ProcessExit.ts"
import { Processes } from "../taproot/Processes.ts"
import * as Sntp from "./Sntp.ts"
import type { Setting } from "./Setting.ts"
import { following, StepFailed } from "./Step.ts"

/** A file with the seconds since 1970 when the image's sources were last changed. */
const madeAtFile = "/usr/lib/ironwood/made-at"

/** What a difference must be, in milliseconds, to be worth a jump. */
const worthSetting = 200

/** How long a server has to answer, in milliseconds. */
const patience = 3_000

const failed = (problem: string) => new StepFailed({ step: "clock", problem })

const madeAt: Effect.Effect<number> = Effect.promise(() =>
  readFile(madeAtFile, "utf8").then(
    (text) => (Number(text) > 0 ? Number(text) * 1000 : 0),
    () => 0
  )
)

/** Sets the kernel's clock, in milliseconds since 1970. */
const set = Effect.fnUntraced(function* (time: number) {
  const processes = yield* Processes
  const { exit } = yield* Effect.mapError(
    processes.run({ label: "clock", argv: ["date", "--utc", `--set=@${(time / 1000).toFixed(3)}`] }),
    ({ message }) => failed(message)
  )
  if (!isSuccess(exit)) return yield* failed(`\`date\` ${describe(exit)}`)
})

const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(1)} s`

export const clockStep = (setting: Setting<{ readonly servers: ReadonlyArray<string> }>) =>
  following("clock", { description: "the time", deadline: "1 minute" }, setting, ({ servers }) =>
    Effect.gen(function* () {
      const earliest = yield* madeAt
      const wrong = Date.now() < earliest
      if (wrong) yield* set(earliest)
      const problems: Array<string> = []
      for (const server of servers) {
        const answer = yield* Effect.result(Sntp.ask(server, patience))
        if (answer._tag === "Failure") {
          problems.push(answer.failure.message)
          continue
        }
        const off = answer.success
        if (Date.now() + off < earliest) {
          problems.push(`time server ${server}: it gives a time before this Ironwood was made`)
          continue
        }
        if (Math.abs(off) > worthSetting) yield* set(Date.now() + off)
        return { facts: { source: server, "was off by": seconds(off) }, again: "1 hour" }
      }
      if (problems.length > 0) return yield* failed(problems.join("; "))
      return wrong
        ? {
            facts: { source: "the image" },
            degraded: "the real-time clock was before this Ironwood was made and no time server is named (time.servers)"
          }
        : { facts: { source: "the real-time clock" } }
    })
  )
