/**
 * The client that keeps a link's leases: dhcpcd, one process per link, which does DHCPv4, DHCPv6 with prefix delegation, and
 * routers' advertisements. It retransmits, renews, keeps its leases in a file and gives them back to nobody when it ends, so the
 * next one asks for the same. It is taproot's child, and outlives a brain: the next one adopts it.
 *
 * It runs no scripts. What it was told is asked for at its control socket ({@link ask}); that something has changed is heard
 * there, too ({@link hear}), and says no more than "ask again".
 *
 * Traps: the socket serves one at a time. Whoever asks while another does gets no answer at all, so asking has a deadline. A
 * client that hangs renews nothing and is there all the same: its silence is all that shows it.
 */
import { createHash } from "node:crypto"
import { mkdir, rename, writeFile } from "node:fs/promises"
import { connect } from "node:net"
import { dirname } from "node:path"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { describe } from "../../taproot/ProcessExit.ts"
import { type Process, Processes } from "../../taproot/Processes.ts"
import type { LinkConfig } from "../NetworkConfig.ts"
import { LinkFailed } from "./Ip.ts"
import { blocksOf, mostBytes, type Told, toldBy } from "./Lease.ts"

/** Where dhcpcd was compiled to have its sockets. */
const socketOf = (device: string): string => `/run/dhcpcd/${device}.sock`

const configFile = (link: string): string => `/run/ironwood/links/${link}.dhcpcd`

/** How long it may take to end before it is killed. */
const patience = "5 seconds"

/** The client gives no sensible answer (yet). */
export class NoAnswer extends Schema.TaggedError<NoAnswer>()("NoAnswer", { problem: Schema.String }) {
  override get message(): string {
    return this.problem
  }
}

/** Whether a link needs a client. */
export const isWanted = ({ acceptRouterAdvertisements, dhcp4, dhcp6 }: LinkConfig): boolean =>
  dhcp4 || dhcp6 || acceptRouterAdvertisements

/** What it is told to do: dhcpcd.conf(5). */
export const configOf = (link: LinkConfig, device: string): string => {
  const { acceptRouterAdvertisements, dhcp4, dhcp6, mtu, prefixDelegation } = link
  const hint = prefixDelegation?.length === undefined ? "" : `/::/${prefixDelegation.length}`
  return [
    // the same for both kinds of DHCP, see Duid.ts
    "duid",
    // it is this host's tree that says when it takes too long
    "timeout 0",
    // an address that reaches nothing beyond the link would look like one that does
    "noipv4ll",
    // a server gives an address to one host; asking the others first takes five seconds
    "noarp",
    "persistent",
    "slaac hwaddr",
    "option domain_name_servers, domain_name, domain_search, host_name, routers, classless_static_routes",
    "option dhcp6_name_servers, dhcp6_domain_search",
    ...(mtu === undefined ? ["option interface_mtu"] : []),
    ...(dhcp4 ? ["hostname"] : ["noipv4"]),
    ...(dhcp6 || acceptRouterAdvertisements ? [] : ["noipv6"]),
    `interface ${device}`,
    acceptRouterAdvertisements ? "ipv6rs" : "noipv6rs",
    ...(dhcp6 ? ["dhcp6", "ia_na", ...(prefixDelegation === undefined ? [] : [`ia_pd 1${hint}`])] : ["nodhcp6"]),
    ""
  ].join("\n")
}

/** Forgets one that has ended, and ends what it leaves behind: its helpers, which would hold the next one's ports. */
const clear = Effect.fnUntraced(function* (client: Process) {
  yield* Effect.ignore(client.signal("SIGKILL", { group: true }))
  yield* client.acknowledge
})

const end = Effect.fnUntraced(function* (client: Process) {
  yield* Effect.ignore(client.signal("SIGTERM"))
  const ended = yield* Effect.timeoutOption(client.exit, patience)
  if (Option.isNone(ended)) {
    yield* Effect.ignore(client.signal("SIGKILL"))
    yield* client.exit
  }
  yield* clear(client)
})

/** Ends one that hangs. Its addresses stay, and the next one asks for them. */
export const discard = Effect.fnUntraced(function* (client: Process) {
  yield* Effect.ignore(client.signal("SIGKILL", { group: true }))
  const ended = yield* Effect.timeoutOption(client.exit, patience)
  if (Option.isSome(ended)) yield* client.acknowledge
})

