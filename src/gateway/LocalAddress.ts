/**
 * Whether this host can listen on an address at all. The kernel is asked by listening there for a moment, on any port: links
 * come and go, and an address that a link is still making sure of (IPv6) is not its own yet.
 */
import * as Effect from "effect/Effect"
import { createServer } from "node:net"

/** The host of `host:port`, without brackets. */
const hostOf = (address: string): string => address.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1")

/** False only when the kernel says that the address is none of this host's; what else is wrong whoever listens finds out. */
export const isAddressHere = (address: string): Effect.Effect<boolean> =>
  Effect.callback<boolean>((resume) => {
    const server = createServer()
    const answer = (isHere: boolean): void => resume(Effect.succeed(isHere))
    server.once("error", (error) => answer(!("code" in error) || error.code !== "EADDRNOTAVAIL"))
    server.listen({ host: hostOf(address), port: 0 }, () => server.close(() => answer(true)))
    return Effect.sync(() => void server.close())
  })
