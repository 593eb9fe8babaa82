/** What people and their editors read is what the code takes. */
import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { directory, page, pages } from "../../scripts/machine-config-page.ts"
import { MachineConfig } from "../../src/config/MachineConfig.ts"
import * as Result from "effect/Result"
import { takenEverywhere as takenInHelp } from "../../src/cli/commands/config.ts"
import { describe as describeViolations, read } from "../../src/config/Document.ts"
import { rowOf, takenEverywhere } from "../../src/config/Reach.ts"

it("docs/machine-config.md and its JSON Schema are up to date", () => {
  for (const [file, text] of pages()) {
    const command = "run: scripts/node scripts/machine-config-page.ts"
    assert.strictEqual(readFileSync(join(directory, file), "utf8"), text, command)
  }
})

it("of every field it is said how it takes effect", () => {
  for (const field of Object.keys(MachineConfig.fields)) assert.isDefined(rowOf(field), field)
})

it("what the page shows as a document is one", () => {
  const blocks = [...page().matchAll(/^```yaml\n(.*?)^```/gms)].map(([, text = ""]) => text)
  assert.isAbove(blocks.length, 0)
  for (const block of blocks)
    assert.strictEqual(Result.match(read(block), { onSuccess: () => "", onFailure: describeViolations }), "", block)
})

it("the help of `ironwood config` says what an Ironwood that is a process takes", () => {
  assert.strictEqual(takenInHelp, takenEverywhere())
})
