/**
 * What a link is to have by configuration, put on its device with `ip`: each piece is a command that says what shall be and one
 * that takes it away. What was put on is remembered in `/run/ironwood/links`, so that what is not wanted any more goes, after a
 * change of the configuration and also by another brain, and nothing else does: addresses of others stay.
 */
import { mkdir, readFile, rename, writeFile } from "node:fs/promises"
import { dirname } from "node:path"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { canonical, familyOf, format, networkOf, parseNetwork } from "../IpNetwork.ts"
import type { LinkConfig } from "../NetworkConfig.ts"
import { ip, LinkFailed } from "./Ip.ts"

/** An address or a route, as the words of `ip` for it, without the verb. */
export const Piece = Schema.Struct({
  /** Which one it is: two with the same key are the same thing, with other particulars. */
  key: Schema.Array(Schema.String),
  /** Particulars, behind the key. */
  more: Schema.Array(Schema.String)
})
export type Piece = typeof Piece.Type

const familyFlag = (address: string): string => (familyOf(address) === 6 ? "-6" : "-4")

export const addressPiece = (address: string, device: string, more: ReadonlyArray<string> = []): Piece => {
  const network = parseNetwork(address)
  const spelled = network === undefined ? address : `${canonical(network.address)}/${network.prefix}`
  return { key: [familyFlag(network?.address ?? ""), "address", spelled, "dev", device], more }
}

const routePiece = (to: string, via: string | undefined, metric: number | undefined, device: string): Piece => {
  const network = to === "default" ? undefined : parseNetwork(to)
  const flag = familyFlag(via ?? network?.address ?? "")
  return {
    key: [
      flag,
      "route",
      network === undefined ? to : format(networkOf(network)),
      ...(via === undefined ? [] : ["via", canonical(via)]),
      "dev",
      device,
      ...(metric === undefined ? [] : ["metric", String(metric)])
    ],
    more: []
  }
}

/** All of a link. Default routes of the links before count for more: `place` is its own among them. */
export const piecesOf = (link: LinkConfig, device: string, place: number): ReadonlyArray<Piece> => [
  ...link.addresses.map((address) => addressPiece(address, device)),
  ...link.gateways.map((gateway) => routePiece("default", gateway, 100 + place, device)),
  ...link.routes.map(({ metric, to, via }) => routePiece(to, via, metric, device))
]

/** `-4 address 192.0.2.1/24 dev eth0` with the verb where `ip` has it. */
const commandOf = ({ key, more }: Piece, verb: "replace" | "del"): ReadonlyArray<string> => {
  const [flag = "", object = "", ...rest] = key
  return [flag, object, verb, ...rest, ...(verb === "replace" ? more : [])]
}

const fileOf = (link: string): string => `/run/ironwood/links/${link}.json`
const Pieces = Schema.fromJsonString(Schema.Array(Piece))
const sameKey = (one: Piece, other: Piece): boolean => one.key.join(" ") === other.key.join(" ")

const remembered = (link: string): Effect.Effect<ReadonlyArray<Piece>> =>
  Effect.gen(function* () {
    const text = yield* Effect.promise(() => readFile(fileOf(link), "utf8").catch(() => "[]"))
    return Option.getOrElse(yield* Effect.option(Schema.decodeEffect(Pieces)(text)), () => [])
  })

const remember = (link: string, pieces: ReadonlyArray<Piece>): Effect.Effect<void, LinkFailed> =>
  Effect.tryPromise({
    try: async () => {
      await mkdir(dirname(fileOf(link)), { recursive: true, mode: 0o700 })
      await writeFile(`${fileOf(link)}.new`, JSON.stringify(pieces))
      await rename(`${fileOf(link)}.new`, fileOf(link))
    },
    catch: (cause) => new LinkFailed({ link, reason: "command-failed", problem: String(cause) })
  })

/** Puts these on and takes away what was put on before and is none of them. */
export const apply = Effect.fnUntraced(function* (link: string, wanted: ReadonlyArray<Piece>) {
  const before = yield* remembered(link)
  const gone = before.filter((piece) => !wanted.some((other) => sameKey(piece, other)))
  // remembered before they are there: a brain that dies in between leaves nothing that nobody knows
  yield* remember(link, [...wanted, ...gone])
  const put = Effect.forEach(wanted, (piece) => ip(link, ...commandOf(piece, "replace")), { discard: true })
  yield* put
  if (gone.length === 0) return
  // a route has to go before the address that it stands on, and that may have gone with the device
  for (const piece of gone.toReversed()) yield* Effect.ignore(ip(link, ...commandOf(piece, "del")))
  // an address takes the routes of its network along
  yield* put
  yield* remember(link, wanted)
})
