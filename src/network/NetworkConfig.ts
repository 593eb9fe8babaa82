/**
 * How the host is reached: its links, with what each is to have. It is the `network` part of a machine's configuration, and
 * what the kernel command line says is turned into the same ({@link fromParameters}), so there is one way from either to the
 * actors of `init/network`.
 *
 * ```yaml
 * links:
 *   - name: uplink
 *     mac: 52:54:00:12:34:56
 *     dhcp4: true
 *     acceptRouterAdvertisements: true
 *   - name: storage
 *     bond: { mode: active-backup, members: [eth1, eth2] }
 *     mtu: 9000
 *   - name: storage.42
 *     vlan: { parent: storage, id: 42 }
 *     addresses: [192.0.2.9/24, "2001:db8::9/64"]
 *     gateways: [192.0.2.1]
 * ```
 *
 * A link is a device of the kernel: that with its name unless `device`, `mac` or `any` says which, or a new one (`bond`,
 * `vlan`). Members of a bond and parents of a VLAN are links by their names; one that is not listed is one of no more words.
 *
 * Trap: what is checked here is what can be seen in the document. Whether there is such a device, and whether the kernel can
 * bond, is seen by the link's actor, and told in the tree.
 */
import * as Schema from "effect/Schema"
import { familyOf, isNetwork, parseNetwork } from "./IpNetwork.ts"

const most = 64

const list = <S extends Schema.Constraint>(item: S, maximum: number) =>
  Schema.optionalKey(
    Schema.Array(item).pipe(Schema.check(Schema.isMaxLength(maximum, { expected: `at most ${maximum} of them` })))
  )

const text = (wanting: (value: string) => string | undefined) =>
  Schema.String.pipe(
    Schema.check(
      Schema.makeFilter((value: string) => {
        const wanted = wanting(value)
        return wanted === undefined ? undefined : `must be ${wanted}`
      })
    )
  )

const flag = Schema.optionalKey(Schema.Boolean)

/** What the kernel calls its own settings for all links, and cannot be a link. */
const reserved = ["lo", "all", "default", ".", ".."]

/** A name that the kernel takes for a device. */
export const LinkName = text((value) =>
  /^[^/\s:]{1,15}$/.test(value) && !reserved.includes(value)
    ? undefined
    : `a link's name of 1 to 15 characters, without blanks, "/" and ":", and not one of ${reserved.join(" ")}`
)

const Address = text((value) =>
  familyOf(value) === undefined ? "an IP address, like 192.0.2.1 or 2001:db8::1" : undefined
)

const AddressAndPrefix = text((value) =>
  value.includes("/") && parseNetwork(value) !== undefined
    ? undefined
    : "an IP address and the length of its prefix, like 192.0.2.9/24 or 2001:db8::9/64"
)

const Destination = text((value) => {
  const network = value === "default" ? undefined : parseNetwork(value)
  return value === "default" || (network !== undefined && isNetwork(network))
    ? undefined
    : `"default" or a network, like 198.51.100.0/24 or 2001:db8::/32, with nothing set behind its prefix`
})

const Domain = text((value) =>
  value.length <= 253 &&
  /^(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?$/.test(
    value
  )
    ? undefined
    : "a domain, like example.org"
)

const Mac = text((value) =>
  /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i.test(value) ? undefined : "a hardware address, like 52:54:00:12:34:56"
)

export const Route = Schema.Struct({
  to: Destination,
  /** The router; without one the network is on the link itself. */
  via: Schema.optionalKey(Address),
  metric: Schema.optionalKey(
    Schema.Int.pipe(
      Schema.check(Schema.isBetween({ minimum: 0, maximum: 4_294_967_295 }, { expected: "0 to 4294967295" }))
    )
  )
}).pipe(
  Schema.check(
    Schema.makeFilter(({ to, via }) =>
      to === "default" && via === undefined
        ? { path: ["via"], issue: "a route to default needs a router" }
        : to !== "default" && via !== undefined && parseNetwork(to)?.family !== familyOf(via)
          ? { path: ["via"], issue: "the router must be of the same kind, IPv4 or IPv6, as the network" }
          : undefined
    )
  )
)
export type Route = typeof Route.Type

/** The kernel's names for what a bond does with its members. */
export const BondMode = Schema.Literals([
  "balance-rr",
  "active-backup",
  "balance-xor",
  "broadcast",
  "802.3ad",
  "balance-tlb",
  "balance-alb"
])

/** What becomes of a delegated prefix: a /64 of it for another link, whose first address is the host's. */
export const DelegatedSubnet = Schema.Struct({
  link: LinkName,
  /** Which /64 of the prefix, from 0. */
  number: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }, { expected: "0 to 65535" })))
})

export const PrefixDelegation = Schema.Struct({
  /** The length that is asked for; the server may give another. */
  length: Schema.optionalKey(
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 8, maximum: 64 }, { expected: "a length from 8 to 64" })))
  ),
  subnets: list(DelegatedSubnet, most)
})

