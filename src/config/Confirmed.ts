/**
 * The last machine config that was there to stay, in `/run`: for the rescue brain, which touches no state, so that it is
 * reached where the ordinary one was. What is only being tried is never in it.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { readFile, rename, writeFile } from "node:fs/promises"
import { read } from "./Document.ts"
import { empty, type MachineConfig } from "./MachineConfig.ts"

const file = "/run/ironwood/machine-config.json"

/** Keeps it; where it cannot be kept the rescue brain does without. */
export const keep = (config: MachineConfig): Effect.Effect<void> =>
  Effect.promise(() =>
    writeFile(`${file}.new`, JSON.stringify(config), { mode: 0o600 })
      .then(() => rename(`${file}.new`, file))
      .catch(() => {})
  )

/** What is kept, or the config that says nothing. */
export const load: Effect.Effect<MachineConfig> = Effect.promise(() =>
  readFile(file, "utf8").then(
    (text) =>
      Result.getOrElse(
        Result.map(read(text), ({ config }) => config),
        () => empty
      ),
    () => empty
  )
)
