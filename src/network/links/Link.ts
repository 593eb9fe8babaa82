/**
 * A link of the host with an address that was written out (kernel parameter `ip=`), as an actor: waits for the device,
 * sets it up with iproute2's `ip`, and watches its carrier. It says `ready` at once: nothing on a host waits for its
 * network, which may come later or never; what is missing is told in the tree.
 *
 * Every step can be done again, so a next brain does the same over what it finds and no connection is lost.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { readdir, readFile } from "node:fs/promises"
import * as Actor from "../../actor/Actor.ts"
import * as RestartPolicy from "../../actor/RestartPolicy.ts"
import type { LinkAddress } from "../../host/IpParameter.ts"
import { describe, isSuccess } from "../../taproot/ProcessExit.ts"
import { Processes } from "../../taproot/Processes.ts"

/** A link could not be set up. */
export class LinkFailed extends Schema.TaggedError<LinkFailed>()("LinkFailed", {
  link: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `link ${this.link}: ${this.problem}`
  }
}

/** A link that fails is tried for ever: its cable may come back tomorrow. */
const policy = RestartPolicy.make({ backoff: { initial: "500 millis", max: "30 seconds" }, whenSpent: "keep-trying" })

const links = "/sys/class/net"

/** The link itself, or the first that is not loopback. */
const find = (device: string | undefined) =>
  Effect.gen(function* () {
    const present = yield* Effect.promise((): Promise<ReadonlyArray<string>> => readdir(links).catch(() => []))
    const found = device === undefined ? present.filter((name) => name !== "lo").toSorted()[0] : device
    return found !== undefined && present.includes(found)
      ? found
      : yield* new LinkFailed({ link: device ?? "any", problem: "there is no such device; is its driver loaded?" })
  })

const ip = Effect.fnUntraced(function* (link: string, ...args: ReadonlyArray<string>) {
  const processes = yield* Processes
  const { exit, stderr } = yield* Effect.mapError(
    processes.run({ label: `ip:${link}`, argv: ["ip", ...args] }),
    ({ message }) => new LinkFailed({ link, problem: message })
  )
  if (isSuccess(exit)) return
  const complaint = new TextDecoder().decode(stderr).trim()
  return yield* new LinkFailed({ link, problem: `\`ip ${args.join(" ")}\` ${describe(exit)}: ${complaint}` })
})

const hasCarrier = (link: string): Effect.Effect<boolean> =>
  Effect.promise(() =>
    readFile(`${links}/${link}/carrier`, "utf8").then(
      (text) => text.trim() === "1",
      () => false
    )
  )

export const link = (name: string, wanted: LinkAddress) =>
  Actor.make(
    name,
    { kind: "link", description: `${wanted.address}/${wanted.prefix}`, policy },
    Effect.gen(function* () {
      yield* Actor.ready()
      const device = yield* Effect.retry(
        Effect.tapError(find(wanted.device), ({ problem }) => Actor.degraded(problem)),
        Schedule.max([Schedule.spaced("100 millis"), Schedule.recurs(100)])
      )
      yield* ip(device, "link", "set", device, "up")
      yield* ip(device, "address", "replace", `${wanted.address}/${wanted.prefix}`, "dev", device)
      if (wanted.gateway !== undefined)
        yield* ip(device, "route", "replace", "default", "via", wanted.gateway, "dev", device)
      yield* Actor.annotate({
        device,
        address: `${wanted.address}/${wanted.prefix}`,
        ...(wanted.gateway === undefined ? {} : { gateway: wanted.gateway })
      })
      const watch = Effect.flatMap(hasCarrier(device), (carrier) => Actor.degraded(carrier ? "" : "it has no carrier"))
      return yield* Effect.forever(Effect.andThen(watch, Effect.sleep("1 second")))
    })
  )
