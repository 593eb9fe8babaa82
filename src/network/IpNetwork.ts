/**
 * IP addresses and networks in CIDR notation, as values: what the configuration of links, and the parts of a delegated
 * prefix, are computed with. Text in, text out; addresses are numbers in between.
 *
 * Trap: {@link parseNetwork} keeps the host's part of an address (`192.0.2.9/24` stays that): it is the address of a link as
 * often as a network. {@link isNetwork} tells whether there is none.
 */
import { isIPv4, isIPv6, SocketAddress } from "node:net"

export type Family = 4 | 6

export interface IpNetwork {
  readonly family: Family
  readonly address: string
  readonly prefix: number
}

export const familyOf = (address: string): Family | undefined =>
  isIPv4(address) ? 4 : isIPv6(address) && !address.includes("%") ? 6 : undefined

const bitsOf = (family: Family): number => (family === 4 ? 32 : 128)

/** Address and prefix length; without a length it is one address alone. Undefined when it is neither. */
export const parseNetwork = (text: string): IpNetwork | undefined => {
  const [, address = "", length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const family = familyOf(address)
  if (family === undefined) return undefined
  const prefix = length === undefined ? bitsOf(family) : Number(length)
  return prefix <= bitsOf(family) ? { family, address, prefix } : undefined
}

const numberOf = ({ address, family }: Pick<IpNetwork, "address" | "family">): bigint => {
  if (family === 4) return address.split(".").reduce((sum, part) => sum * 256n + BigInt(part), 0n)
  // the last 32 bits may be written like an IPv4 address
  const plain = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a: string, b: string, c: string, d: string) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((part) => part.toString(16)).join(":")
  )
  const [head = "", tail] = plain.split("::")
  const groups = (part: string): ReadonlyArray<string> => (part === "" ? [] : part.split(":"))
  const before = groups(head)
  const after = groups(tail ?? "")
  const between = Array.from({ length: 8 - before.length - after.length }, () => "0")
  return [...before, ...between, ...after].reduce((sum, group) => sum * 65_536n + BigInt(`0x${group}`), 0n)
}

const textOf = (family: Family, number: bigint): string => {
  const size = family === 4 ? 8 : 16
  const parts = Array.from({ length: bitsOf(family) / size }, (_, index) =>
    Number((number >> BigInt(bitsOf(family) - size * (index + 1))) & BigInt(2 ** size - 1))
  )
  // the kernel's way to write it: the longest run of zeros as "::"
  return family === 4
    ? parts.join(".")
    : new SocketAddress({ family: "ipv6", address: parts.map((part) => part.toString(16)).join(":") }).address
}

const hostBits = ({ family, prefix }: IpNetwork): bigint => BigInt(bitsOf(family) - prefix)

/** Whether the host's part is zero. */
export const isNetwork = (network: IpNetwork): boolean => numberOf(network) % (1n << hostBits(network)) === 0n

/** The network that an address is in. */
export const networkOf = (network: IpNetwork): IpNetwork => ({
  ...network,
  address: textOf(network.family, (numberOf(network) >> hostBits(network)) << hostBits(network))
})

/** The one spelling of an address, which the kernel has too. */
export const canonical = (address: string): string => {
  const family = familyOf(address)
  return family === undefined ? address : textOf(family, numberOf({ address, family }))
}

export const format = ({ address, prefix }: IpNetwork): string => `${address}/${prefix}`

/** The part with this number, of parts of `length` bits, of a network; undefined when it has no such part. */
export const partOf = (network: IpNetwork, length: number, number: number): IpNetwork | undefined => {
  const more = length - network.prefix
  if (more < 0 || length > bitsOf(network.family) || BigInt(number) >= 1n << BigInt(more)) return undefined
  const base = numberOf(networkOf(network))
  const shift = BigInt(bitsOf(network.family) - length)
  return { family: network.family, address: textOf(network.family, base + (BigInt(number) << shift)), prefix: length }
}

/** The address with this number in a network. */
export const hostOf = (network: IpNetwork, number: number): IpNetwork => ({
  ...network,
  address: textOf(network.family, numberOf(networkOf(network)) + BigInt(number))
})
