/**
 * What the host calls itself and whom it asks for names: the kernel's host name, and `/run/ironwood/resolv.conf`, which is an
 * image's `/etc/resolv.conf`. First what is written out, for the network and for its links, then what servers and routers told
 * the links; written anew whenever that changes.
 *
 * A host that has been given a name keeps it: one that `ip=` or a server gives is for a host that has none.
 */
import { readFile, rename, writeFile } from "node:fs/promises"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Actor from "../../actor/Actor.ts"
import * as RestartPolicy from "../../actor/RestartPolicy.ts"
import { StepFailed } from "../../host/Step.ts"
import { canonical } from "../IpNetwork.ts"
import type { NetworkConfig } from "../NetworkConfig.ts"
import type { Told } from "./Lease.ts"
import type { World } from "./World.ts"

const resolvConf = "/run/ironwood/resolv.conf"
const hostnameFile = "/proc/sys/kernel/hostname"

/** What taproot calls a machine of which nobody says a name. */
const nameless = "ironwood"

const policy = RestartPolicy.make({ backoff: { initial: "1 second", max: "1 minute" }, whenSpent: "keep-trying" })

/** How much of resolv.conf(5) the libraries read. */
const most = { servers: 3, domains: 6 } as const

export interface Names {
  readonly servers: ReadonlyArray<string>
  readonly domains: ReadonlyArray<string>
}

/** Whom to ask, and where to look for names without a dot; the first ones, each once. */
export const namesOf = (config: NetworkConfig, told: ReadonlyMap<string, Told>): Names => {
  const links = config.links.map(({ nameServers, searchDomains }) => ({ nameServers, searchDomains }))
  const all = [config, ...links, ...told.values()]
  const servers = new Set(all.flatMap(({ nameServers }) => nameServers.map(canonical)))
  const domains = new Set(all.flatMap(({ searchDomains }) => searchDomains.map((domain) => domain.replace(/\.$/, ""))))
  return { servers: [...servers].slice(0, most.servers), domains: [...domains].slice(0, most.domains) }
}

/** The lines of resolv.conf(5). */
export const linesOf = ({ domains, servers }: Names): string =>
  [...(domains.length === 0 ? [] : [`search ${domains.join(" ")}`]), ...servers.map((server) => `nameserver ${server}`)]
    .map((line) => `${line}\n`)
    .join("")

const attempt = (what: string, promise: () => Promise<void>): Effect.Effect<void, StepFailed> =>
  Effect.tryPromise({
    try: promise,
    catch: (cause) => new StepFailed({ step: "resolver", problem: `${what}: ${String(cause)}` })
  })

/** The name for a host that has none: `spare`, else what a server has for it. */
const nameFor = (spare: string | undefined, told: ReadonlyMap<string, Told>): Effect.Effect<string | undefined> =>
  Effect.promise(async () => {
    const current = (await readFile(hostnameFile, "utf8").catch(() => "")).trim()
    return current === nameless
      ? (spare ?? [...told.values()].find(({ hostname }) => hostname !== undefined)?.hostname)
      : undefined
  })

/** `config` is asked each time, so that it may change; {@link World.told} has to be touched then. */
export const resolver = (config: () => NetworkConfig, spare: string | undefined, world: World) =>
  Actor.make(
    "resolver",
    { kind: "step", description: "the host's name and its name servers", policy },
    Effect.gen(function* () {
      yield* Actor.ready()
      yield* Stream.runForEach(SubscriptionRef.changes(world.told), (told) =>
        Effect.gen(function* () {
          const names = namesOf(config(), told)
          yield* attempt(resolvConf, async () => {
            await writeFile(`${resolvConf}.new`, linesOf(names))
            await rename(`${resolvConf}.new`, resolvConf)
          })
          const name = yield* nameFor(spare, told)
          if (name !== undefined) yield* attempt("the host's name", () => writeFile(hostnameFile, name))
          yield* Actor.annotate({
            ...(name === undefined ? {} : { hostname: name }),
            "name servers": names.servers.join(" "),
            "search domains": names.domains.join(" ")
          })
        })
      )
    })
  )
