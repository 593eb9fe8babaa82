/**
 * The network devices of the kernel, as sysfs shows them, and which of them a link is.
 *
 * Trap: names of devices are the kernel's and may differ from one start of a machine to the next; a hardware address does not.
 */
import { readdir, readFile, readlink, writeFile } from "node:fs/promises"
import * as Effect from "effect/Effect"
import type { LinkConfig } from "../NetworkConfig.ts"

const home = "/sys/class/net"

export interface Device {
  readonly name: string
  readonly mac: string
  /** There is hardware behind it, and it speaks Ethernet: no bridge, bond, VLAN, and no end of a container's or VM's link. */
  readonly isHardware: boolean
}

const read = (device: string, file: string): Promise<string> =>
  readFile(`${home}/${device}/${file}`, "utf8").then(
    (text) => text.trim(),
    () => ""
  )

const exists = (path: string): Promise<boolean> =>
  readlink(path).then(
    () => true,
    () => false
  )

/** All of them but loopback, by name. */
export const devices: Effect.Effect<ReadonlyArray<Device>> = Effect.promise(async () => {
  const names = await readdir(home).catch((): ReadonlyArray<string> => [])
  return Promise.all(
    names
      .filter((name) => name !== "lo" && name !== "bonding_masters")
      .toSorted()
      .map(async (name) => ({
        name,
        // a member of a bond has the bond's for as long as it is one
        mac: (await read(name, "bonding_slave/perm_hwaddr")) || (await read(name, "address")),
        isHardware: (await read(name, "type")) === "1" && (await exists(`${home}/${name}/device`))
      }))
  )
})

/** Whether the cable is in; undefined when the device is down, or gone. */
export const carrier = (device: string): Effect.Effect<boolean | undefined> =>
  Effect.promise(async () => {
    const text = await read(device, "carrier")
    return text === "" ? undefined : text === "1"
  })

/** Writes a kernel's setting for a device; a kernel without that family has none, which is no news. */
export const set = (device: string, family: "ipv4" | "ipv6", setting: string, value: string): Effect.Effect<void> =>
  Effect.promise(() => writeFile(`/proc/sys/net/${family}/conf/${device}/${setting}`, value).catch(() => {}))

/** Those that no link of a name is, for the links that are `any`. */
export const leftOver = (links: ReadonlyArray<LinkConfig>, present: ReadonlyArray<Device>): ReadonlyArray<Device> => {
  // a name of a link stands for that link alone, also where its device has another
  const named = new Set(links.flatMap((link) => (link.any === undefined ? [link.name, deviceOf(link, present)] : [])))
  return present.filter(({ isHardware, name }) => isHardware && !named.has(name))
}

/** The device that a link is, of those there are. */
export const deviceOf = (link: LinkConfig, present: ReadonlyArray<Device>): string | undefined => {
  const wanted = link.mac?.toLowerCase()
  return wanted === undefined
    ? present.find(({ name }) => name === (link.device ?? link.name))?.name
    : // a bond and its VLANs have the address of a member
      (present.find(({ isHardware, mac }) => isHardware && mac === wanted) ?? present.find(({ mac }) => mac === wanted))
        ?.name
}
