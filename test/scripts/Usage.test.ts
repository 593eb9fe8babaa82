/** What a person gets who asks `npm run boot` and `npm run image` for help, or mistypes. */
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { headerOf } from "../../scripts/Usage.ts"

const checkout = fileURLToPath(new URL("../..", import.meta.url))

const run = (script: string, ...args: ReadonlyArray<string>) =>
  spawnSync(process.execPath, [join("scripts", script), ...args], { cwd: checkout, encoding: "utf8" })

describe("a script's command line", () => {
  it("is explained by what the script opens with", () => {
    for (const [script, usage] of [
      ["boot.ts", "npm run boot -- [--hypervisor] [--memory MIB]"],
      ["image.ts", "npm run image -- [--hypervisor] [--quick]"]
    ] as const) {
      const { status, stderr, stdout } = run(script, "--help")
      assert.deepStrictEqual([status, stderr], [0, ""])
      assert.include(stdout, usage)
      assert.notInclude(stdout, " * ")
    }
  })

  it("that is wrong is refused in a line, with the usage below", () => {
    for (const [script, words, problem] of [
      ["boot.ts", ["--colour"], "boot: Unknown option '--colour'"],
      ["boot.ts", ["--memory", "abc"], 'boot: --memory: expected a whole number from 64, not "abc"'],
      ["boot.ts", ["--memory"], "boot: Option '--memory <value>' argument missing"],
      ["boot.ts", ["--netboot", "--uki"], "boot: --netboot and --uki: one of them"],
      ["image.ts", ["--colour"], "image: Unknown option '--colour'"],
      ["image.ts", ["--disk-size", "0"], 'image: --disk-size: expected a whole number from 1, not "0"'],
      ["image.ts", ["quiet"], "image: quiet: kernel parameters are those of a signed image; add --uki or --disk"]
    ] as const) {
      const { status, stderr, stdout } = run(script, ...words)
      assert.deepStrictEqual([status, stdout], [2, ""], stderr)
      assert.strictEqual(stderr.split("\n")[0], problem)
      assert.match(stderr, /npm run (boot|image) -- /)
      assert.notInclude(stderr, "node:internal")
    }
  })

  it("has the usage of a file that opens with a comment", () => {
    assert.strictEqual(headerOf("/**\n * One.\n *\n *   two\n */\ncode"), "One.\n\n  two")
    assert.strictEqual(headerOf("code"), "")
  })
})
