/**
 * The host's network as a branch of the tree: `init/network/links/NAME`, one actor per link, and `init/network/resolver`. Only a machine that boots
 * into Ironwood has it: elsewhere the links belong to somebody else.
 */
import * as Supervisor from "../actor/Supervisor.ts"
import type { LinkAddress } from "../host/IpParameter.ts"
import { link } from "./links/Link.ts"
import { resolver } from "./links/Resolver.ts"

/** One for each address: that of its device, and from the second address of a device on with a number. */
export const namesOf = (addresses: ReadonlyArray<LinkAddress>): ReadonlyArray<string> => {
  const seen = new Map<string, number>()
  return addresses.map(({ device = "any" }) => {
    const count = (seen.get(device) ?? 0) + 1
    seen.set(device, count)
    return count === 1 ? device : `${device}#${count}`
  })
}

export const network = (addresses: ReadonlyArray<LinkAddress>) => {
  const names = namesOf(addresses)
  return Supervisor.make("network", {
    description: "how the host is reached",
    children: [
      Supervisor.make("links", {
        description: "one per link of the host",
        children: addresses.map((address, index) => link(names[index] ?? String(index), address))
      }),
      resolver(addresses)
    ]
  })
}
