/** The QMP client: against servers that behave, stall, lie and flood; and its parser against anything. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Qmp from "../../src/vmm/qemu/Qmp.ts"
import { LONGEST_LINE, QmpLines, type QmpMessage } from "../../src/vmm/qemu/QmpLines.ts"

const greeting =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'

const Command = Schema.fromJsonString(Schema.Struct({ execute: Schema.String, id: Schema.Int }))

/** A server that greets and then deals with each command; the path of its socket. */
const server = (
  answer: (socket: Socket, command: typeof Command.Type) => void,
  welcome: (socket: Socket) => void = (socket) => socket.write(greeting)
) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly path: string; readonly close: () => void }>((resume) => {
      const directory = mkdtempSync(join(tmpdir(), "ironwood-qmp-"))
      // longer than a socket's path may be: it is reached through its directory
      const deep = join(directory, "d".repeat(120))
      mkdirSync(deep)
      const sockets = new Set<Socket>()
      const listening = createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {})
        welcome(socket)
        let text = ""
        socket.on("data", (bytes) => {
          text += String(bytes)
          for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
            answer(socket, Schema.decodeSync(Command)(text.slice(0, end)))
            text = text.slice(end + 1)
          }
        })
      })
      process.chdir(deep)
      listening.listen("qmp", () => {
        process.chdir(directory)
        resume(
          Effect.succeed({
            path: join(deep, "qmp"),
            close: () => {
              for (const socket of sockets) socket.destroy()
              listening.close()
              process.chdir("/")
              rmSync(directory, { recursive: true, force: true })
            }
          })
        )
      })
    }),
    ({ close }) => Effect.sync(close)
  )

const accept = (socket: Socket, { id }: { readonly id: number }) => socket.write(`{"return": {}, "id": ${id}}\n`)

describe("Qmp", () => {
  it.live("commands are answered each by its own answer, whatever their order; events come in between", () =>
    Effect.gen(function* () {
      let held: number | undefined
      const { path } = yield* server((socket, command) => {
        if (command.execute === "first") held = command.id
        else if (command.execute === "second") {
          socket.write('{"event": "STOP", "timestamp": {"seconds": 5, "microseconds": 250000}}\n')
          socket.write(`{"return": "two", "id": ${command.id}}\n{"return": "one", "id": ${held}}\n`)
        } else if (command.execute === "bad") {
          socket.write(`{"error": {"class": "GenericError", "desc": "no such thing"}, "id": ${command.id}}\n`)
        } else accept(socket, command)
      })
      const qmp = yield* Qmp.connect(path)
      assert.strictEqual(qmp.version, "7.2.22")
      const events = yield* qmp.events
      const answers = yield* Effect.all([qmp.execute("first"), qmp.execute("second")], { concurrency: 2 })
      assert.deepStrictEqual(answers, ["one", "two"])
      const [event] = yield* Stream.runCollect(Stream.take(events, 1))
      assert.deepStrictEqual(event, { _tag: "Event", name: "STOP", data: {}, time: 5250 })
      const refused = yield* Effect.flip(qmp.execute("bad"))
      assert.strictEqual(refused.message, 'the VMM did not do "bad" (refused): no such thing (GenericError)')
      const wrong = yield* Effect.flip(qmp.ask("ok", Schema.Struct({ status: Schema.String })))
      assert.strictEqual(wrong.reason, "broken")
      // a refusal ends nothing
      assert.deepStrictEqual(yield* qmp.execute("again"), {})
    }).pipe(Effect.scoped)
  )

  it.live("a server that says nothing, or stops answering, is a failure with a name", () =>
    Effect.gen(function* () {
      const mute = yield* server(accept, () => {})
      const noGreeting = yield* Effect.flip(Qmp.connect(mute.path, "100 millis"))
      assert.deepStrictEqual([noGreeting.command, noGreeting.reason], ["connect", "silent"])

      const hangs = yield* server((socket, command) => {
        if (command.execute === "qmp_capabilities") accept(socket, command)
      })
      const qmp = yield* Qmp.connect(hangs.path)
      const failed = yield* Effect.flip(qmp.execute("stop", { deadline: "100 millis" }))
      assert.deepStrictEqual([failed.command, failed.reason], ["stop", "silent"])
      assert.strictEqual((yield* qmp.closed).reason, "silent")
      assert.strictEqual((yield* Effect.flip(qmp.execute("cont"))).reason, "closed")

      const nobody = yield* Effect.flip(Qmp.connect(join(tmpdir(), "ironwood-no-such", "qmp")))
      assert.strictEqual(nobody.reason, "unreachable")
    }).pipe(Effect.scoped)
  )

  it.live("one that lies or floods is cut off, and every command that waits fails", () =>
    Effect.gen(function* () {
      for (const words of ["what?\n", '{"return": {}\n', "[1]\n", "x".repeat(LONGEST_LINE + 1)]) {
        const liar = yield* server((socket, command) => {
          if (command.execute === "qmp_capabilities") accept(socket, command)
          else socket.write(words)
        })
        const qmp = yield* Qmp.connect(liar.path)
        const failed = yield* Effect.flip(qmp.execute("query-status"))
        assert.deepStrictEqual([failed.command, failed.reason], ["query-status", "broken"])
      }
      const leaver = yield* server((socket, command) => {
        if (command.execute === "qmp_capabilities") accept(socket, command)
        else socket.destroy()
      })
      const qmp = yield* Qmp.connect(leaver.path)
      assert.strictEqual((yield* Effect.flip(qmp.execute("query-status"))).reason, "closed")
    }).pipe(Effect.scoped)
  )
})

