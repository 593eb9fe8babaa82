/** The files of a guest over a simulated taproot: what a program that hangs, or says what nobody asked for, costs. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as GuestFiles from "../../../src/runtime/microvm/GuestFiles.ts"
import { Processes } from "../../../src/taproot/Processes.ts"
import * as ProcessesRecording from "../../../src/taproot/ProcessesRecording.ts"

const { SimulatedTaproot } = ProcessesRecording

const settled = Effect.promise(async () => {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
})

/** An answer, as text; shorter than 128 bytes. */
const answerOf = (content: string) => `${String.fromCharCode(content.length + 4)}\0\0\0\0\0\0\0${content}`

const make = Effect.gen(function* () {
  const broken: Array<string> = []
  const made = yield* GuestFiles.make(yield* Processes, (detail) => Effect.sync(() => void broken.push(detail)))
  return { ...made, broken, taproot: yield* SimulatedTaproot }
})

describe("the files of a guest", () => {
  it.effect("come in pieces of any size, in the order of their requests, also past one who has left", () =>
    Effect.gen(function* () {
      const { broken, files, taproot } = yield* make
      const leaving = yield* Effect.forkChild(files.read("/one"))
      const staying = yield* Effect.forkChild(files.read("/two"))
      const program = yield* taproot.process("files")
      yield* settled
      yield* Fiber.interrupt(leaving)
      for (const byte of answerOf("first") + answerOf("second")) yield* program.print("stdout", byte)
      assert.strictEqual(String(yield* Fiber.join(staying)), "second")
      assert.deepStrictEqual(broken, [])
    }).pipe(Effect.scoped, Effect.provide(ProcessesRecording.layer()))
  )

  it.effect("a request that is not answered ends the program; the next has a new one", () =>
    Effect.gen(function* () {
      const { broken, files, taproot } = yield* make
      const stuck = yield* Effect.forkChild(Effect.flip(files.read("/fuse/file")))
      const first = yield* taproot.process("files")
      yield* settled
      yield* TestClock.adjust("20 seconds")
      assert.deepInclude(yield* Fiber.join(stuck), { code: "ETIMEDOUT" })
      yield* settled
      assert.deepStrictEqual(first.signals, ["SIGKILL"])
      const next = yield* Effect.forkChild(files.read("/file"))
      yield* settled
      const second = yield* taproot.process("files")
      assert.notStrictEqual(second.id, first.id)
      yield* second.print("stdout", answerOf("content"))
      assert.strictEqual(String(yield* Fiber.join(next)), "content")
      assert.deepStrictEqual(broken, [])
    }).pipe(Effect.scoped, Effect.provide(ProcessesRecording.layer()))
  )

  it.effect("two requests in a row that are not answered are the end of the guest", () =>
    Effect.gen(function* () {
      const { broken, files } = yield* make
      for (const expected of [0, 1]) {
        const stuck = yield* Effect.forkChild(Effect.flip(files.read("/file")))
        yield* settled
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(stuck)
        assert.strictEqual(broken.length, expected)
      }
    }).pipe(Effect.scoped, Effect.provide(ProcessesRecording.layer()))
  )

  it.effect("an answer that nobody waits for, or that is none, breaks the protocol", () =>
    Effect.gen(function* () {
      for (const said of [answerOf("content") + answerOf("more"), "\u0001\0\0\0"]) {
        const { broken, files, taproot } = yield* make
        const asking = yield* Effect.forkChild(Effect.exit(files.read("/file")))
        const program = yield* taproot.process("files")
        yield* settled
        yield* program.print("stdout", said)
        yield* Fiber.join(asking)
        yield* settled
        assert.strictEqual(broken.length, 1)
      }
    }).pipe(Effect.scoped, Effect.provide(ProcessesRecording.layer()))
  )
})
