/**
 * A link of the host as an actor: has its device made ready, puts on it what is written out, keeps a client for what servers and
 * routers give, and tells in the tree what it has and what it lacks. It says `ready` at once: nothing on a host waits for its
 * network, which may come later or never.
 *
 * When it crashes, or its brain does, nothing is taken from the device, and the client goes on: the next incarnation does every
 * step again over what it finds. When it is stopped the link goes down.
 */
import { isDeepStrictEqual } from "node:util"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Actor from "../../actor/Actor.ts"
import * as RestartPolicy from "../../actor/RestartPolicy.ts"
import type { Process } from "../../taproot/Processes.ts"
import { format, hostOf, partOf } from "../IpNetwork.ts"
import type { LinkConfig } from "../NetworkConfig.ts"
import { carrier } from "./Devices.ts"
import * as DhcpClient from "./DhcpClient.ts"
import { ip, LinkFailed } from "./Ip.ts"
import * as Lease from "./Lease.ts"
import { isMember, prepare, putBack } from "./LinkDevice.ts"
import { degradedBy, descriptionOf, factsOf, missingOf } from "./LinkStatus.ts"
import * as Settings from "./Settings.ts"
import type { World } from "./World.ts"

/** A link that fails is tried for ever: its cable may come back tomorrow. */
const policy = RestartPolicy.make({ backoff: { initial: "500 millis", max: "30 seconds" }, whenSpent: "keep-trying" })

/** How many times longer than one that has answered before a client may be silent that has just been started. */
const newcomer = 4

/** What became of asking a client: since when it has not answered, as long as it does not. */
interface Asked {
  readonly at: number
  readonly answered: boolean
  readonly silentSince: number | undefined
}

/** Judges a client by its silence: nothing, a reason to be degraded, or that it has to be replaced. */
const judge = (link: string, { answered, silentSince }: Asked, now: number, patience: Duration.Duration) => {
  const silent = silentSince === undefined ? 0 : now - silentSince
  const bound = Duration.toMillis(patience) * (answered ? 1 : newcomer)
  if (silent >= bound) {
    return new LinkFailed({
      link,
      reason: "client-silent",
      problem: `its DHCP client has not answered for ${Math.round(silent / 1000)} s, and is replaced`
    })
  }
  return silent >= bound / 2 ? "its DHCP client does not answer; what it was given may not be renewed" : ""
}

/** The subnets of a delegated prefix that other links of the host get, as far as those have a device and the prefix suffices. */
const subnetsOf = ({ prefixDelegation }: LinkConfig, told: Lease.Told, world: World): ReadonlyArray<Settings.Piece> =>
  told.delegated.slice(0, 1).flatMap((prefix) =>
    (prefixDelegation?.subnets ?? []).flatMap(({ link, number }) => {
      const subnet = partOf(prefix, 64, number)
      const device = world.deviceOfLink(link)
      if (subnet === undefined || device === undefined) return []
      const seconds = (value: number | undefined) => (value === undefined ? "forever" : String(value))
      const { preferred, valid } = prefix
      const lifetime = ["valid_lft", seconds(valid), "preferred_lft", seconds(preferred)]
      return [Settings.addressPiece(format(hostOf(subnet, 1)), device, lifetime)]
    })
  )

