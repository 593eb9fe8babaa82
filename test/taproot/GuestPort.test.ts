/** The call that a connection to a guest begins with, against a port that behaves as ports do. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect } from "../../src/taproot/GuestPort.ts"

const CALL = 32
const here = Buffer.from("\u00ff\u00ff\u00ff\u00ffironwoodhere", "latin1")

/** A port at a path; `serve` is the guest behind it, for each connection. */
const port = (serve: (socket: Socket, connection: number) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly path: string; readonly close: () => void }>((resume) => {
      const directory = mkdtempSync(join(tmpdir(), "ironwood-port-"))
      const path = join(directory, "guest")
      let connections = 0
      const server = createServer((socket) => {
        socket.on("error", () => {})
        serve(socket, ++connections)
      })
      server.listen(path, () =>
        resume(
          Effect.succeed({
            path,
            close: () => {
              server.close()
              rmSync(directory, { recursive: true })
            }
          })
        )
      )
    }),
    ({ close }) => Effect.sync(close)
  )

/** The next bytes of a connection. */
const next = (socket: Socket) =>
  Effect.callback<string>((resume) => {
    socket.once("data", (bytes) => resume(Effect.succeed(String(bytes))))
    socket.resume()
  })

describe("a call", () => {
  it.live("drops what came before its answer, and nothing of what comes behind it", () =>
    Effect.gen(function* () {
      const { path } = yield* port((socket) => {
        // of an older connection: half a frame, an answer to another call
        socket.write(Buffer.concat([Buffer.alloc(100_000, 7), here, Buffer.alloc(16, 1), here.subarray(0, 9)]))
        socket.once("data", (call: Buffer) => {
          assert.strictEqual(call.length, CALL)
          socket.write(Buffer.concat([Buffer.from("more"), here, call.subarray(16), Buffer.from("first")]))
        })
      })
      const socket = yield* connect(path)
      assert.strictEqual(yield* next(socket), "first")
    }).pipe(Effect.scoped)
  )

  it.live("comes again until it is answered, with the same number", () =>
    Effect.gen(function* () {
      const { path } = yield* port((socket) => {
        let heard = Buffer.alloc(0)
        socket.on("data", (bytes: Buffer) => {
          heard = Buffer.concat([heard, bytes])
          if (heard.length !== 3 * CALL) return
          assert.deepStrictEqual(heard.subarray(0, CALL), heard.subarray(2 * CALL))
          // byte by byte
          for (const byte of Buffer.concat([here, heard.subarray(16, CALL)])) socket.write(Buffer.from([byte]))
          setTimeout(() => socket.write("then"), 50)
        })
      })
      const socket = yield* connect(path)
      assert.strictEqual(yield* next(socket), "then")
    }).pipe(Effect.scoped)
  )

  it.live(
    "is made anew where a connection is closed, and where a flood never comes to an answer",
    () =>
      Effect.gen(function* () {
        const { path } = yield* port((socket, connection) => {
          if (connection === 1) return socket.destroy()
          if (connection === 2) {
            const flood = setInterval(() => socket.write(Buffer.alloc(65_536, 0xff)), 1)
            return void socket.on("close", () => clearInterval(flood))
          }
          return void socket.once("data", (call: Buffer) =>
            socket.write(Buffer.concat([here, call.subarray(16), Buffer.from("third")]))
          )
        })
        const before = process.memoryUsage().arrayBuffers
        const socket = yield* connect(path)
        assert.isBelow(process.memoryUsage().arrayBuffers - before, 64 * 1024 * 1024)
        assert.strictEqual(yield* next(socket), "third")
      }).pipe(Effect.scoped),
    30_000
  )
})
