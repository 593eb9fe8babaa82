/** What people and their editors read is what the code takes. */
import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { directory, pages } from "../../scripts/machine-config-page.ts"
import { MachineConfig } from "../../src/config/MachineConfig.ts"
import { rowOf } from "../../src/config/Reach.ts"

it("docs/machine-config.md and its JSON Schema are up to date", () => {
  for (const [file, text] of pages()) {
    const command = "run: scripts/node scripts/machine-config-page.ts"
    assert.strictEqual(readFileSync(join(directory, file), "utf8"), text, command)
  }
})

it("of every field it is said how it takes effect", () => {
  for (const field of Object.keys(MachineConfig.fields)) assert.isDefined(rowOf(field), field)
})
