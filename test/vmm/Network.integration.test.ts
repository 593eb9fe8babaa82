/** What a guest with a card reaches, and what reaches it. */
import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { connect, createServer } from "node:net"
import { eventually } from "../support/ironwood.ts"
import { says, specOf, withVms } from "./world.ts"

/** Something of the host's that listens on its own 127.0.0.1. */
const listening = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
    const server = createServer((socket) => socket.on("error", () => {}).end("hello"))
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      resume(Effect.succeed({ port, close: () => server.close() }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

/** A port that was free just now. */
const freePort = Effect.scoped(Effect.map(listening, ({ port }) => port))

/** What comes from a port of the host. */
const read = (port: number) =>
  Effect.callback<string>((resume) => {
    let text = ""
    const socket = connect(port, "127.0.0.1")
    socket.on("error", (error) => resume(Effect.succeed(String(error))))
    socket.on("data", (bytes) => {
      text += String(bytes)
      if (text.includes("\n")) socket.destroy()
    })
    socket.on("close", () => resume(Effect.succeed(text)))
  })

describe("a card", () => {
  it.live("is closed: published ports lead to the guest, and nothing of the host is reached by it", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        const { port } = yield* listening
        const hostPort = yield* freePort
        const commandLine = `console=ttyS0 panic=-1 guest.do=reach:${port}`
        yield* vms.create(yield* specOf("closed", { commandLine, nics: [{ forwards: [{ hostPort, guestPort: 80 }] }] }))
        yield* says(vms, "closed", "guest: serves")
        yield* says(vms, "closed", "guest: not reached")
        // it says so before it listens
        yield* eventually("the guest's port", read(hostPort), (text) => text === "from the guest\n")
        yield* vms.remove("closed", { force: true })

        yield* vms.create(yield* specOf("open", { commandLine, nics: [{ hostAccess: true }] }))
        yield* says(vms, "open", "guest: reached")
        yield* vms.remove("open", { force: true })
      }).pipe(Effect.scoped)
    )
  )
})
