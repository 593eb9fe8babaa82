/** Modules of the kernel: what they depend on, and one that the kernel does not finish with. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setImmediate } from "node:timers/promises"
import { dependenciesIn, load } from "../../src/host/KernelModules.ts"
import * as ProcessesRecording from "../../src/taproot/ProcessesRecording.ts"

const slow = { name: "ironwood-slow", parameters: "" }

/** The file of a module that depends on nothing. */
const files = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-modules-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true }))
  ),
  (directory) => {
    const file = join(directory, "ironwood-slow.ko")
    writeFileSync(file, "\0license=GPL\0depends=\0")
    return new Map([["ironwood_slow", file]])
  }
)

describe("a module", () => {
  it("says what it depends on", () => {
    assert.deepStrictEqual(dependenciesIn(Buffer.from("\0depends=scsi-mod,virtio\0")), ["scsi_mod", "virtio"])
  })

  it.effect("that the kernel does not finish with is left to itself, and told as refused", () =>
    Effect.gen(function* () {
      const loading = yield* Effect.forkChild(load(slow, yield* files))
      const { frames } = yield* ProcessesRecording.SimulatedTaproot
      while (!frames.some(({ _tag }) => _tag === "Module")) yield* Effect.promise(() => setImmediate())
      yield* TestClock.adjust("1 minute")
      assert.match(yield* Fiber.join(loading), /^the kernel did not load .*ironwood-slow\.ko within 30 seconds$/)
    }).pipe(Effect.provide(ProcessesRecording.layer({ answerOther: () => ({ _tag: "Silence" }) })))
  )

  it.effect("that the kernel takes has no problem", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* load(slow, yield* files), "")
      assert.strictEqual(
        yield* load({ name: "none", parameters: "" }, yield* files),
        "the image carries no module none"
      )
    }).pipe(Effect.provide(ProcessesRecording.layer()))
  )
})
