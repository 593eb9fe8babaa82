/**
 * What something of the kernel was before the machine config set it: kept in `/run` for the brains to come, as long as this
 * kernel runs, so that a field that is taken out of the config goes back to what it was.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { mkdir, readFile, rename, writeFile } from "node:fs/promises"
import { dirname } from "node:path"

const fileOf = (step: string): string => `/run/ironwood/before-${step}.json`

const Kept = Schema.fromJsonString(Schema.Record(Schema.String, Schema.String))
const decode = Schema.decodeUnknownSync(Kept)

/** All that is kept for a step, these names among it: `read` is asked for those that are not yet. A name without value is left out. */
export const before = (
  step: string,
  names: ReadonlyArray<string>,
  read: (name: string) => Promise<string>
): Effect.Effect<Readonly<Record<string, string>>> =>
  Effect.promise(async () => {
    const file = fileOf(step)
    const kept = await readFile(file, "utf8").then(decode, (): Readonly<Record<string, string>> => ({}))
    const values = new Map(Object.entries(kept))
    for (const name of names) {
      if (values.has(name)) continue
      const value = await read(name).catch(() => undefined)
      if (value !== undefined) values.set(name, value.trim())
    }
    const all = Object.fromEntries(values)
    if (values.size > Object.keys(kept).length) {
      // where it cannot be kept the field goes back at the next start of the machine
      await mkdir(dirname(file), { recursive: true })
        .then(() => writeFile(`${file}.new`, JSON.stringify(all)))
        .then(() => rename(`${file}.new`, file))
        .catch(() => {})
    }
    return all
  })
