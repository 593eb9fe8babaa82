/** What a link's actor tells of it in the tree: the addresses it has and of whom, and what is missing, with the next step. */
import type { Annotations } from "../../actor/Self.ts"
import { format } from "../IpNetwork.ts"
import type { LinkConfig } from "../NetworkConfig.ts"
import type { Lease, Told } from "./Lease.ts"

/** What a link waits for. */
export type Missing = "DHCP" | "DHCPv6" | "routers"

export const missingOf = (link: LinkConfig, told: Told): ReadonlyArray<Missing> => [
  ...(link.dhcp4 && told.dhcp4 === undefined ? ["DHCP" as const] : []),
  ...(link.dhcp6 && told.dhcp6 === undefined ? ["DHCPv6" as const] : []),
  ...(link.acceptRouterAdvertisements && told.routers.length === 0 ? ["routers" as const] : [])
]

const silence: Readonly<Record<Missing, string>> = {
  DHCP: "no DHCP server has answered",
  DHCPv6: "no DHCPv6 server has answered",
  routers: "no router has advertised itself"
}

/** In what it is less than it should be; empty when in nothing. */
export const degradedBy = (
  carrier: boolean | undefined,
  missing: ReadonlyArray<Missing>,
  silentSeconds: number,
  patienceSeconds: number
): string => {
  if (carrier === undefined) return "its bond has not taken it yet"
  if (!carrier) return "it has no carrier; is the cable in, and the other end on?"
  if (missing.length === 0 || silentSeconds < patienceSeconds) return ""
  const what = missing.map((one) => silence[one]).join(", ")
  return `${what} within ${patienceSeconds} s; they are asked for ever. Is the link in the right network? If it has none, write an address out`
}

const leaseText = ({ addresses, seconds, server }: Lease): string =>
  [
    addresses.join(" "),
    ...(server === "" ? [] : [`of ${server}`]),
    ...(seconds === undefined ? [] : [`for ${seconds} s`])
  ].join(" ")

/** Facts for the tree; an empty one takes back what was told before. */
export const factsOf = (
  link: LinkConfig,
  told: Told,
  subnets: ReadonlyArray<string>,
  missing: ReadonlyArray<Missing>
): Annotations => {
  const addresses = [
    ...link.addresses,
    ...(told.dhcp4?.addresses ?? []),
    ...(told.dhcp6?.addresses ?? []),
    ...told.autoconfigured
  ]
  return {
    address: addresses.join(" "),
    gateway: [...link.gateways, ...told.gateways, ...told.routers].join(" "),
    lease: [told.dhcp4, told.dhcp6].flatMap((lease) => (lease === undefined ? [] : [leaseText(lease)])).join("; "),
    prefix: told.delegated.map(format).join(" "),
    subnets: subnets.join(" "),
    "waits for": missing.join(", ")
  }
}

/** What a link is to be, in a word or two. */
export const descriptionOf = (link: LinkConfig): string =>
  [
    ...(link.bond === undefined ? [] : [`bond of ${link.bond.members.join(" and ")}`]),
    ...(link.vlan === undefined ? [] : [`VLAN ${link.vlan.id} of ${link.vlan.parent}`]),
    ...link.addresses,
    ...(link.dhcp4 ? ["DHCP"] : []),
    ...(link.dhcp6 ? ["DHCPv6"] : []),
    ...(link.acceptRouterAdvertisements ? ["routers' advertisements"] : [])
  ].join(", ")
