/** How often a machine may reboot itself: counted over reboots, in memory, with a wrong clock, on a full disk. */
import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { make, type Options } from "../../src/host/RebootGuard.ts"

const minute = 60_000
const wish = { path: "init/runtime/a/a", reason: "its budget is spent: the host reboots" }

/** A machine that is booted again and again. */
const machine = (
  use: (boot: (options?: Partial<Options>) => string | undefined, file: string, at: { now: number }) => void
) => {
  const directory = mkdtempSync(join(tmpdir(), "ironwood-reboots-"))
  try {
    const file = join(directory, "reboots.json")
    const at = { now: 1_800_000_000_000 }
    use(
      (options) => make({ file, lasting: true, now: () => at.now, uptime: () => minute, ...options }).claim(wish),
      file,
      at
    )
  } finally {
    rmSync(directory, { recursive: true })
  }
}

describe("a machine that reboots itself", () => {
  it("does so three times within an hour, and again when the first of them is an hour ago", () =>
    machine((boot, _, at) => {
      for (let round = 0; round < 3; round++) {
        assert.isUndefined(boot())
        at.now += 10 * minute
      }
      assert.strictEqual(boot(), "the host has rebooted for such a reason 3 times within 1h, and does so no more")
      at.now += 30 * minute
      assert.isUndefined(boot())
    }))

  it("counts one reboot once, whoever else wants it too", () =>
    machine((_, file, at) => {
      const guard = make({ file, lasting: true, now: () => at.now, uptime: () => minute })
      for (let count = 0; count < 5; count++) assert.isUndefined(guard.claim(wish))
      assert.deepStrictEqual(guard.recent(), [{ at: at.now, ...wish }])
    }))

  it("counts those that its clock says are still to come", () =>
    machine((boot, _, at) => {
      for (let round = 0; round < 3; round++) assert.isUndefined(boot())
      at.now = 0
      assert.include(boot() ?? "", "3 times")
    }))

  it("that forgets them waits until it has been up for ten minutes", () =>
    machine((boot) => {
      const memory = { lasting: false }
      assert.strictEqual(
        boot(memory),
        "earlier reboots are not remembered, since this machine keeps its state in memory, so the host reboots only when it has been up for 10m"
      )
      assert.isUndefined(boot({ ...memory, uptime: () => 10 * minute }))
    }))

  it("that cannot write them down waits too, and one that cannot read them begins anew", () =>
    machine((boot, file) => {
      mkdirSync(`${file}.next`)
      assert.include(boot() ?? "", "could not be written down (Error: EISDIR")
      assert.isUndefined(boot({ uptime: () => 10 * minute }))
      rmSync(`${file}.next`, { recursive: true })
      writeFileSync(file, "garbage")
      assert.isUndefined(boot())
    }))
})