const labelPrefix = (link: string): string => `dhcp:${link}:`

/** Ends every client of a link. Its addresses stay, and its leases in their file. */
export const endAll = Effect.fnUntraced(function* (link: string) {
  const processes = yield* Processes
  yield* Effect.forEach(yield* processes.takeAll(labelPrefix(link)), end, { discard: true })
})

/** The client of a link: that which is there when it does what it is to do, else a new one. */
export const adoptOrStart = Effect.fnUntraced(function* (link: LinkConfig, device: string) {
  const processes = yield* Processes
  const config = configOf(link, device)
  const label = labelPrefix(link.name) + createHash("sha256").update(`${device}\n${config}`).digest("hex").slice(0, 16)
  let found: Process | undefined
  for (const client of yield* processes.takeAll(labelPrefix(link.name))) {
    const isRunning = Option.isNone(yield* client.exitNow)
    if (isRunning && client.label === label && found === undefined) found = client
    else yield* end(client)
  }
  if (found !== undefined) return found
  const file = configFile(link.name)
  const failed = (problem: string) => new LinkFailed({ link: link.name, reason: "client-ended", problem })
  yield* Effect.tryPromise({
    try: async () => {
      await mkdir(dirname(file), { recursive: true, mode: 0o700 })
      await writeFile(`${file}.new`, config)
      await rename(`${file}.new`, file)
    },
    catch: (cause) => failed(String(cause))
  })
  return yield* Effect.mapError(
    processes.spawn({
      label,
      argv: ["dhcpcd", "--nobackground", "--config", file, "--script", "", device],
      stderr: { _tag: "Stream" }
    }),
    ({ message }) => failed(message)
  )
})

/** That a client of its socket has hung up is told as an error, each time. */
const isNoise = (line: string): boolean => line.startsWith("control_free: ") || line === ""

/** Lives as long as the client, and passes on what it says; fails with how it ended, and its last words. */
export const watch = Effect.fnUntraced(function* (link: string, client: Process) {
  let last = ""
  yield* client.output("stderr").pipe(
    Stream.map(({ bytes }) => bytes),
    Stream.decodeText(),
    Stream.splitLines,
    Stream.filter((line) => !isNoise(line)),
    Stream.runForEach((line) => {
      last = line.slice(0, 200)
      return Effect.annotateLogs(Effect.logInfo("its DHCP client says"), { link, line: last })
    }),
    Effect.forkScoped
  )
  const exit = yield* client.exit
  yield* clear(client)
  const problem = `its DHCP client ${describe(exit)}${last === "" ? "" : `; its last words: ${last}`}`
  return yield* new LinkFailed({ link, reason: "client-ended", problem })
})

/** What it was told so far. */
export const ask = (device: string): Effect.Effect<Told, NoAnswer> =>
  Effect.callback<Told, NoAnswer>((resume) => {
    const socket = connect(socketOf(device))
    let bytes = Buffer.alloc(0)
    const failed = (problem: string): void => resume(Effect.fail(new NoAnswer({ problem })))
    socket.once("connect", () => socket.write("--getinterfaces\0"))
    socket.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk])
      const blocks = bytes.length > mostBytes ? "it is too long" : blocksOf(bytes)
      if (blocks === undefined) return
      if (typeof blocks === "string") failed(`the answer makes no sense: ${blocks}`)
      else resume(Effect.succeed(toldBy(blocks)))
    })
    socket.once("error", (error) => failed(error.message))
    socket.once("close", () => failed("it hung up"))
    return Effect.sync(() => socket.destroy())
  }).pipe(
    Effect.timeoutOrElse({
      duration: "2 seconds",
      orElse: () => new NoAnswer({ problem: "it does not answer at its socket" })
    })
  )

/** Runs `wake` whenever there may be something new, for ever. */
export const hear = (device: string, wake: () => void): Effect.Effect<never> =>
  Effect.callback<void>((resume) => {
    const socket = connect(socketOf(device))
    const over = (): void => resume(Effect.void)
    socket.once("connect", () => {
      socket.write("--listen\0")
      wake()
    })
    socket.on("data", wake)
    socket.once("error", over)
    socket.once("close", over)
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.andThen(Effect.sleep("500 millis")), Effect.forever)
