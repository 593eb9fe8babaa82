/** The table of trying and confirming: every cell as written here by hand. */
import { assert, describe, it } from "@effect/vitest"
import { type ConfigState, table } from "../../src/config/Lifecycle.ts"

const order = ["apply", "try", "confirm", "revert", "deadline", "brain-start", "machine-start", "source"] as const

const expected: Readonly<Record<ConfigState, string>> = {
  settled: "commit try refuse refuse nothing nothing nothing commit",
  trying: "refuse retry keep revert revert resume revert wait"
}

describe("the machine config's lifecycle", () => {
  for (const state of ["settled", "trying"] as const) {
    expected[state].split(" ").forEach((action, index) => {
      const event = order[index] ?? "apply"
      it(`${state} × ${event}`, () => assert.strictEqual(table[state][event], action))
    })
  }
})
