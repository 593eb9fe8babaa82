/** What to do where a host has no hypervisor. */
import { assert, it } from "@effect/vitest"
import { osRelease } from "../../scripts/image/Signed.ts"
import { ofHypervisor } from "../../src/host/Remedy.ts"

it("a package is installed, and an image is made anew", () => {
  const onImage = ofHypervisor("install it", osRelease({ version: "1.2.3", hypervisor: false }))
  assert.include(onImage, "npm run image -- --hypervisor")
  assert.strictEqual(ofHypervisor("install it", 'ID=debian\nNAME="Debian GNU/Linux"\n'), "install it")
  assert.strictEqual(ofHypervisor("install it", ""), "install it")
})
