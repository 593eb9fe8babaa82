/**
 * One `ip=` of the kernel command line, in the syntax of the kernel's nfsroot.rst with what dracut.cmdline(7) adds to it:
 *
 * - `ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:HOW[:DNS[:DNS[:NTP]]]`, or `…:HOW[:MTU[:MAC]]`
 * - `ip=DEVICE:HOW[:MTU[:MAC]]`
 * - `ip=HOW`
 *
 * IPv6 addresses stand in brackets, and a prefix length may stand for the mask. `HOW` is what {@link asks} has. What becomes of
 * it is for the network (`network/FromParameters.ts`).
 */
import { isIP, isIPv4, isIPv6 } from "node:net"
import { isDevice } from "./DeviceParameters.ts"

/** Where addresses come from, besides those that are written out. */
export type Source = "dhcp4" | "dhcp6" | "router"

/** What was asked of a link. */
export interface LinkParameter {
  /** The device, or none: the first there is for an address that is written out, else each. */
  readonly device: string | undefined
  /** With its prefix length. */
  readonly address: string | undefined
  readonly gateway: string | undefined
  readonly hostname: string | undefined
  readonly sources: ReadonlyArray<Source>
  readonly mtu: number | undefined
  readonly nameServers: ReadonlyArray<string>
  readonly timeServer: string | undefined
}

/** What the words for `HOW` ask for. `dhcp6` has the routers too, as DHCPv6 tells of none. */
const asks: Readonly<Record<string, ReadonlyArray<Source>>> = {
  "": [],
  none: [],
  off: [],
  static: [],
  link6: [],
  dhcp: ["dhcp4"],
  "single-dhcp": ["dhcp4"],
  on: ["dhcp4"],
  any: ["dhcp4"],
  both: ["dhcp4"],
  dhcp6: ["dhcp6", "router"],
  auto6: ["router"],
  either6: ["router", "dhcp6"]
}

/** Splits at colons outside brackets, and takes the brackets off. */
const fields = (text: string): ReadonlyArray<string> =>
  text.split(/:(?![^[]*\])/).map((field) => (field.startsWith("[") && field.endsWith("]") ? field.slice(1, -1) : field))

/** The prefix length of a mask, or undefined when it has holes. */
const prefixOfMask = (mask: string): number | undefined => {
  const bits = mask
    .split(".")
    .map((part) => Number(part).toString(2).padStart(8, "0"))
    .join("")
  return /^1*0*$/.test(bits) ? bits.replace(/0+$/, "").length : undefined
}

const prefixOf = (text: string, longest: number): number | undefined => {
  if (isIPv4(text) && longest === 32) return prefixOfMask(text)
  return /^\d{1,3}$/.test(text) && Number(text) <= longest ? Number(text) : undefined
}

const orNone = (text: string): string | undefined => (text === "" ? undefined : text)

/** Whether these fields are an MTU and a hardware address, or nothing: the colons of the address are fields, too. */
const isMtuAndAddress = ([, ...address]: ReadonlyArray<string>): boolean =>
  address.length <= 1 || (address.length === 6 && address.every((part) => /^[0-9a-f]{2}$/i.test(part)))

/** What stands behind `HOW`: name servers and a time server, or an MTU and a hardware address. */
const rest = (parts: ReadonlyArray<string>): Pick<LinkParameter, "mtu" | "nameServers" | "timeServer"> | string => {
  const [first = "", ...others] = parts
  if (/^\d{1,5}$/.test(first)) {
    const mtu = Number(first)
    if (others.some((part) => part !== "")) return "asks for another hardware address, which links do not get"
    return mtu >= 576 && mtu <= 65_535
      ? { mtu, nameServers: [], timeServer: undefined }
      : `has an MTU that is none, "${first}"`
  }
  const nameServers = parts.slice(0, 2).filter((server) => server !== "")
  const wrong = nameServers.find((server) => isIP(server) === 0)
  if (wrong !== undefined) return `has a name server that is no address, "${wrong}"`
  const timeServer = orNone(parts[2] ?? "")
  if (timeServer !== undefined && isIP(timeServer) === 0) return `has a time server that is no address, "${timeServer}"`
  const more = parts.slice(3).join(":")
  return more === "" ? { mtu: undefined, nameServers, timeServer } : `has something behind its time server, "${more}"`
}

const whole = (value: string): LinkParameter | string => {
  const [address = "", , gateway = "", mask = "", hostname = "", device = "", how = "", ...more] = fields(value)
  const sources = asks[how]
  if (sources === undefined) return `asks for "${how}"; it takes one of ${Object.keys(asks).slice(1).join(", ")}`
  if (address === "" ? how === "" : isIP(address) === 0) {
    return "has no address at its start, like ip=192.0.2.9::192.0.2.1:24::eth0:none, and no dhcp, dhcp6 or auto6"
  }
  const prefix = address === "" ? 0 : prefixOf(mask, isIPv4(address) ? 32 : 128)
  if (prefix === undefined) return `has no netmask or prefix length in its fourth place ("${mask}")`
  if (gateway !== "" && (address === "" || (isIPv4(address) ? !isIPv4(gateway) : !isIPv6(gateway)))) {
    return `has no address of the same kind as gateway in its third place ("${gateway}")`
  }
  if (device !== "" && !isDevice(device)) return `names an impossible device, "${device}"`
  const behind = rest(more)
  if (typeof behind === "string") return behind
  return {
    device: orNone(device),
    address: address === "" ? undefined : `${address}/${prefix}`,
    gateway: orNone(gateway),
    hostname: orNone(hostname),
    sources,
    ...behind
  }
}

/** What it asks for, or what is wrong with it, to be put after "it ". */
export const parseIp = (value: string): LinkParameter | string => {
  const [first = "", how = "", ...more] = fields(value)
  const alone = asks[first]
  if (alone !== undefined && how === "" && more.every((part) => part === "")) {
    return whole(`::::::${first}`)
  }
  return isIP(first) === 0 && first !== "" && isDevice(first) && how !== "" && isMtuAndAddress(more)
    ? whole(`:::::${first}:${[how, ...more].join(":")}`)
    : whole(value)
}
