/** The generated page of lifecycles is that of the tables in force. */
import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { page } from "../../scripts/lifecycle-page.ts"

it("docs/lifecycle.md shows the tables that the code runs on", () => {
  const shown = readFileSync(new URL("../../docs/lifecycle.md", import.meta.url), "utf8")
  assert.strictEqual(shown, page(), "run: scripts/node scripts/lifecycle-page.ts")
})
