/**
 * One `ip=` of the kernel command line: `CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1`, in the
 * syntax of the kernel's nfsroot.rst, with what dracut adds: IPv6 addresses in brackets and a prefix length for the mask.
 */
import { isIPv4, isIPv6 } from "node:net"

/** The address that a link is to have. */
export interface LinkAddress {
  /** The link, or none: the first there is. */
  readonly device: string | undefined
  readonly address: string
  readonly prefix: number
  readonly gateway: string | undefined
  readonly hostname: string | undefined
  readonly nameServers: ReadonlyArray<string>
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

const isAddress = (text: string): boolean => isIPv4(text) || isIPv6(text)

/** The address, or what is wrong with it, to be put after "it ". */
export const parseIp = (value: string): LinkAddress | string => {
  const [address = "", , gateway = "", mask = "", hostname = "", device = "", autoconf = "", ...rest] = fields(value)
  if (!["", "none", "off", "static"].includes(autoconf)) {
    return `asks for "${autoconf}"; only addresses that are written out are supported so far`
  }
  if (!isAddress(address)) return `has no address at its start, like ip=192.0.2.9::192.0.2.1:24::eth0:none`
  const prefix = prefixOf(mask, isIPv4(address) ? 32 : 128)
  if (prefix === undefined) return `has no netmask or prefix length in its fourth place ("${mask}")`
  if (gateway !== "" && (isIPv4(address) ? !isIPv4(gateway) : !isIPv6(gateway))) {
    return `has no address of the same kind as gateway in its third place ("${gateway}")`
  }
  if (device !== "" && !/^[^/\s]{1,15}$/.test(device)) return `names an impossible device, "${device}"`
  const nameServers = rest.slice(0, 2).filter((server) => server !== "")
  const wrong = nameServers.find((server) => !isAddress(server))
  if (wrong !== undefined) return `has a name server that is no address, "${wrong}"`
  return {
    address,
    prefix,
    gateway: gateway === "" ? undefined : gateway,
    hostname: hostname === "" ? undefined : hostname,
    device: device === "" ? undefined : device,
    nameServers
  }
}
