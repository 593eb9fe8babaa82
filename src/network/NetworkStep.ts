/**
 * The network part of the machine config as a step of a machine's start: whenever it changes, the links go over to it. It does
 * not wait for servers or cables; what a link lacks is told by its own actor.
 */
import * as Effect from "effect/Effect"
import type { Setting } from "../host/Setting.ts"
import { following } from "../host/Step.ts"
import type { Network } from "./Network.ts"
import type { NetworkConfig } from "./NetworkConfig.ts"

export const networkStep = (setting: Setting<NetworkConfig>, network: Network) =>
  following("network-config", { description: "which links there are", deadline: "1 minute" }, setting, (wanted) =>
    Effect.as(network.apply(wanted), { facts: { links: wanted.links.map(({ name }) => name).join(" ") } })
  )