/** The fields that say which device a link is. */
const kinds = ["device", "mac", "any", "bond", "vlan"] as const

const fields = {
  name: LinkName.annotate({
    description: "Its name in the tree and here; that of the device too, unless another field says which device it is."
  }),
  device: Schema.optionalKey(LinkName).annotate({ description: "The device, by the kernel's name." }),
  mac: Schema.optionalKey(Mac).annotate({ description: "The device, by its hardware address." }),
  any: Schema.optionalKey(Schema.Literals(["first", "each"])).annotate({
    description:
      "`first`: the first device that no other link is. `each`: every such device, each with an actor of its own."
  }),
  bond: Schema.optionalKey(
    Schema.Struct({
      mode: BondMode,
      members: Schema.Array(LinkName).pipe(Schema.check(Schema.isBetweenLength(1, 16, { expected: "1 to 16 members" })))
    })
  ).annotate({ description: "A device made of others, which have no addresses of their own." }),
  vlan: Schema.optionalKey(
    Schema.Struct({
      parent: LinkName,
      id: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 4094 }, { expected: "1 to 4094" })))
    })
  ).annotate({ description: "A device made of one VLAN of another." }),
  addresses: list(AddressAndPrefix, most).annotate({
    description: "Addresses that are written out, like 192.0.2.9/24."
  }),
  gateways: list(Address, 2).annotate({ description: "Routers for everything else, one of each kind at most." }),
  routes: list(Route, 256).annotate({ description: "Networks behind other routers." }),
  dhcp4: flag.annotate({ description: "Asks for an address by DHCP." }),
  dhcp6: flag.annotate({ description: "Asks for an address by DHCPv6, which tells of no routers." }),
  prefixDelegation: Schema.optionalKey(PrefixDelegation).annotate({
    description: "Asks for a prefix of its own, by DHCPv6; other links get subnets of it."
  }),
  acceptRouterAdvertisements: flag.annotate({
    description: "Takes addresses (SLAAC), routers and name servers from routers' advertisements."
  }),
  mtu: Schema.optionalKey(
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 576, maximum: 65_535 }, { expected: "576 to 65535" })))
  ).annotate({ description: "Bytes of a packet at most; default what the device or the network says." }),
  nameServers: list(Address, most).annotate({ description: "Asked before those that servers and routers tell of." }),
  searchDomains: list(Domain, most).annotate({ description: "Where names without a dot are looked for." })
}

interface Wrong {
  readonly path: ReadonlyArray<PropertyKey>
  readonly issue: string
}

const linkProblems = (written: Schema.Struct.Type<typeof fields>): ReadonlyArray<Wrong> => {
  const link = linkOf(written)
  const said = kinds.filter((kind) => link[kind] !== undefined)
  const families = link.addresses.map((address) => parseNetwork(address)?.family)
  return [
    ...said.slice(1).map((kind) => ({
      path: [kind],
      issue: `${said[0] ?? ""} says already which device it is; leave one of them out`
    })),
    ...link.gateways.flatMap((gateway, index) =>
      link.gateways.findIndex((other) => familyOf(other) === familyOf(gateway)) < index
        ? [{ path: ["gateways", index], issue: "it is the second of its kind; further ones are routes with a metric" }]
        : []
    ),
    ...link.gateways.flatMap((gateway, index) =>
      families.includes(familyOf(gateway))
        ? []
        : [{ path: ["gateways", index], issue: "the link has no address of this kind that is written out" }]
    ),
    ...(link.any === "each" && link.addresses.length > 0
      ? [{ path: ["addresses"], issue: "one address cannot be that of each device; say any: first" }]
      : []),
    ...(link.prefixDelegation !== undefined && !link.dhcp6
      ? [{ path: ["prefixDelegation"], issue: "it is asked for by DHCPv6; say dhcp6: true" }]
      : []),
    ...((link.mtu ?? 1280) < 1280 && (families.includes(6) || link.dhcp6 || link.acceptRouterAdvertisements)
      ? [{ path: ["mtu"], issue: "IPv6 needs 1280 at least" }]
      : [])
  ]
}

/** A link as it is written: what is not said is not there. */
export const LinkDocument = Schema.Struct(fields).pipe(Schema.check(Schema.makeFilter(linkProblems)))
export type LinkDocument = typeof LinkDocument.Type

type Usual =
  | "addresses"
  | "gateways"
  | "routes"
  | "dhcp4"
  | "dhcp6"
  | "acceptRouterAdvertisements"
  | "nameServers"
  | "searchDomains"

/** A link, with what is not said of it as it is then. */
export interface LinkConfig extends Omit<LinkDocument, Usual>, Required<Pick<LinkDocument, Usual>> {}

/** What a link is made of, by names of links. */
export const partsOf = ({ bond, vlan }: LinkConfig): ReadonlyArray<string> => [
  ...(bond?.members ?? []),
  ...(vlan === undefined ? [] : [vlan.parent])
]

