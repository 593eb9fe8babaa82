/** The host's name and what its console shows, as steps of its start: both are one file of /proc. */
import * as Effect from "effect/Effect"
import { readFile, writeFile } from "node:fs/promises"
import { before } from "./Before.ts"
import type { Setting } from "./Setting.ts"
import { following, StepFailed } from "./Step.ts"

const attempt = <A>(step: string, promise: () => Promise<A>): Effect.Effect<A, StepFailed> =>
  Effect.tryPromise({ try: promise, catch: (cause) => new StepFailed({ step, problem: String(cause) }) })

/** One file that holds one value; undefined: it keeps, or gets back, the value that it had before. */
const fileStep = <A extends string | number>(
  {
    description,
    file,
    name,
    read,
    trouble
  }: {
    readonly name: string
    readonly description: string
    readonly file: string
    /** What of the file's text is the value. */
    readonly read: (text: string) => string
    /** Why a value that is there is left as it is; looked at every minute. */
    readonly trouble?: (now: string) => string
  },
  setting: Setting<A | undefined>
) =>
  following(name, { description, deadline: "10 seconds" }, setting, (wanted) =>
    Effect.gen(function* () {
      const look = () => readFile(file, "utf8").then(read)
      const kept = yield* before(name, wanted === undefined ? [] : [name], look)
      const now = yield* attempt(name, look)
      const next = wanted === undefined ? (kept[name] ?? now) : String(wanted)
      const again = trouble === undefined ? {} : { again: "1 minute" as const }
      const why = String(wanted) === now ? "" : (trouble?.(now) ?? "")
      if (why !== "") return { facts: { [name]: now }, degraded: why, ...again }
      if (next !== now) yield* attempt(name, () => writeFile(file, next))
      return { facts: { [name]: next }, ...again }
    })
  )

export const hostnameStep = (setting: Setting<string | undefined>) =>
  fileStep(
    {
      name: "hostname",
      description: "what the machine calls itself",
      file: "/proc/sys/kernel/hostname",
      read: (text) => text.trim()
    },
    setting
  )

export const consoleStep = (setting: Setting<number | undefined>) =>
  fileStep(
    {
      name: "console",
      description: "which messages of the kernel the console shows",
      file: "/proc/sys/kernel/printk",
      // the level now; then that of messages without one, the lowest that can be set, the usual one
      read: (text) => text.split(/\s+/)[0] ?? "",
      // taproot silences it so, and tries it again
      trouble: (now) =>
        now === "1"
          ? "it shows emergencies only: it has not taken what it was sent, unless the kernel command line wants it so"
          : ""
    },
    setting
  )
