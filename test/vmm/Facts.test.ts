/** How long what was found out about a hypervisor is believed. */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import type { DriverFacts } from "../../src/vmm/Hypervisor.ts"
import * as Launching from "../../src/vmm/Launching.ts"
import { capabilities } from "../../src/vmm/qemu/Qemu.ts"

const facts = (fields: Pick<DriverFacts, "problem" | "acceleration">): DriverFacts => ({
  name: "qemu",
  path: "/qemu",
  version: "7.2",
  capabilities,
  ...fields
})

it.effect("what works is believed, what does not is looked for again, and so is a trial that decided nothing", () =>
  Effect.gen(function* () {
    const kvm = { accelerator: "kvm", problem: undefined } as const
    const refused = { accelerator: "tcg", problem: "it said no" } as const
    const slow = { accelerator: "tcg", problem: "not in time", isUndecided: true } as const
    const ways = [
      { found: facts({ problem: undefined, acceleration: kvm }), looks: [1, 1, 1] },
      { found: facts({ problem: undefined, acceleration: refused }), looks: [1, 1, 1] },
      { found: facts({ problem: undefined, acceleration: slow }), looks: [1, 1, 2] },
      { found: facts({ problem: "there is none", acceleration: undefined }), looks: [1, 2, 3] }
    ]
    for (const { found, looks } of ways) {
      let times = 0
      const known = Launching.remembered(
        Effect.sync(() => {
          times++
          return found
        })
      )
      for (const [index, wanted] of looks.entries()) {
        if (index > 0) yield* TestClock.adjust(index === 1 ? "10 seconds" : "1 minute")
        yield* known
        assert.strictEqual(times, wanted, `${found.acceleration?.problem ?? found.problem} ${index}`)
      }
    }
  })
)
