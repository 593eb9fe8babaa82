/** docs/hypervisors.md is what the drivers declare. */
import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { page, path } from "../../scripts/hypervisors-page.ts"

it("docs/hypervisors.md is up to date", () => {
  assert.strictEqual(readFileSync(path, "utf8"), page, "run: scripts/node scripts/hypervisors-page.ts")
})
