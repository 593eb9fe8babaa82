/**
 * `any: each` as a branch of the tree: a supervisor with a link for each device that no other link is, those that appear later
 * included. One that disappears stays, as a link that waits for its device.
 */
import * as Effect from "effect/Effect"
import * as Struct from "effect/Struct"
import * as Actor from "../../actor/Actor.ts"
import * as DynamicSupervisor from "../../actor/DynamicSupervisor.ts"
import type { Processes } from "../../taproot/Processes.ts"
import type { LinkConfig } from "../NetworkConfig.ts"
import { devices, leftOver } from "./Devices.ts"
import { link } from "./Link.ts"
import type { World } from "./World.ts"

/** The link for one of the devices. */
const oneOf = (each: LinkConfig, device: string): LinkConfig => ({
  ...Struct.omit(each, ["any"]),
  name: device,
  device
})

/** Devices that are left: not that which is another link's `any: first`. */
const left = (world: World) =>
  Effect.map(devices, (present) => {
    const all = world.all()
    const first = all.filter(({ any }) => any === "first").map(({ name }) => world.deviceOfLink(name))
    return first.includes(undefined) ? [] : leftOver(all, present).filter(({ name }) => !first.includes(name))
  })

export const eachLink = (config: LinkConfig, world: World) =>
  Effect.gen(function* () {
    const known = new Set<string>()
    const fresh = Effect.map(left(world), (present) => {
      const names = present.map(({ name }) => name).filter((name) => !known.has(name))
      for (const name of names) known.add(name)
      return names.map((name) => link(oneOf(config, name), world))
    })
    const tell = Effect.suspend(() =>
      Actor.degraded(known.size === 0 ? "no device is left for it; is its driver loaded?" : "")
    )
    const supervisor: DynamicSupervisor.DynamicSupervisor<never, Processes> = yield* DynamicSupervisor.make(
      config.name,
      {
        kind: "links",
        description: "each device that is no other link",
        children: Effect.gen(function* () {
          known.clear()
          const children = yield* fresh
          yield* tell
          const look = Effect.gen(function* () {
            const more = yield* fresh
            for (const child of more) yield* Effect.ignore(supervisor.startChild(child, { wait: "registered" }))
            if (more.length > 0) yield* tell
          })
          yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("1 second"), look)))
          return children
        })
      }
    )
    return supervisor.spec
  })
