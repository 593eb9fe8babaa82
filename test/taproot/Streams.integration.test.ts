/** Output, input, terminals and claims against the real taproot. */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { type OutputChunk, type OutputStream, type Process, Processes } from "../../src/taproot/Processes.ts"
import { eventually } from "../support/eventually.ts"
import * as Taproot from "../support/taproot.ts"

const stream = { _tag: "Stream" } as const

const spawn = (script: string, streams: "output" | "all" | "errors" = "output") =>
  Effect.flatMap(Processes, (processes) =>
    processes.spawn({
      label: "test",
      argv: ["bash", "-c", script],
      stdout: stream,
      ...(streams === "all" ? { stdin: stream } : {}),
      ...(streams === "errors" ? { stderr: stream } : {})
    })
  )

const textOf = ({ bytes }: OutputChunk): string => Buffer.from(bytes).toString("utf8")

const text = (process: Process, from: OutputStream = "stdout") =>
  process.output(from).pipe(Stream.map(textOf), Stream.mkString)

/** Reads a stream in the background; `until` waits for a sentence in what was read so far. */
const listen = (process: Process) =>
  Effect.gen(function* () {
    let heard = ""
    const reader = yield* Effect.forkChild(
      Stream.runForEach(process.output("stdout"), (chunk) => Effect.sync(() => (heard += textOf(chunk))))
    )
    return {
      until: (sentence: string) => eventually(`"${sentence}" is said`, () => heard.includes(sentence)),
      toEnd: Effect.map(Fiber.join(reader), () => heard)
    }
  })

/** Memory of a process that is its own, in KiB. */
const residentKib = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1])

const megabyte = 1_048_576

