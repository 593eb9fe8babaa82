/**
 * PCI devices of the host that a machine is to have for itself (VFIO): looked at before anything is touched, and whatever is
 * missing is said with what to do about it.
 *
 * A device can be given away only with all of its IOMMU group, and only when a driver that does nothing with them (`vfio-pci`) has
 * them: binding it is a person's decision, since whatever uses the device loses it.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { basename, join } from "node:path"
import * as Remedy from "../host/Remedy.ts"

/** What a device's IOMMU group is called: `/dev/vfio/<group>` is what the hypervisor opens. */
export type Group = string

const BRIDGE = /^0x0604/

const linkName = (path: string): Promise<string | undefined> => fs.readlink(path).then(basename, () => undefined)

/** What a person does about it; `ids`: of the device, like `8086:1572`. */
const bindHint = (address: string, ids: string): string =>
  Remedy.isImage()
    ? `name it in the machine config, kernel: { modules: [{ name: vfio-pci, parameters: { ids: "${ids}" } }] }; a driver ` +
      "of the image that has it keeps it"
    : `echo vfio-pci > /sys/bus/pci/devices/${address}/driver_override; ` +
      `echo ${address} > /sys/bus/pci/devices/${address}/driver/unbind; echo ${address} > /sys/bus/pci/drivers_probe`

const idsOf = async (place: string): Promise<string> => {
  const [vendor, device] = await Promise.all(
    ["vendor", "device"].map((name) => fs.readFile(join(place, name), "utf8").catch(() => ""))
  )
  return [vendor, device].map((text = "") => text.trim().replace(/^0x/, "")).join(":")
}

/** Fails with what is wrong; `root` is where this host's `/sys` is. */
export const inspect = (address: string, root = "/sys"): Effect.Effect<Group, string> =>
  Effect.gen(function* () {
    const device = join(root, "bus/pci/devices", address)
    const here = yield* Effect.promise(() =>
      fs.stat(device).then(
        () => true,
        () => false
      )
    )
    if (!here) return yield* Effect.fail(`this host has no PCI device ${address}: \`lspci -D\` lists those there are`)
    const group = yield* Effect.promise(() => linkName(join(device, "iommu_group")))
    if (group === undefined) {
      return yield* Effect.fail(
        "it is behind no IOMMU: switch VT-d or AMD-Vi on in the firmware, and boot with intel_iommu=on or amd_iommu=on"
      )
    }
    const members = yield* Effect.promise(() =>
      fs.readdir(join(root, "kernel/iommu_groups", group, "devices")).catch(() => [address])
    )
    for (const member of [address, ...members.filter((one) => one !== address)]) {
      const place = join(root, "bus/pci/devices", member)
      const driver = yield* Effect.promise(() => linkName(join(place, "driver")))
      if (driver === "vfio-pci") continue
      const kind = yield* Effect.promise(() => fs.readFile(join(place, "class"), "utf8").catch(() => ""))
      if (member !== address && (driver === undefined || BRIDGE.test(kind))) continue
      const hint = bindHint(member, yield* Effect.promise(() => idsOf(place)))
      const whose = driver === undefined ? "has no driver" : `is the host's (${driver})`
      return yield* Effect.fail(
        member === address
          ? `it ${whose}; give it up: ${hint}`
          : `${member}, of the same IOMMU group ${group}, ${whose}; give that up, too: ${hint}`
      )
    }
    return group
  })
