/** What the boot loader counts, read from its variable. On a real machine: `test/boot/SecureBoot.test.ts`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { countedImage, rebootReason, unprovenFrom, variableText } from "../../src/host/BootAssessment.ts"

describe("the loader's variable", () => {
  it("is UTF-16 behind four bytes of attributes", () => {
    const bytes = Buffer.concat([Buffer.from([6, 0, 0, 0]), Buffer.from("\\EFI\\a+1.efi\0", "utf16le")])
    assert.strictEqual(variableText(bytes), "\\EFI\\a+1.efi")
    assert.strictEqual(variableText(Buffer.alloc(3)), "")
  })

  it("names an image with its counter", () => {
    assert.deepStrictEqual(
      countedImage("\\EFI\\Linux\\ironwood_0.2.0+2-1.efi"),
      Option.some({
        path: "/EFI/Linux/ironwood_0.2.0+2-1.efi",
        good: "/EFI/Linux/ironwood_0.2.0.efi",
        triesLeft: 2
      })
    )
    assert.deepStrictEqual(
      Option.map(countedImage("\\EFI\\Linux\\a+3.efi"), ({ good, triesLeft }) => [good, triesLeft]),
      Option.some(["/EFI/Linux/a.efi", 3])
    )
  })

  it("may be anything, since whoever writes firmware variables wrote it", () => {
    for (const text of [
      "",
      "\\EFI\\Linux\\ironwood_0.2.0.efi",
      "\\EFI\\..\\..\\etc\\a+1.efi",
      "a+1.efi",
      "\\EFI\\+1.efi",
      "\\EFI\\a+1.efi\0b",
      "\\EFI\\a+99999999999999999999.efi"
    ]) {
      assert.isTrue(Option.isNone(countedImage(text)), JSON.stringify(text))
    }
  })
})

describe("a machine whose brain cannot keep itself up", () => {
  const image = (name: string) => countedImage(`\\EFI\\Linux\\${name}`)

  it("reboots for an image that has not proved itself, whatever its config says", () => {
    for (const policy of ["wait", "reboot"] as const) {
      const reason = Option.getOrThrow(rebootReason(policy, image("ironwood_0.2.0+2-1.efi")))
      assert.include(reason, "ironwood_0.2.0+2-1.efi")
      assert.include(reason, "left: 2")
      // the loader leaves it only when it is started the next time
      assert.include(
        Option.getOrThrow(rebootReason(policy, image("ironwood_0.2.0+0-3.efi"))),
        "leaves it for the one before"
      )
    }
  })

  it("does what its config says for one that has", () => {
    const good = image("ironwood_0.2.0.efi")
    assert.isTrue(Option.isNone(rebootReason("wait", good)))
    assert.isTrue(Option.isSome(rebootReason("reboot", good)))
  })

  it.live("does not take an image for unproven once the loader was told, though the variable stays", () =>
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-assessment-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const [variable, told] = [join(directory, "variable"), join(directory, "told")]
      assert.isTrue(Option.isNone(yield* unprovenFrom(variable, told)))
      const text = Buffer.from("\\EFI\\Linux\\ironwood_0.2.0+2-1.efi\0", "utf16le")
      writeFileSync(variable, Buffer.concat([Buffer.from([6, 0, 0, 0]), text]))
      assert.strictEqual(Option.getOrThrow(yield* unprovenFrom(variable, told)).triesLeft, 2)
      writeFileSync(told, "")
      assert.isTrue(Option.isNone(yield* unprovenFrom(variable, told)))
    })
  )
})
