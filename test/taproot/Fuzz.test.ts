/** A short run of the fuzzer of taproot's side of the protocol; `build/taproot-fuzz SEED SESSIONS` runs longer ones. */
import { assert, beforeAll, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { build, program } from "./Supervised.ts"

beforeAll(build)

it.each([1, 2])("seed %i: no frame, whole, cut or mangled, leads taproot astray", (seed) => {
  const { status, stderr, stdout } = spawnSync(program("taproot-fuzz"), [`${seed}`, "4000"], { encoding: "utf8" })
  assert.strictEqual(status, 0, stderr)
  assert.match(stdout, /^4000 sessions, \d+ faults, \d+ processes, no mistake\n$/)
})
