/**
 * The host's network as a branch of the tree, and the handle on it: `init/network/links/NAME`, one actor per link, and
 * `init/network/resolver`. Only a machine that boots into Ironwood has it: elsewhere the links belong to somebody else.
 */
import { isDeepStrictEqual } from "node:util"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Actor from "../actor/Actor.ts"
import type { ChildSpec } from "../actor/ChildSpec.ts"
import * as DynamicSupervisor from "../actor/DynamicSupervisor.ts"
import * as Supervisor from "../actor/Supervisor.ts"
import type { Processes } from "../taproot/Processes.ts"
import * as Duid from "./links/Duid.ts"
import { eachLink } from "./links/EachLink.ts"
import { link } from "./links/Link.ts"
import { resolver } from "./links/Resolver.ts"
import * as World from "./links/World.ts"
import { complete, type LinkConfig, type NetworkConfig, partsOf } from "./NetworkConfig.ts"

export interface Options {
  readonly config: NetworkConfig
  /** What the host is to call itself, if nobody has given it a name. */
  readonly hostname: string | undefined
  /** Leases are kept below it. */
  readonly stateDirectory: string
  /** After this time in silence a link that waits for servers counts as degraded; default 15 seconds. */
  readonly patience?: Duration.Input
}

/** The branch, and how it gets another configuration. */
export interface Network {
  readonly spec: ChildSpec<Supervisor.SupervisorFailure, Processes>
  /**
   * Makes this the configuration, at once: links that are new begin, those that are not in it any more are taken down, and those
   * that have changed go over to their new settings keeping what is the same. It does not wait for servers.
   */
  readonly apply: (config: NetworkConfig) => Effect.Effect<void>
}

/** What of a configuration makes the actor of a link: itself, and its place and part in others. */
const identityOf = (all: ReadonlyArray<LinkConfig>, name: string): unknown => ({
  link: all.find((one) => one.name === name),
  place: all.findIndex((one) => one.name === name),
  partOf: all.filter((one) => partsOf(one).includes(name)).map((one) => one.name)
})

export const make = ({ config, hostname, patience = "15 seconds", stateDirectory }: Options): Effect.Effect<Network> =>
  Effect.gen(function* () {
    let current = config
    const world = yield* World.make(complete(config), Duration.fromInputUnsafe(patience))
    const actorOf = (one: LinkConfig): Effect.Effect<ChildSpec<unknown, Processes>> =>
      one.any === "each" ? eachLink(one, world) : Effect.succeed(link(one, world))
    const links = yield* DynamicSupervisor.make("links", {
      description: "one per link of the host",
      children: Effect.gen(function* () {
        yield* Actor.degraded(yield* Duid.keepIn(stateDirectory))
        return yield* Effect.forEach(complete(current), (one) => actorOf(one))
      })
    })
    const apply = Effect.fnUntraced(function* (wanted: NetworkConfig) {
      const [before, after] = [complete(current), complete(wanted)]
      const names = [...new Set([...before, ...after].map(({ name }) => name))]
      const changed = names.filter((name) => !isDeepStrictEqual(identityOf(before, name), identityOf(after, name)))
      const stays = new Set(after.map(({ name }) => name))
      current = wanted
      // what goes is taken down by what it was, so all of it goes before the others hear of the change
      for (const name of changed.filter((one) => !stays.has(one)).toReversed()) {
        yield* Effect.ignore(Effect.andThen(links.terminateChild(name), links.deleteChild(name)))
      }
      world.setAll(after)
      const again = changed.filter((name) => stays.has(name) && before.some((one) => one.name === name))
      world.setChanging(again)
      for (const name of again) {
        yield* Effect.ignore(Effect.andThen(links.terminateChild(name), links.deleteChild(name)))
      }
      world.setChanging([])
      for (const one of after.filter(({ name }) => changed.includes(name))) {
        yield* Effect.ignore(Effect.flatMap(actorOf(one), (spec) => links.startChild(spec, { wait: "registered" })))
      }
      yield* SubscriptionRef.update(world.told, (told) => new Map(told))
    })
    return {
      spec: Supervisor.make("network", {
        description: "how the host is reached",
        children: [links.spec, resolver(() => current, hostname, world)]
      }),
      apply
    }
  })