const suite = (name: string, program: string): void => {
  const real = Effect.provide(Taproot.layer({ program }))

  describe(name, () => {
    describe("output", () => {
      it.live("50 MB arrive whole at a slow reader, and nobody holds them meanwhile", () =>
        Effect.gen(function* () {
          const total = 50 * megabyte
          const taproot = yield* Taproot.Taproot
          // 8-byte words that count: any loss, doubling or disorder shows.
          const process = yield* spawn(`exec "${globalThis.process.execPath}" -e '
            const { writeSync } = require("node:fs")
            for (let word = 0; word < ${total / 8}; ) {
              const block = Buffer.alloc(65536)
              for (let at = 0; at < block.length; at += 8) block.writeBigUInt64LE(BigInt(word++), at)
              for (let done = 0; done < block.length; ) done += writeSync(1, block, done)
            }'`)
          const before = residentKib(taproot.pid)
          let most = 0
          let length = 0
          let pending = Buffer.alloc(0)
          let word = 0n
          let lastTime = 0n
          yield* Stream.runForEach(process.output("stdout"), (chunk) =>
            Effect.gen(function* () {
              assert.strictEqual(chunk.offset, BigInt(length))
              assert.isTrue(chunk.time > lastTime)
              lastTime = chunk.time
              length += chunk.bytes.length
              pending = Buffer.concat([pending, chunk.bytes])
              const whole = pending.length - (pending.length % 8)
              for (let at = 0; at < whole; at += 8) {
                if (pending.readBigUInt64LE(at) !== word) assert.fail(`word ${word} is ${pending.readBigUInt64LE(at)}`)
                word += 1n
              }
              pending = pending.subarray(whole)
              most = Math.max(most, residentKib(taproot.pid))
              // Slower than the writer: it has to wait for us.
              if (length % (5 * megabyte) < chunk.bytes.length) yield* Effect.sleep("20 millis")
            })
          )
          assert.strictEqual(length, total)
          assert.deepInclude(yield* process.exit, { _tag: "Exited", code: 0 })
          // The sanitized program keeps shadow memory of all that it ever touched.
          if (program === Taproot.binary) assert.isBelow(most - before, 1_024)
        }).pipe(real)
      )

      it.live("nobody reads: the writer waits, and everything else goes on", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const unread = yield* spawn("exec yes")
          const other = yield* processes.run({ label: "other", argv: ["echo", "hello"] })
          assert.strictEqual(Buffer.from(other.stdout).toString(), "hello\n")
          yield* eventually("the writer waits", () => / S /.test(readFileSync(`/proc/${unread.pid}/stat`, "utf8")))
          yield* unread.signal("SIGKILL")
          // What it wrote before its death is still there.
          yield* unread.exit
          const rest = yield* text(unread)
          assert.isTrue(rest.startsWith("y\ny\n") && rest.length > 120_000)
        }).pipe(real)
      )

      it.live("both streams at once, each in order, each with times that grow", () =>
        Effect.gen(function* () {
          const process = yield* spawn("for i in $(seq 200); do echo out $i; echo err $i >&2; done", "errors")
          const read = (from: OutputStream) => Stream.runCollect(process.output(from))
          const [out, err] = yield* Effect.all([read("stdout"), read("stderr")], { concurrency: "unbounded" })
          const lines = (word: string) => Array.from({ length: 200 }, (_, index) => `${word} ${index + 1}\n`).join("")
          assert.strictEqual(out.map(textOf).join(""), lines("out"))
          assert.strictEqual(err.map(textOf).join(""), lines("err"))
          for (const chunks of [out, err]) {
            chunks.reduce((time, chunk) => (assert.isTrue(chunk.time > time), chunk.time), 0n)
          }
        }).pipe(real)
      )

      it.live("an unconfirmed chunk comes again, the same, though more was written behind it", () =>
        Effect.gen(function* () {
          const process = yield* spawn("echo one; read -r go; echo two", "all")
          const first = yield* Effect.flatMap(Stream.runHead(process.output("stdout")), Effect.fromOption)
          yield* process.write(Buffer.from("go\n"))
          yield* process.exit
          const all = yield* Stream.runCollect(process.output("stdout"))
          assert.deepStrictEqual(all[0], first)
          assert.deepStrictEqual(all.map(textOf), ["one\n", "two\n"])
        }).pipe(real)
      )
    })

    describe("input", () => {
      it.live("20 MB through cat come back whole, in bounded pieces", () =>
        Effect.gen(function* () {
          const bytes = Buffer.alloc(20 * megabyte)
          for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE(at, at)
          const process = yield* spawn("exec cat", "all")
          const writing = yield* Effect.forkChild(Effect.andThen(process.write(bytes), process.closeStdin))
          let length = 0
          yield* Stream.runForEach(process.output("stdout"), (chunk) =>
            Effect.sync(() => {
              if (Buffer.compare(chunk.bytes, bytes.subarray(length, length + chunk.bytes.length)) !== 0) {
                assert.fail(`the bytes from ${length} on differ`)
              }
              length += chunk.bytes.length
            })
          )
          yield* Fiber.join(writing)
          assert.strictEqual(length, bytes.length)
        }).pipe(real)
      )

      it.live("a writer to a process that does not read waits, and learns of its end", () =>
        Effect.gen(function* () {
          const process = yield* spawn("exec sleep 1000", "all")
          const writing = yield* Effect.forkChild(Effect.flip(process.write(new Uint8Array(megabyte))))
          assert.deepStrictEqual(yield* process.exitNow, Option.none())
          yield* process.signal("SIGKILL")
          assert.deepInclude(yield* Fiber.join(writing), { _tag: "StdinClosed", pid: process.pid })
        }).pipe(real)
      )

      it.live("a process that closes its input ends the writing", () =>
        Effect.gen(function* () {
          const process = yield* spawn("exec 0<&-; echo closed; exec sleep 1000", "all")
          yield* Stream.runHead(process.output("stdout"))
          const refused = yield* process
            .write(Buffer.from("text"))
            .pipe(Effect.repeat(Schedule.spaced("5 millis")), Effect.flip)
          assert.deepInclude(refused, { _tag: "StdinClosed" })
          yield* process.signal("SIGKILL")
        }).pipe(real)
      )
    })

    describe("pty", () => {
      it.live("is a terminal with a size that can change, and its input is typed", () =>
        Effect.gen(function* () {
          const pty = { _tag: "Pty", rows: 24, columns: 80 } as const
          const process = yield* (yield* Processes).spawn({
            label: "pty",
            argv: [
              "bash",
              "-c",
              "trap 'echo now $(stty size)' WINCH; tty; stty size; while read -r line; do echo got $line; done; echo end"
            ],
            stdin: pty,
            stdout: pty,
            stderr: pty,
            session: true
          })
          const heard = yield* listen(process)
          yield* heard.until("24 80")
          yield* process.resize(50, 132)
          // The shell runs the trap when its read returns.
          yield* process.write(Buffer.from("hello\n"))
          yield* heard.until("now 50 132")
          yield* heard.until("got hello")
          yield* process.closeStdin
          assert.match(yield* heard.toEnd, /^\/dev\/pts\/\d+\r\n[^]*end\r\n$/)
          assert.deepInclude(yield* process.exit, { _tag: "Exited", code: 0 })
        }).pipe(real)
      )
    })

    describe("claim", () => {
      /** Leaves an orphan behind, which prints its pid first, and ends. */
      const parent = "exec 3<&0; setsid bash -c 'echo $$; read -r go; echo orphan says $go; exit 7' 0<&3 & exec true"

      it.live("an orphan becomes a process, with the streams of the one that made it", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const maker = yield* spawn(parent, "all")
          const first = yield* Queue.unbounded<string>()
          const reading = yield* Effect.forkChild(
            Stream.runForEach(maker.output("stdout"), (chunk) => Queue.offer(first, textOf(chunk)))
          )
          const pid = Number(yield* Queue.take(first))
          yield* maker.exit
          const orphan = yield* processes.claim({ pid, label: "orphan", streamsFrom: maker.id })
          yield* Fiber.join(reading)
          yield* maker.acknowledge
          assert.strictEqual(orphan.pid, pid)
          yield* orphan.write(Buffer.from("hello\n"))
          assert.strictEqual(yield* text(orphan), "orphan says hello\n")
          assert.deepInclude(yield* orphan.exit, { _tag: "Exited", code: 7 })
          yield* orphan.acknowledge
          assert.strictEqual((yield* processes.status).processes, 0)
        }).pipe(real)
      )

      it.live("also finds an orphan that has ended, and refuses what is none", () =>
        Effect.gen(function* () {
          const processes = yield* Processes
          const maker = yield* spawn("(sleep 0.05; exit 9) & echo $!")
          const pid = Number(yield* text(maker))
          yield* maker.exit
          yield* eventually("the orphan is gone", () => !existsSync(`/proc/${pid}`))
          const orphan = yield* processes.claim({ pid, label: "orphan" })
          assert.deepInclude(yield* orphan.exit, { _tag: "Exited", code: 9 })
          const stranger = yield* Effect.flip(processes.claim({ pid: globalThis.process.pid, label: "us" }))
          assert.deepInclude(stranger, { _tag: "ClaimRefused", reason: "not-a-child" })
          const living = yield* spawn("sleep 1000 & echo $!")
          const sleeper = Number(
            yield* Effect.map(Effect.flatMap(Stream.runHead(living.output("stdout")), Effect.fromOption), textOf)
          )
          yield* living.exit
          const wrong = yield* Effect.flip(processes.claim({ pid: sleeper, label: "wrong", startTime: 1n }))
          assert.deepInclude(wrong, { _tag: "ClaimRefused", reason: "not-a-child" })
          const right = yield* processes.claim({ pid: sleeper, label: "right" })
          yield* right.signal("SIGKILL")
          assert.deepInclude(yield* right.exit, { _tag: "Signaled", signal: "SIGKILL" })
        }).pipe(real)
      )
    })
  })
}

suite("streams on taproot", Taproot.binary)
if (Taproot.sanitized !== undefined) suite("streams on the sanitized taproot", Taproot.sanitized)
