/**
 * The host's network as a branch of the tree: `init/network/links/NAME`, one actor per link. Only a machine that boots
 * into Ironwood has it: elsewhere the links belong to somebody else.
 */
import * as Supervisor from "../actor/Supervisor.ts"
import type { LinkAddress } from "../host/IpParameter.ts"
import { link } from "./links/Link.ts"

export const network = (addresses: ReadonlyArray<LinkAddress>) =>
  Supervisor.make("network", {
    description: "how the host is reached",
    children: [
      Supervisor.make("links", {
        description: "one per link of the host",
        children: addresses.map((address, index) => link(address.device ?? `any-${index}`, address))
      })
    ]
  })
