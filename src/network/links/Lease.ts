/**
 * What a link was told by servers and routers: the answer of dhcpcd's control socket to `--getinterfaces`, decoded. It is a
 * count, then for each protocol that has something the length of a block (both 64 bits, as this machine writes them) and the
 * block: `NAME=value` strings with a NUL after each, those that dhcpcd-run-hooks(8) documents.
 *
 * Servers and routers are strangers: what is not an address, a number or a domain as it should be is left out.
 */
import { canonical, familyOf, type IpNetwork, parseNetwork } from "../IpNetwork.ts"

/** A DHCP lease of either kind. */
export interface Lease {
  readonly addresses: ReadonlyArray<string>
  readonly server: string
  /** Seconds, of the longest; undefined: for ever. */
  readonly seconds: number | undefined
}

/** A prefix that a server has given to this host. */
export interface Delegated extends IpNetwork {
  /** Seconds; undefined: for ever. */
  readonly preferred: number | undefined
  readonly valid: number | undefined
}

export interface Told {
  readonly dhcp4: Lease | undefined
  readonly dhcp6: Lease | undefined
  readonly delegated: ReadonlyArray<Delegated>
  /** Routers that a DHCP server names. */
  readonly gateways: ReadonlyArray<string>
  /** Routers that advertise themselves. */
  readonly routers: ReadonlyArray<string>
  /** Addresses made from what they advertise. */
  readonly autoconfigured: ReadonlyArray<string>
  readonly nameServers: ReadonlyArray<string>
  readonly searchDomains: ReadonlyArray<string>
  readonly hostname: string | undefined
}

export const nothing: Told = {
  dhcp4: undefined,
  dhcp6: undefined,
  delegated: [],
  gateways: [],
  routers: [],
  autoconfigured: [],
  nameServers: [],
  searchDomains: [],
  hostname: undefined
}

type Block = ReadonlyMap<string, string>

/** Most bytes of an answer; dhcpcd itself takes no more than some kilobytes per protocol. */
export const mostBytes = 1024 * 1024

/** The blocks, once all of them are there; undefined before, and a string when it is no such answer. */
export const blocksOf = (bytes: Buffer): ReadonlyArray<Block> | string | undefined => {
  if (bytes.length < 8) return undefined
  const count = Number(bytes.readBigUInt64LE(0))
  if (count > 64) return `it announces ${count} blocks`
  const blocks: Array<Block> = []
  let at = 8
  for (let index = 0; index < count; index += 1) {
    if (bytes.length < at + 8) return undefined
    const length = Number(bytes.readBigUInt64LE(at))
    if (length > mostBytes) return `it announces a block of ${length} bytes`
    if (bytes.length < at + 8 + length) return undefined
    const strings = bytes.toString("latin1", at + 8, at + 8 + length).split("\0")
    const pairs = strings.flatMap((text): ReadonlyArray<readonly [string, string]> => {
      const equals = text.indexOf("=")
      return equals > 0 ? [[text.slice(0, equals), text.slice(equals + 1)]] : []
    })
    blocks.push(new Map(pairs))
    at += 8 + length
  }
  return blocks
}

const words = (text: string | undefined): ReadonlyArray<string> =>
  (text ?? "").split(/\s+/).filter((word) => word !== "")

const addresses = (text: string | undefined): ReadonlyArray<string> =>
  words(text).filter((word) => familyOf(word) !== undefined)

const domains = (text: string | undefined): ReadonlyArray<string> =>
  words(text).filter((word) => word.length <= 253 && /^[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?$/.test(word))

/** Seconds; all ones is for ever. */
const secondsOf = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,10}$/.test(text) && Number(text) < 4_294_967_295 ? Number(text) : undefined

/** The values of `PREFIXn…`, for n from 1 on, as long as there are any. */
const numbered = (block: Block, name: (number: number) => string): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (let number = 1; block.has(name(number)); number += 1) found.push(number)
  return found
}

const longest = (seconds: ReadonlyArray<number | undefined>): number | undefined =>
  seconds.includes(undefined) || seconds.length === 0 ? undefined : Math.max(...seconds.map((value) => value ?? 0))

