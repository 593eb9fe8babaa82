/**
 * What the actors of the network know of each other: which device a link is, what each was told (for the resolver), and which
 * links are about to get other settings. It lives as long as the brain and is filled again by the actors of the next one.
 */
import { isDeepStrictEqual } from "node:util"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { LinkConfig } from "../NetworkConfig.ts"
import type { Told } from "./Lease.ts"

export interface World {
  /** After this time in silence a link that waits for servers counts as degraded. */
  readonly patience: Duration.Duration
  /** All links of the configuration, with the parts that it does not list. */
  readonly all: () => ReadonlyArray<LinkConfig>
  /** The device of a link, once it has one. */
  readonly deviceOfLink: (link: string) => string | undefined
  readonly setDevice: (link: string, device: string) => Effect.Effect<void>
  /** What each link was told, by its name. */
  readonly told: SubscriptionRef.SubscriptionRef<ReadonlyMap<string, Told>>
  readonly tell: (link: string, told: Told) => Effect.Effect<void>
  /** The link is gone. */
  readonly forget: (link: string) => Effect.Effect<void>
  /** Its actor ends only to begin again with other settings: what it has stays. */
  readonly isChanging: (link: string) => boolean
}

export interface Controls {
  readonly setAll: (links: ReadonlyArray<LinkConfig>) => void
  readonly setChanging: (links: ReadonlyArray<string>) => void
}

export const make = (links: ReadonlyArray<LinkConfig>, patience: Duration.Duration): Effect.Effect<World & Controls> =>
  Effect.map(SubscriptionRef.make<ReadonlyMap<string, Told>>(new Map()), (told) => {
    let all = links
    let changing: ReadonlySet<string> = new Set()
    const found = new Map<string, string>()
    return {
      patience,
      all: () => all,
      deviceOfLink: (link) => found.get(link),
      setDevice: (link, device) => Effect.sync(() => void found.set(link, device)),
      told,
      tell: (link, what) =>
        Effect.flatMap(SubscriptionRef.get(told), (known) =>
          isDeepStrictEqual(known.get(link), what)
            ? Effect.void
            : SubscriptionRef.update(told, (latest) => new Map([...latest, [link, what]]))
        ),
      forget: (link) =>
        Effect.andThen(
          Effect.sync(() => found.delete(link)),
          SubscriptionRef.update(told, (known) => new Map([...known].filter(([name]) => name !== link)))
        ),
      isChanging: (link) => changing.has(link),
      setAll: (given) => {
        all = given
      },
      setChanging: (given) => {
        changing = new Set(given)
      }
    }
  })