/** Whether a link is to have any address at all. */
export const hasAddresses = (link: LinkConfig): boolean =>
  link.addresses.length > 0 || link.dhcp4 || link.dhcp6 || link.acceptRouterAdvertisements

/** Where a link is among its own parts, if it is. */
const cycleOf = (name: string, links: ReadonlyMap<string, LinkConfig>, path: ReadonlyArray<string> = []): boolean =>
  path.includes(name)
    ? path[0] === name
    : partsOf(links.get(name) ?? plain(name)).some((part) => cycleOf(part, links, [...path, name]))

const problemsOf = ({
  links: written = []
}: {
  readonly links?: ReadonlyArray<LinkDocument>
}): ReadonlyArray<Wrong> => {
  const links = written.map(linkOf)
  const byName = new Map(links.map((link) => [link.name, link]))
  const bondOf = (member: string): ReadonlyArray<string> =>
    links.filter(({ bond }) => bond?.members.includes(member) === true).map(({ name }) => name)
  return links.flatMap((link, index): ReadonlyArray<Wrong> => {
    const at = (path: ReadonlyArray<PropertyKey>, issue: string): Wrong => ({ path: ["links", index, ...path], issue })
    return [
      ...(links.findIndex(({ name }) => name === link.name) < index
        ? [at(["name"], `another link is called ${link.name} already`)]
        : []),
      ...(link.any !== undefined && links.find(({ any }) => any === link.any) !== link
        ? [at(["any"], `another link is "${link.any}" already`)]
        : []),
      ...(link.bond?.members ?? []).flatMap((member, place) => {
        const here = ["bond", "members", place]
        const listed = byName.get(member)
        return [
          ...(link.bond?.members.indexOf(member) === place ? [] : [at(here, "it is a member already")]),
          ...(bondOf(member)[0] === link.name
            ? []
            : [at(here, `it is a member of ${bondOf(member)[0] ?? ""} already`)]),
          ...(listed !== undefined && hasAddresses(listed)
            ? [at(here, "a member of a bond has no addresses of its own; give them to the bond")]
            : []),
          ...(listed?.any === undefined ? [] : [at(here, "it is whichever device is left over; name the device")])
        ]
      }),
      ...(link.vlan !== undefined && byName.get(link.vlan.parent)?.any === "each"
        ? [at(["vlan", "parent"], "it is more than one device")]
        : []),
      ...(cycleOf(link.name, byName)
        ? [at([link.bond === undefined ? "vlan" : "bond"], "it is a part of itself")]
        : []),
      ...(link.prefixDelegation?.subnets ?? []).flatMap((subnet, place) =>
        byName.has(subnet.link) && byName.get(subnet.link)?.any !== "each" && subnet.link !== link.name
          ? []
          : [at(["prefixDelegation", "subnets", place, "link"], "it must be another link of this document")]
      )
    ]
  })
}

const parts = {
  links: list(LinkDocument, most).annotate({
    description:
      "Each link by its `name`, with the device (`device`, `mac`, `any`, `bond`, `vlan`; else that of its name) and what it has: " +
      "`addresses`, `gateways`, `routes`, `dhcp4`, `dhcp6`, `prefixDelegation`, `acceptRouterAdvertisements`, `mtu`, `nameServers`, `searchDomains`."
  }),
  nameServers: list(Address, most).annotate({ description: "Servers to ask for names, before those of the links." }),
  searchDomains: list(Domain, most).annotate({ description: "Where names without a dot are looked for." })
}

/** The document. */
export const NetworkDocument = Schema.Struct(parts).pipe(Schema.check(Schema.makeFilter(problemsOf)))
export type NetworkDocument = typeof NetworkDocument.Type

/** The document, with what is not said in it as it is then. */
export interface NetworkConfig extends Required<Omit<NetworkDocument, "links">> {
  readonly links: ReadonlyArray<LinkConfig>
}

/** A link of that name of which nothing is said. */
export const plain = (name: string): LinkConfig => ({
  name,
  addresses: [],
  gateways: [],
  routes: [],
  dhcp4: false,
  dhcp6: false,
  acceptRouterAdvertisements: false,
  nameServers: [],
  searchDomains: []
})

const linkOf = (written: LinkDocument): LinkConfig => ({ ...plain(written.name), ...written })

export const empty: NetworkConfig = { links: [], nameServers: [], searchDomains: [] }

/** What a document says. */
export const configOf = (written: NetworkDocument): NetworkConfig => ({
  ...empty,
  ...written,
  links: (written.links ?? []).map(linkOf)
})

/** With every member and parent that is not listed as a link of its own, before what it is a part of. */
export const complete = (config: NetworkConfig): ReadonlyArray<LinkConfig> => {
  const byName = new Map(config.links.map((link) => [link.name, link]))
  const all = new Map<string, LinkConfig>()
  const add = (link: LinkConfig): void => {
    for (const part of partsOf(link)) if (!all.has(part)) add(byName.get(part) ?? plain(part))
    all.set(link.name, link)
  }
  for (const link of config.links) add(link)
  return [...all.values()]
}
