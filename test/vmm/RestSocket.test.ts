/** The client of REST APIs on unix sockets: against servers that behave, and those that do anything else. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as RestSocket from "../../src/vmm/RestSocket.ts"

/** A server that does something with each request when its head is there; the path of its socket. */
const server = (answer: (socket: Socket, head: string) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly path: string; readonly close: () => void; readonly open: () => number }>((resume) => {
      const directory = mkdtempSync(join(tmpdir(), "ironwood-rest-"))
      const path = join(directory, "api")
      const sockets = new Set<Socket>()
      const listening = createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {})
        socket.on("close", () => sockets.delete(socket))
        socket.once("data", (bytes) => answer(socket, String(bytes)))
      })
      listening.listen(path, () =>
        resume(
          Effect.succeed({
            path,
            open: () => sockets.size,
            close: () => {
              for (const socket of sockets) socket.destroy()
              listening.close()
              rmSync(directory, { recursive: true, force: true })
            }
          })
        )
      )
    }),
    ({ close }) => Effect.sync(close)
  )

const Answer = Schema.Struct({ state: Schema.Literals(["on", "off"]) })

const clientOf = (path: string) => RestSocket.make({ path, root: "/v1", fault: (body) => body, deadline: "300 millis" })

const ok = (body: string, status = "200 OK") => `HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\n\r\n${body}`

describe("RestSocket", () => {
  it.live("says what it is told, in one request on a connection of its own", () =>
    Effect.gen(function* () {
      const heads: Array<string> = []
      const { open, path } = yield* server((socket, head) => {
        heads.push(head)
        socket.write(head.startsWith("GET") ? ok('{"state":"on","more":1}') : ok("", "204 No Content"))
      })
      const client = clientOf(path)
      yield* client.send("PUT", "/thing", { body: { name: "ä" } })
      yield* client.send("PATCH", "/press")
      assert.deepStrictEqual(yield* client.ask("/state", Answer), { state: "on" })
      assert.match(heads[0] ?? "", /^PUT \/v1\/thing HTTP\/1\.1\r\n/)
      assert.match(heads[0] ?? "", /content-length: 13\r\n[^]*\r\n\r\n\{"name":"ä"\}$/i)
      // what a server that knows no more of HTTP than it must takes for no body
      assert.notMatch(heads[1] ?? "", /\{|transfer-encoding|content-type/i)
      yield* Effect.sleep("20 millis")
      assert.strictEqual(open(), 0)
    }).pipe(Effect.scoped)
  )

  const hostile: ReadonlyArray<
    readonly [what: string, reason: RestSocket.RestFailed["reason"], answer: (socket: Socket) => void]
  > = [
    ["nothing, ever", "silent", () => {}],
    ["a head that never ends", "silent", (socket) => socket.write("HTTP/1.1 200 OK\r\nX: ")],
    [
      "a body a byte at a time",
      "silent",
      (socket) => {
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        const drip = setInterval(() => socket.write(" "), 10)
        socket.on("close", () => clearInterval(drip))
      }
    ],
    ["another protocol", "broken", (socket) => socket.end("SSH-2.0-OpenSSH\r\n")],
    ["a head without measure", "broken", (socket) => socket.write(`HTTP/1.1 200 OK\r\nX: ${"x".repeat(100_000)}`)],
    [
      "a body without measure",
      "broken",
      (socket) => {
        socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        const piece = "x".repeat(65_536)
        const flood = (): void => {
          while (!socket.destroyed && socket.write(`${piece.length.toString(16)}\r\n${piece}\r\n`)) continue
        }
        socket.on("drain", flood)
        flood()
      }
    ],
    ["the end before the answer", "closed", (socket) => socket.end()],
    ["the end within the answer", "closed", (socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")],
    ["no", "refused", (socket) => socket.write(ok("it is so", "400 Bad Request"))],
    ["something else", "broken", (socket) => socket.write(ok("", "302 Found"))],
    ["no JSON", "broken", (socket) => socket.write(ok("{"))],
    ["another type", "broken", (socket) => socket.write(ok('{"state":1}'))],
    ["what is not there", "broken", (socket) => socket.write(ok('{"state":"maybe"}'))],
    ["JSON that is deep", "broken", (socket) => socket.write(ok("[".repeat(200_000)))]
  ]
  it.live.each(hostile)("a server that answers %s", ([, reason, answer]) =>
    Effect.gen(function* () {
      const { open, path } = yield* server(answer)
      const failed = yield* Effect.flip(clientOf(path).ask("/state", Answer))
      assert.strictEqual(failed.reason, reason, failed.message)
      assert.isBelow(failed.detail.length, 3_000)
      // the connection is not kept
      yield* Effect.sleep("20 millis")
      assert.strictEqual(open(), 0)
    }).pipe(Effect.scoped)
  )

  it.live("nobody there", () =>
    Effect.gen(function* () {
      const failed = yield* Effect.flip(clientOf("/nowhere/at-all").send("PUT", "/x"))
      assert.strictEqual(failed.reason, "unreachable")
    })
  )
})