const fromDhcp4 = (block: Block, told: Told): Told => {
  const network = parseNetwork(`${block.get("new_ip_address") ?? ""}/${block.get("new_subnet_cidr") ?? "32"}`)
  if (network === undefined) return told
  const name = block.get("new_host_name") ?? ""
  return {
    ...told,
    dhcp4: {
      addresses: [`${network.address}/${network.prefix}`],
      server: addresses(block.get("new_dhcp_server_identifier"))[0] ?? "",
      seconds: secondsOf(block.get("new_dhcp_lease_time"))
    },
    gateways: [...told.gateways, ...addresses(block.get("new_routers"))],
    nameServers: [...told.nameServers, ...addresses(block.get("new_domain_name_servers"))],
    searchDomains: [...told.searchDomains, ...domains(block.get("new_domain_search") ?? block.get("new_domain_name"))],
    hostname: /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$/.test(name) ? name : told.hostname
  }
}

const fromRouters = (block: Block, told: Told): Told => {
  const routers = numbered(block, (number) => `nd${number}_from`)
  const of = (number: number, item: string) => {
    const name = (index: number) => `nd${number}_${item.replace("#", String(index))}`
    return numbered(block, name).map((index) => block.get(name(index)))
  }
  return {
    ...told,
    routers: [...told.routers, ...routers.flatMap((number) => addresses(block.get(`nd${number}_from`)))],
    autoconfigured: [
      ...told.autoconfigured,
      ...routers
        .flatMap((number) => of(number, "addr#"))
        .filter((text) => text !== undefined)
        .filter((text) => parseNetwork(text) !== undefined)
    ],
    nameServers: [...told.nameServers, ...routers.flatMap((number) => of(number, "rdnss#_servers").flatMap(addresses))],
    searchDomains: [...told.searchDomains, ...routers.flatMap((number) => of(number, "dnssl#_search").flatMap(domains))]
  }
}

const fromDhcp6 = (block: Block, told: Told): Told => {
  const leased: Array<{ readonly address: string; readonly seconds: number | undefined }> = []
  const delegated: Array<Delegated> = []
  for (const association of numbered(block, (number) => `new_dhcp6_ia_na${number}_iaid`)) {
    const name = (number: number) => `new_dhcp6_ia_na${association}_ia_addr${number}`
    for (const number of numbered(block, name)) {
      const [address] = addresses(block.get(name(number)))
      if (address !== undefined) {
        leased.push({ address: `${canonical(address)}/128`, seconds: secondsOf(block.get(`${name(number)}_vltime`)) })
      }
    }
  }
  for (const association of numbered(block, (number) => `new_dhcp6_ia_pd${number}_iaid`)) {
    const name = (number: number) => `new_dhcp6_ia_pd${association}_prefix${number}`
    for (const number of numbered(block, name)) {
      const network = parseNetwork(`${block.get(name(number)) ?? ""}/${block.get(`${name(number)}_length`) ?? ""}`)
      if (network?.family !== 6) continue
      const [preferred, valid] = ["pltime", "vltime"].map((what) => secondsOf(block.get(`${name(number)}_${what}`)))
      delegated.push({ ...network, preferred, valid })
    }
  }
  return {
    ...told,
    dhcp6:
      leased.length === 0 && delegated.length === 0
        ? told.dhcp6
        : {
            addresses: leased.map(({ address }) => address),
            server: block.get("new_dhcp6_server_id") ?? "",
            seconds: longest(leased.map(({ seconds }) => seconds))
          },
    delegated: [...told.delegated, ...delegated],
    nameServers: [...told.nameServers, ...addresses(block.get("new_dhcp6_name_servers"))],
    searchDomains: [...told.searchDomains, ...domains(block.get("new_dhcp6_domain_search"))]
  }
}

/** All of it in one. */
export const toldBy = (blocks: ReadonlyArray<Block>): Told =>
  blocks.reduce((told, block) => {
    switch (block.get("protocol")) {
      case "dhcp":
        return fromDhcp4(block, told)
      case "ra":
        return fromRouters(block, told)
      case "dhcp6":
        return fromDhcp6(block, told)
      default:
        return told
    }
  }, nothing)
