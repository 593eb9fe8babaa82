/** Which modules a device needs. */
import { assert, describe, it } from "@effect/vitest"
import { aliases } from "../../src/host/DeviceModules.ts"

describe("aliases of modules", () => {
  const modulesFor = aliases(
    [
      "pci:v000015ADd000007C0sv*sd*bc*sc*i* vmw_pvscsi",
      "scsi:t-0x00* sd_mod",
      "scsi:t-0x0[45]* sr_mod",
      "virtio:d00000005v* virtio_balloon",
      "virtio:d00000005v* another",
      "cpu:type:x86,ven*fam*mod*:feature:*00C2* kvm_amd",
      "cpu:type:x86,ven*fam*mod*:feature:*0085* kvm_intel",
      "nonsense",
      ""
    ].join("\n")
  )

  it("say by patterns who drives a device", () => {
    assert.deepStrictEqual(modulesFor("pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc00i00"), ["vmw_pvscsi"])
    assert.deepStrictEqual(modulesFor("scsi:t-0x00"), ["sd_mod"])
    assert.deepStrictEqual(modulesFor("scsi:t-0x05"), ["sr_mod"])
    assert.deepStrictEqual(modulesFor("virtio:d00000005v00001AF4"), ["virtio_balloon", "another"])
  })

  it("say which module processors need", () => {
    const features = "0000,0002,0008,000B,00C0,00C2,00C5,0125"
    assert.deepStrictEqual(modulesFor(`cpu:type:x86,ven0002fam000Fmod006B:feature:,${features}`), ["kvm_amd"])
    assert.deepStrictEqual(modulesFor("cpu:type:x86,ven0000fam0006mod008F:feature:,0000,0002"), [])
  })

  it("are none for what nobody drives", () => {
    assert.deepStrictEqual(modulesFor("pci:v00008086d00002918sv*"), [])
    assert.deepStrictEqual(modulesFor("acpi:PNP0A08:"), [])
    assert.deepStrictEqual(modulesFor(""), [])
  })
})
