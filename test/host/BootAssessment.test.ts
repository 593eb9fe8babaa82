/** What the boot loader counts, read from its variable. On a real machine: `test/boot/SecureBoot.test.ts`. */
import { assert, describe, it } from "@effect/vitest"
import * as Option from "effect/Option"
import { countedImage, variableText } from "../../src/host/BootAssessment.ts"

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
