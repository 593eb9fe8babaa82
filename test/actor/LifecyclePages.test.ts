/** The generated pages of state tables are those of the tables in force. */
import { assert, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { directory, pages } from "../../scripts/lifecycle-pages.ts"

it("docs/lifecycle shows the tables that the code runs on, and nothing else", () => {
  assert.deepStrictEqual(readdirSync(directory).sort(), [...pages.keys()].sort())
  for (const [file, text] of pages) {
    assert.strictEqual(
      readFileSync(join(directory, file), "utf8"),
      text,
      "run: scripts/node scripts/lifecycle-pages.ts"
    )
  }
})