describe("QmpLines", () => {
  const messages = [
    greeting.trim(),
    '{"return": {"status": "running"}, "id": 3}',
    '{"error": {"class": "GenericError", "desc": "né"}, "id": 4}',
    '{"event": "RESET", "data": {"guest": true}, "timestamp": {"seconds": 1, "microseconds": 0}}'
  ]

  it.effect.prop(
    "what comes is the same, however it is cut",
    { picks: Schema.Array(Schema.Literals([0, 1, 2, 3])), cuts: Schema.Array(Schema.Int) },
    ({ cuts, picks }) =>
      Effect.sync(() => {
        const bytes = Buffer.from(picks.map((pick) => `${messages[pick] ?? ""}\r\n`).join(""))
        const whole = new QmpLines().push(bytes)
        const lines = new QmpLines()
        const pieces: Array<QmpMessage> = []
        let start = 0
        const places = cuts.map((cut) => Math.abs(cut) % (bytes.length + 1)).sort((one, other) => one - other)
        for (const end of [...places, bytes.length]) {
          const pushed = lines.push(bytes.subarray(start, end))
          if (Result.isSuccess(pushed)) pieces.push(...pushed.success)
          start = end
        }
        assert.strictEqual(pieces.length, picks.length)
        assert.deepStrictEqual(Result.getOrThrow(whole), pieces)
      })
  )

  it.effect.prop("anything at all is messages or a reason, never a defect", { bytes: Schema.Uint8Array }, ({ bytes }) =>
    Effect.sync(() => {
      const pushed = new QmpLines().push(bytes)
      if (Result.isFailure(pushed)) assert.isAbove(pushed.failure.length, 0)
      else assert.isTrue(pushed.success.every(({ _tag }) => _tag.length > 0))
    })
  )

  it.effect.prop("any JSON value too", { value: Schema.Json }, ({ value }) =>
    Effect.sync(() => {
      const pushed = new QmpLines().push(Buffer.from(`${JSON.stringify(value)}\n`))
      if (Result.isFailure(pushed)) assert.include(pushed.failure, "no message of the protocol")
      else assert.strictEqual(pushed.success.length, 1)
    })
  )

  it("a line that never ends is given up at its limit, not kept", () => {
    const lines = new QmpLines()
    const piece = Buffer.alloc(65_536, 0x20)
    let pushed = lines.push(piece)
    for (let sent = piece.length; sent <= LONGEST_LINE && Result.isSuccess(pushed); sent += piece.length) {
      pushed = lines.push(piece)
    }
    assert.isTrue(Result.isFailure(pushed))
  })
})
