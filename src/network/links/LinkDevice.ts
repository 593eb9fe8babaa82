/**
 * The device of a link, made ready: found, or made where it is a bond or a VLAN; with its MTU; up. Everything here can be done
 * again over what there is, so no connection is lost to a next brain.
 *
 * Traps: a bond takes a member only while that is down, and gives it its own address. A kernel that cannot bond or has no VLANs
 * says so when the device is made: that is `not-supported`, and no trying again helps until the kernel has them.
 */
import { readFile } from "node:fs/promises"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { LinkConfig } from "../NetworkConfig.ts"
import { deviceOf, devices, leftOver, set } from "./Devices.ts"
import { ip, LinkFailed } from "./Ip.ts"
import type { World } from "./World.ts"

/** How long a device may take to be there, in tenths of a second, before that is a failure. */
const tries = 100

const nextStep = ({ any, device, mac, name }: LinkConfig): string => {
  if (mac !== undefined)
    return `no device has the hardware address ${mac}; is it another one, or is its driver not loaded?`
  if (any !== undefined) return "there is no device that is not another link; is its driver not loaded?"
  return `there is no device ${device ?? name}; has it another name, or is its driver not loaded?`
}

/** The name of the device of one that is there. */
const find = (link: LinkConfig, all: ReadonlyArray<LinkConfig>) =>
  Effect.flatMap(devices, (present) => {
    const found = link.any === undefined ? deviceOf(link, present) : leftOver(all, present)[0]?.name
    return found === undefined
      ? Effect.fail(new LinkFailed({ link: link.name, reason: "no-device", problem: nextStep(link) }))
      : Effect.succeed(found)
  })

const waitFor = <R>(
  look: Effect.Effect<string, LinkFailed, R>,
  tell: (problem: string) => Effect.Effect<void, never, R>
) =>
  Effect.retry(
    Effect.tapError(look, ({ problem }) => tell(problem)),
    Schedule.max([Schedule.spaced("100 millis"), Schedule.recurs(tries)])
  )

/** A file of sysfs about a device, empty when there is none. */
const sysfs = (device: string, file: string): Effect.Effect<string> =>
  Effect.promise(() =>
    readFile(`/sys/class/net/${device}/${file}`, "utf8").then(
      (text) => text.trim(),
      () => ""
    )
  )

const isPartOf = (device: string, bond: string): Effect.Effect<boolean> =>
  Effect.map(
    Effect.all([sysfs(device, "master/ifindex"), sysfs(bond, "ifindex")]),
    ([master, index]) => master !== "" && master === index
  )

/** Makes a device unless it is there as it should be; it is marked with what it was made of. */
const make = Effect.fnUntraced(function* (link: LinkConfig, what: string, ...args: ReadonlyArray<string>) {
  const { name } = link
  const mark = `ironwood: ${args.join(" ")}`
  const isThere = (yield* sysfs(name, "ifindex")) !== ""
  if (isThere && (yield* sysfs(name, "ifalias")) === mark) return
  if (isThere) yield* ip(name, "link", "delete", name)
  yield* Effect.mapError(ip(name, "link", "add", ...args), (error) =>
    error.reason === "not-supported"
      ? new LinkFailed({
          link: name,
          reason: "not-supported",
          problem: `this kernel has no ${what}; boot one that has, or take the link out of the configuration`
        })
      : error
  )
  yield* ip(name, "link", "set", name, "alias", mark)
})

const part = (link: LinkConfig, name: string, { deviceOfLink }: World) =>
  Effect.suspend(() => {
    const device = deviceOfLink(name)
    return device === undefined
      ? Effect.fail(new LinkFailed({ link: link.name, reason: "no-device", problem: `it waits for the link ${name}` }))
      : Effect.succeed(device)
  })

/** Whether it is a part of a bond. */
export const isMember = ({ name }: LinkConfig, world: World): boolean =>
  world.all().some(({ bond }) => bond?.members.includes(name) === true)

/** The name of the device, up. `tell` hears what it waits for. */
export const prepare = Effect.fnUntraced(function* <R>(
  link: LinkConfig,
  world: World,
  tell: (problem: string) => Effect.Effect<void, never, R>
) {
  const { bond, mtu, name, vlan } = link
  if (bond !== undefined) {
    yield* make(link, "bonds (bonding)", name, "type", "bond", "mode", bond.mode, "miimon", "100")
    const wanted: Array<string> = []
    for (const member of bond.members) wanted.push(yield* waitFor(part(link, member, world), tell))
    for (const device of (yield* sysfs(name, "bonding/slaves")).split(" ").filter((other) => other !== "")) {
      if (!wanted.includes(device)) yield* ip(name, "link", "set", device, "nomaster")
    }
    for (const device of wanted) {
      if (yield* isPartOf(device, name)) continue
      yield* ip(name, "link", "set", device, "down")
      yield* ip(name, "link", "set", device, "master", name)
    }
  }
  if (vlan !== undefined) {
    const parent = yield* waitFor(part(link, vlan.parent, world), tell)
    yield* make(link, "VLANs (8021q)", "link", parent, "name", name, "type", "vlan", "id", String(vlan.id))
  }
  const isMade = bond !== undefined || vlan !== undefined
  const device = isMade ? name : yield* waitFor(find(link, world.all()), tell)
  // what routers say is taken by the client where it is wanted at all
  yield* set(device, "ipv6", "accept_ra", "0")
  // the first address of a network may go without the others
  yield* set(device, "ipv4", "promote_secondaries", "1")
  if (mtu !== undefined) yield* ip(name, "link", "set", device, "mtu", String(mtu))
  // a member is its bond's, which brings it up
  if (!isMember(link, world)) yield* ip(name, "link", "set", device, "up")
  return device
})

/** Undoes what only this link had of its device. */
export const putBack = Effect.fnUntraced(function* ({ bond, name, vlan }: LinkConfig, device: string) {
  const isMade = bond !== undefined || vlan !== undefined
  yield* Effect.ignore(isMade ? ip(name, "link", "delete", device) : ip(name, "link", "set", device, "down"))
})
