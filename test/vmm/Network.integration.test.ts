/** What a guest with a card reaches, and what reaches it. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { connect, createServer } from "node:net"
import { eventually } from "../support/ironwood.ts"
import { VmRuns } from "../../src/vmm/VmRuns.ts"
import { machineOf } from "../../src/vmm/VmSpec.ts"
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

/** Whether somebody listens on a port of the host. */
const isOpen = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const socket = connect(port, "127.0.0.1")
    socket.on("error", () => resume(Effect.succeed(false)))
    socket.on("connect", () => {
      socket.destroy()
      resume(Effect.succeed(true))
    })
  })

/** A control of a machine that runs, with its memory. */
const memoryOf = (name: string) =>
  Effect.gen(function* () {
    const run = yield* Effect.fromOption(yield* (yield* VmRuns).current(name))
    return yield* Effect.fromNullishOr((yield* run.hold.get).memory)
  })

describe("a card", () => {
  it.live("of the ports that a machine takes over, one that somebody else has takes no other along", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        const { port: taken } = yield* listening
        const free = yield* freePort
        const commandLine = "console=ttyS0 guest.do=deaf"
        yield* vms.create(yield* specOf("web", { commandLine, nics: [{}] }), { wait: true })
        const forwards = [taken, free].map((hostPort) => ({ hostPort, guestPort: 80 }))
        const { nics } = machineOf(yield* specOf("web", { nics: [{ forwards }] }), "")
        const problem = yield* Effect.flip((yield* memoryOf("web")).claim(nics))
        assert.include(problem.message, `tcp:127.0.0.1:${taken}`)
        assert.isTrue(yield* isOpen(free))
        yield* vms.remove("web", { force: true })
      }).pipe(Effect.scoped)
    )
  )

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
