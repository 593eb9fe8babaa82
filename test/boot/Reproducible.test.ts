/**
 * The same inputs give the same bytes: what this checkout makes is what a copy of it in another place makes, from nothing.
 *
 * Behind the flag: everything is built twice.
 */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { cpSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { basename, join } from "node:path"
import { defaultKeys } from "../../scripts/image/Signed.ts"
import { checkout } from "../support/ironwood.ts"

const keys = join(checkout, defaultKeys)

/** Builds in a directory; the digests of the files that a machine boots. */
const made = (directory: string): string => {
  const built = { cwd: directory, stdio: "pipe" } as const
  execFileSync("sh", ["scripts/setup", "--image"], built)
  const build = (...more: ReadonlyArray<string>) =>
    execFileSync("scripts/node", ["scripts/image.ts", "--quick", "--uki", "--disk", "--keys", keys, ...more], built)
  build()
  build("--hypervisor")
  const files = ["image-quick", "image-hypervisor-quick"].flatMap((kind) =>
    ["vmlinuz", "initramfs.img", "ironwood.efi", "disk.img"].map((name) => join(kind, name))
  )
  return execFileSync("sha256sum", files, { cwd: join(directory, "build"), encoding: "utf8" })
}

describe.skipIf(process.env["IRONWOOD_BOOT"] !== "all")("an image", () => {
  it("is the same, byte for byte, when it is built again elsewhere", { timeout: 900_000 }, () => {
    // below the checkout, so that packages can be hard links: a bundle names the files of packages, where they really are
    const home = mkdtempSync(join(checkout, "build/again-"))
    try {
      const elsewhere = join(home, "a place with another name")
      for (const name of readdirSync(checkout).filter((found) => found !== "build" && found !== "node_modules")) {
        cpSync(join(checkout, name), join(elsewhere, name), { recursive: true })
      }
      execFileSync("cp", ["-al", join(checkout, "node_modules"), join(elsewhere, "node_modules")])
      // the kernel's package, so that it need not be downloaded again
      const cache = join(checkout, "build/image-cache")
      const first = made(checkout)
      for (const name of readdirSync(cache).filter((found) => found.startsWith("linux-image-"))) {
        cpSync(join(cache, name), join(elsewhere, "build/image-cache", basename(name)), { recursive: true })
      }
      assert.strictEqual(made(elsewhere), first)
    } finally {
      rmSync(home, { recursive: true })
    }
  })
})
