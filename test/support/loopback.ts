/** Listening and connecting on 127.0.0.1, on ports that nobody else has. */
import * as Effect from "effect/Effect"
import { connect, createServer, type Server } from "node:net"
import { eventually } from "./eventually.ts"

/** A listener on loopback, on a port that is free. */
export const listener = Effect.acquireRelease(
  Effect.callback<Server>((resume) => {
    const server = createServer((socket) => socket.end("the host's own\n"))
    server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
  }),
  (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
)

export const portOf = (server: Server): number => {
  const address = server.address()
  return typeof address === "object" ? (address?.port ?? 0) : 0
}

/** A port of loopback where nobody listens just now. */
export const freePort = Effect.scoped(Effect.map(listener, portOf))

/** What is said to who connects there; undefined: nobody listens. */
export const heardAt = (port: number) =>
  Effect.callback<string | undefined>((resume) => {
    let heard = ""
    const socket = connect(port, "127.0.0.1")
    socket.on("data", (bytes) => (heard += bytes.toString()))
    socket.once("error", () => resume(Effect.succeed(undefined)))
    socket.once("close", () => resume(Effect.succeed(heard)))
    return Effect.sync(() => socket.destroy())
  })

export const hears = (port: number, words: string) =>
  eventually(
    `port ${port} says ${words}`,
    Effect.map(heardAt(port), (heard) => heard === words)
  )
