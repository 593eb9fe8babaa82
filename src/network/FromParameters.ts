/**
 * What the kernel command line says of the network (`ip=`, `bond=`, `vlan=`, `nameserver=`), as the document that a machine's
 * configuration has for it. So there is one way from either to the actors.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { LinkParameter } from "../host/IpParameter.ts"
import type { KernelParameters } from "../host/KernelParameters.ts"
import { canonical, familyOf } from "./IpNetwork.ts"
import * as NetworkConfig from "./NetworkConfig.ts"

export type Parameters = Pick<KernelParameters, "links" | "bonds" | "vlans" | "nameServers">

/** The names of the links that are no device of a name. */
const unnamed = { first: "first", each: "each" } as const

const kindOf = ({ address, device }: LinkParameter): "named" | "first" | "each" =>
  device !== undefined ? "named" : address === undefined ? "each" : "first"

const distinct = (items: ReadonlyArray<string>): ReadonlyArray<string> => [...new Set(items)]

/** All that is said of one link, in one. */
const linkOf = (name: string, said: ReadonlyArray<LinkParameter>): NetworkConfig.LinkConfig => {
  const [first] = said
  const kind = first === undefined ? "named" : kindOf(first)
  const has = (source: LinkParameter["sources"][number]): boolean =>
    said.some(({ sources }) => sources.includes(source))
  const gateways = said.flatMap(({ gateway }) => (gateway === undefined ? [] : [canonical(gateway)]))
  const mtu = said.findLast((link) => link.mtu !== undefined)?.mtu
  return {
    ...NetworkConfig.plain(name),
    ...(kind === "named" ? {} : { any: kind }),
    addresses: distinct(said.flatMap(({ address }) => (address === undefined ? [] : [address]))),
    // one of each kind
    gateways: gateways.filter(
      (gateway, index) => gateways.findIndex((other) => familyOf(other) === familyOf(gateway)) === index
    ),
    dhcp4: has("dhcp4"),
    dhcp6: has("dhcp6"),
    acceptRouterAdvertisements: has("router"),
    ...(mtu === undefined ? {} : { mtu }),
    nameServers: distinct(said.flatMap(({ nameServers }) => nameServers))
  }
}

const decode = Schema.decodeUnknownResult(NetworkConfig.NetworkDocument, { errors: "all", onExcessProperty: "error" })

export interface FromParameters {
  readonly config: NetworkConfig.NetworkConfig
  /** What the host is to call itself. */
  readonly hostname: string | undefined
  /** What of it contradicts itself and is left out as a whole; sentences. */
  readonly problems: ReadonlyArray<string>
}

/** The document. */
export const fromParameters = (parameters: Parameters): FromParameters => {
  const asked = parameters.links.filter(
    (link) => link.device !== undefined || link.address !== undefined || link.sources.length > 0
  )
  const byName = Map.groupBy(asked, (link) => {
    const kind = kindOf(link)
    return kind === "named" ? (link.device ?? "") : unnamed[kind]
  })
  const links = new Map([...byName].map(([name, said]) => [name, linkOf(name, said)] as const))
  const made = (name: string): NetworkConfig.LinkConfig => links.get(name) ?? NetworkConfig.plain(name)
  const { bonds, vlans } = parameters
  const ofOthers = new Set([...bonds, ...vlans].map(({ name }) => name))
  const all = [
    ...bonds.map(({ members, mode, mtu, name }) => ({
      ...made(name),
      bond: { mode, members },
      ...(mtu === undefined ? {} : { mtu })
    })),
    ...vlans.map(({ id, name, parent }) => ({ ...made(name), vlan: { parent, id } })),
    ...[...links.values()].filter(({ name }) => !ofOthers.has(name))
  ]
  const hostname = asked.find((link) => link.hostname !== undefined)?.hostname
  const decoded = decode({ ...NetworkConfig.empty, links: all, nameServers: parameters.nameServers })
  return Result.match(decoded, {
    onSuccess: (document) => ({ config: NetworkConfig.configOf(document), hostname, problems: [] }),
    onFailure: ({ message }) => ({
      config: NetworkConfig.empty,
      hostname,
      problems: [`what ip=, bond= and vlan= say of the network is ignored: ${message.replaceAll(/\s+/g, " ")}`]
    })
  })
}
