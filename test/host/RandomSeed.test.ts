/** What one start keeps for the next. */
import { assert, describe, it } from "@effect/vitest"
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { renew } from "../../src/host/RandomSeed.ts"

describe("the random seed", () => {
  it("is mixed in once, and another one kept, which nobody else may read", async () => {
    const directory = mkdtempSync(join(tmpdir(), "ironwood-seed-"))
    try {
      const [file, pool] = [join(directory, "random-seed"), join(directory, "pool")]
      assert.strictEqual(await renew(file, pool), 0)
      const first = readFileSync(file, "utf8")
      assert.strictEqual(statSync(file).mode & 0o777, 0o600)
      assert.strictEqual(await renew(file, pool), 256)
      assert.strictEqual(`${readFileSync(pool).toString("base64")}\n`, first)
      assert.notStrictEqual(readFileSync(file, "utf8"), first)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  it("that is damaged is worth what is left of it", async () => {
    const directory = mkdtempSync(join(tmpdir(), "ironwood-seed-"))
    try {
      const [file, pool] = [join(directory, "random-seed"), join(directory, "pool")]
      writeFileSync(file, "\u0000!? not base64 at all")
      assert.isAtMost(await renew(file, pool), 256)
      assert.strictEqual(await renew(file, pool), 256)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})