/** Follows a link for as long as its client lives: what it is told, and whether it has a carrier. */
const follow = Effect.fnUntraced(function* (
  link: LinkConfig,
  device: string,
  client: Process | undefined,
  world: World
) {
  const place = world.all().findIndex(({ name }) => name === link.name)
  const written = Settings.piecesOf(link, device, place)
  const wake = yield* Queue.sliding<void>(1)
  if (client !== undefined) {
    yield* Effect.forkScoped(DhcpClient.hear(device, () => void Queue.offerUnsafe(wake, undefined)))
  }
  let told = Lease.nothing
  let applied = ""
  let shown: Actor.Annotations = {}
  let asked: Asked = { at: 0, answered: false, silentSince: undefined }
  let woken = true
  let silentSince = yield* Clock.currentTimeMillis
  for (;;) {
    const now = yield* Clock.currentTimeMillis
    const isUp = yield* carrier(device)
    if (isUp === undefined && !isMember(link, world)) {
      return yield* new LinkFailed({
        link: link.name,
        reason: "no-device",
        problem: `its device ${device} was taken down, or is gone`
      })
    }
    const isSoon = missingOf(link, told).length > 0 && now - silentSince < Duration.toMillis(world.patience)
    // from time to time also when nothing is expected: a word of it may have been missed, and it may hang
    const isTime = asked.silentSince !== undefined || now - asked.at >= Duration.toMillis(world.patience)
    if (client !== undefined && (woken || isSoon || isTime)) {
      const answer = yield* Effect.result(DhcpClient.ask(device))
      if (answer._tag === "Success") told = answer.success
      asked =
        answer._tag === "Success"
          ? { at: now, answered: true, silentSince: undefined }
          : { ...asked, at: now, silentSince: asked.silentSince ?? now }
    }
    const silence = judge(link.name, asked, now, world.patience)
    if (typeof silence !== "string") return yield* silence
    const subnets = subnetsOf(link, told, world)
    const wanted = [...written, ...subnets]
    // lifetimes begin anew when the client has had word of them
    if ((woken && subnets.length > 0) || JSON.stringify(wanted) !== applied) {
      yield* Settings.apply(link.name, wanted)
      applied = JSON.stringify(wanted)
    }
    yield* world.tell(link.name, told)
    const missing = missingOf(link, told)
    if (missing.length === 0 || isUp !== true) silentSince = now
    const silent = (now - silentSince) / 1000
    const facts = {
      ...factsOf(
        link,
        told,
        subnets.map(({ key }) => key.slice(2).join(" ")),
        missing
      ),
      degraded: degradedBy(isUp, missing, silent, Duration.toSeconds(world.patience)) || silence
    }
    if (!isDeepStrictEqual(facts, shown)) yield* Actor.annotate(facts)
    shown = facts
    woken = yield* Effect.timeoutOrElse(Effect.as(Queue.take(wake), true), {
      duration: "1 second",
      orElse: () => Effect.succeed(false)
    })
  }
})

/** Takes from the device all that the link put on it. */
const takeDown = Effect.fnUntraced(function* (link: LinkConfig, device: string, world: World) {
  const told = yield* Effect.result(DhcpClient.ask(device))
  yield* DhcpClient.endAll(link.name)
  yield* Effect.ignore(Settings.apply(link.name, []))
  // what the client leaves, and does not go with the device
  const { delegated, dhcp4 } = told._tag === "Success" ? told.success : Lease.nothing
  for (const address of dhcp4?.addresses ?? []) {
    yield* Effect.ignore(ip(link.name, "address", "del", address, "dev", device))
  }
  for (const prefix of delegated) {
    yield* Effect.ignore(ip(link.name, "-6", "route", "del", "unreachable", format(prefix)))
  }
  yield* putBack(link, device)
  yield* world.forget(link.name)
})

export const link = (config: LinkConfig, world: World) =>
  Actor.make(
    config.name,
    { kind: "link", description: descriptionOf(config), policy, shutdown: "15 seconds" },
    Effect.gen(function* () {
      yield* Actor.ready()
      const device = yield* prepare(config, world, Actor.degraded)
      yield* world.setDevice(config.name, device)
      yield* Actor.annotate({ device })
      yield* Actor.onStop(
        Effect.suspend(() => (world.isChanging(config.name) ? Effect.void : takeDown(config, device, world)))
      )
      const client = DhcpClient.isWanted(config) ? yield* DhcpClient.adoptOrStart(config, device) : undefined
      if (client === undefined) yield* DhcpClient.endAll(config.name)
      else yield* Actor.annotate({ client: `dhcpcd ${client.pid}` })
      const ended = client === undefined ? Effect.never : DhcpClient.watch(config.name, client)
      return yield* Effect.raceFirst(ended, follow(config, device, client, world)).pipe(
        // else the next incarnation would adopt it
        Effect.tapError(({ reason }) =>
          reason === "client-silent" && client !== undefined ? DhcpClient.discard(client) : Effect.void
        )
      )
    })
  )
