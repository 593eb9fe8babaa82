/** The client side of the protocol on the simulated taproot: what is said when, and what a lying taproot meets. */
import { assert, describe, it } from "@effect/vitest"
import { duplexPair } from "node:stream"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { type OutputChunk, type Process, Processes } from "../../src/taproot/Processes.ts"
import * as ProcessesLive from "../../src/taproot/ProcessesLive.ts"
import * as ProcessesRecording from "../../src/taproot/ProcessesRecording.ts"
import { encodeTaprootFrame, type TaprootFrame } from "../../src/taproot/TaprootFrame.ts"
import { FrameWriter } from "../../src/taproot/Wire.ts"

const { SimulatedTaproot } = ProcessesRecording
const stream = { _tag: "Stream" } as const
const worker = { label: "worker", argv: ["worker"], stdin: stream, stdout: stream, stderr: stream } as const

const textOf = (chunks: Iterable<OutputChunk>): string =>
  Buffer.concat(Array.from(chunks, ({ bytes }) => bytes)).toString()

/** The `consumed` of every READ so far. */
const reads = Effect.map(SimulatedTaproot, ({ frames }) =>
  frames.flatMap((frame) => (frame._tag === "Read" ? [`${frame.stream} ${frame.consumed}`] : []))
)

/** Lets every fiber that can go on, and everything arrive that has been sent, both ways. */
const settled = Effect.promise(async () => {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
})

const take = (process: Process, count: number) => Stream.runCollect(Stream.take(process.output("stdout"), count))

describe("output", () => {
  it.effect("a chunk is confirmed when the next one is pulled, not before", () =>
    Effect.gen(function* () {
      const taproot = yield* SimulatedTaproot
      const process = yield* (yield* Processes).spawn(worker)
      const simulated = yield* taproot.process("worker")
      yield* simulated.print("stdout", "one")
      yield* simulated.print("stdout", "two")
      const confirmedWhenHandled: Array<number> = []
      yield* simulated.end({ code: 0 })
      yield* Stream.runForEach(process.output("stdout"), () =>
        Effect.andThen(
          settled,
          Effect.map(simulated.confirmed("stdout"), (bytes) => confirmedWhenHandled.push(bytes))
        )
      )
      assert.deepStrictEqual(confirmedWhenHandled, [0, 3])
      assert.deepStrictEqual(yield* reads, ["stdout 0", "stdout 3", "stdout 6"])
    }).pipe(Effect.provide(ProcessesRecording.layer()))
  )

  it.effect("what a reader left unconfirmed comes again, the same, to the next reader", () =>
    Effect.gen(function* () {
      const taproot = yield* SimulatedTaproot
      const process = yield* (yield* Processes).spawn(worker)
      const simulated = yield* taproot.process("worker")
      for (const line of ["one", "two", "three"]) yield* simulated.print("stdout", line)
      const first = yield* take(process, 2)
      const second = yield* take(process, 1)
      assert.deepStrictEqual(second, first.slice(1))
      assert.deepStrictEqual(
        first.map(({ offset }) => offset),
        [0n, 3n]
      )
      // A reader that was interrupted while it waited leaves nothing behind that would confuse the next one.
      const waiting = yield* Effect.forkChild(take(process, 10))
      yield* settled
      yield* Fiber.interrupt(waiting)
      yield* simulated.end({ code: 0 })
      assert.strictEqual(textOf(yield* Stream.runCollect(process.output("stdout"))), "")
    }).pipe(Effect.provide(ProcessesRecording.layer()))
  )

  it.effect("a second reader waits for the first", () =>
    Effect.gen(function* () {
      const taproot = yield* SimulatedTaproot
      const process = yield* (yield* Processes).spawn(worker)
      const simulated = yield* taproot.process("worker")
      const first = yield* Effect.forkChild(take(process, 1))
      yield* settled
      const second = yield* Effect.forkChild(take(process, 1))
      yield* settled
      assert.deepStrictEqual(yield* reads, ["stdout 0"])
      yield* simulated.print("stdout", "text")
      assert.strictEqual(textOf(yield* Fiber.join(first)), "text")
      assert.strictEqual(textOf(yield* Fiber.join(second)), "text")
    }).pipe(Effect.provide(ProcessesRecording.layer()))
  )

  it.effect("ends when the entry is acknowledged, and is empty where there is none", () =>
    Effect.gen(function* () {
      const process = yield* (yield* Processes).spawn({ ...worker, stderr: { _tag: "Null" } })
      const simulated = yield* (yield* SimulatedTaproot).process("worker")
      yield* simulated.print("stdout", "text")
      yield* simulated.end({ code: 0 })
      yield* process.exit
      const said = yield* Stream.runCollect(Stream.tap(process.output("stdout"), () => process.acknowledge))
      assert.strictEqual(textOf(said), "text")
      assert.deepStrictEqual(yield* Stream.runCollect(process.output("stdout")), [])
      assert.deepStrictEqual(yield* Stream.runCollect(process.output("stderr")), [])
    }).pipe(Effect.provide(ProcessesRecording.layer()))
  )
})

describe("claim", () => {
  it.effect("moves the streams: the old reader meets the end and the new one goes on where it was", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const taproot = yield* SimulatedTaproot
      const create = yield* processes.spawn({ ...worker, label: "create" })
      const simulated = yield* taproot.process("create")
      yield* simulated.print("stdout", "one")
      const early = yield* Effect.forkChild(Stream.runCollect(create.output("stdout")))
      yield* settled
      const container = yield* processes.claim({ pid: 4711, label: "container", streamsFrom: create.id })
      assert.deepInclude(container, { pid: 4711, label: "container", streams: create.streams, adopted: false })
      assert.strictEqual(textOf(yield* Fiber.join(early)), "one")
      const claimed = yield* taproot.process("container")
      yield* claimed.print("stdout", "two")
      yield* claimed.end({ code: 0 })
      assert.strictEqual(textOf(yield* Stream.runCollect(container.output("stdout"))), "two")
      assert.strictEqual(yield* claimed.confirmed("stdout"), 6)
      assert.deepStrictEqual(yield* Stream.runCollect(create.output("stdout")), [])
      assert.strictEqual((yield* Effect.flip(create.write(Buffer.from("x"))))._tag, "StdinClosed")
    }).pipe(Effect.provide(ProcessesRecording.layer()))
  )

  it.effect("that is refused leaves the streams where they were", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const create = yield* processes.spawn({ ...worker, label: "create" })
      const refused = yield* Effect.flip(processes.claim({ pid: 4711, label: "container", streamsFrom: create.id }))
      assert.deepInclude(refused, { _tag: "ClaimRefused", reason: "not-a-child", pid: 4711 })
      const simulated = yield* (yield* SimulatedTaproot).process("create")
      yield* simulated.print("stdout", "still mine")
      assert.strictEqual(textOf(yield* take(create, 1)), "still mine")
    }).pipe(
      Effect.provide(ProcessesRecording.layer({ answerOther: () => ({ _tag: "Refused", reason: "not-a-child" }) }))
    )
  )
})

describe("stdin", () => {
  it.effect("writers take turns, whole, and nobody writes behind the end", () =>
    Effect.gen(function* () {
      const process = yield* (yield* Processes).spawn(worker)
      const simulated = yield* (yield* SimulatedTaproot).process("worker")
      const letters = ["a", "b", "c"]
      yield* Effect.forEach(letters, (letter) => process.write(Buffer.alloc(100_000, letter)), {
        concurrency: "unbounded"
      })
      yield* process.closeStdin
      yield* settled
      assert.deepStrictEqual(yield* simulated.input, {
        text: letters.map((letter) => letter.repeat(100_000)).join(""),
        closed: true
      })
      assert.strictEqual((yield* Effect.flip(process.write(Buffer.from("x"))))._tag, "StdinClosed")
      yield* process.closeStdin
    }).pipe(Effect.provide(ProcessesRecording.layer()))
  )
})

describe("a previous brain's processes", () => {
  const existing = [
    { label: "job/a", stdout: "unread" },
    { label: "job/b", ended: { signal: "SIGSEGV" } },
    { label: "other", ended: { code: 7 } }
  ] as const

  it.effect("are met with their exits and output, and are adoptable until somebody takes them", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      assert.deepStrictEqual(
        (yield* processes.adoptable).map(({ adopted, label }) => [label, adopted]),
        [
          ["job/a", true],
          ["job/b", true],
          ["other", true]
        ]
      )
      const [a, b] = yield* processes.takeAll("job/")
      assert.deepStrictEqual(
        (yield* processes.adoptable).map(({ label }) => label),
        ["other"]
      )
      const other = yield* Effect.flatMap(processes.take("other"), Effect.fromOption)
      assert.deepInclude(yield* other.exit, { _tag: "Exited", code: 7 })
      assert.strictEqual(a === undefined ? "" : textOf(yield* take(a, 1)), "unread")
      assert.deepInclude(b === undefined ? {} : yield* b.exit, { _tag: "Signaled", signal: "SIGSEGV", number: 11 })
      yield* other.acknowledge
      assert.deepStrictEqual(yield* processes.take("other"), Option.none())
      yield* settled
      assert.deepStrictEqual(yield* (yield* SimulatedTaproot).labels, ["job/a", "job/b"])
    }).pipe(Effect.provide(ProcessesRecording.layer({ existing })))
  )
})

describe("the loop", () => {
  it.effect("beats every second", () =>
    Effect.gen(function* () {
      const [brain, taproot] = duplexPair()
      let heard = 0
      taproot.on("data", (chunk: Uint8Array) => (heard += chunk.length))
      const fiber = yield* Effect.forkChild(Effect.scoped(Effect.andThen(ProcessesLive.make(brain), Effect.never)))
      yield* say(taproot, [welcome(0)])
      yield* settled
      const before = heard
      yield* TestClock.adjust("10 seconds")
      yield* settled
      // Length, type and a sequence number.
      assert.strictEqual(heard - before, 10 * 13)
      yield* Fiber.interrupt(fiber)
    })
  )
})

const say = (taproot: NodeJS.WritableStream, frames: ReadonlyArray<TaprootFrame>) =>
  Effect.andThen(
    Effect.sync(() => {
      const writer = new FrameWriter()
      for (const frame of frames) encodeTaprootFrame(writer, frame)
      taproot.write(writer.take())
    }),
    settled
  )

const welcome = (processes: number, version = 2): TaprootFrame => ({
  _tag: "Welcome",
  version,
  instance: "00".repeat(16),
  taprootPid: 1,
  role: "parent",
  brainStarts: 1,
  lastBrainEnd: { how: "none", value: 0, time: 0n },
  features: [],
  succession: { state: "none", fault: "none", end: { how: "none", value: 0, time: 0n } },
  processes
})

const exit = { _tag: "Exited", code: 0, time: 1n, userMicroseconds: 0, systemMicroseconds: 0, maxRssKib: 0 } as const
const entry: TaprootFrame = {
  _tag: "Process",
  id: 9n,
  pid: 9,
  startTime: 9n,
  open: { stdin: true, stdout: true, stderr: true, pty: false },
  label: "entry",
  exit: undefined
}

describe("a taproot that breaks the protocol loses its brain", () => {
  const lies: Readonly<Record<string, ReadonlyArray<TaprootFrame>>> = {
    "another version": [welcome(0, 3)],
    "two greetings": [welcome(0), welcome(0)],
    "an entry that was not announced": [welcome(0), entry],
    "the same entry twice": [welcome(2), entry, entry],
    "an answer to nothing": [welcome(0), { _tag: "Done", request: 99 }],
    "the end of a process that is not there": [welcome(0), { _tag: "Exited", id: 77n, exit }],
    "two ends of one process": [welcome(1), entry, { _tag: "Exited", id: 9n, exit }, { _tag: "Exited", id: 9n, exit }],
    "more input taken than given": [welcome(1), entry, { _tag: "InputTaken", id: 9n, bytes: 1, closed: false }],
    "a fault": [welcome(0), { _tag: "Fault", text: "enough" }]
  }
  const unasked: Readonly<Record<string, ReadonlyArray<TaprootFrame>>> = {
    "output that nobody asked for": [
      welcome(0),
      { _tag: "Output", id: 99n, stream: "stdout", offset: 0n, time: 1n, end: false, bytes: Buffer.from("x") }
    ],
    "input that nobody sent": [welcome(0), { _tag: "InputTaken", id: 99n, bytes: 1, closed: false }],
    "the end of input that nobody sent": [welcome(0), { _tag: "InputTaken", id: 99n, bytes: 0, closed: true }],
    "a stop again and again": [
      welcome(0),
      { _tag: "Stopping", why: "signal", action: "end", deadlineMillis: 1 },
      { _tag: "Stopping", why: "signal", action: "end", deadlineMillis: 1 }
    ],
    "more processes than there can be": [welcome(1_000_000)]
  }
  for (const [name, frames] of [...Object.entries(lies), ...Object.entries(unasked)]) {
    it.effect(name, () =>
      Effect.gen(function* () {
        const [brain, taproot] = duplexPair()
        taproot.resume()
        const losing = yield* Effect.forkChild(
          Effect.scoped(
            Effect.flatMap(ProcessesLive.make(brain), (processes) => processes.lost).pipe(Effect.catch(Effect.succeed))
          )
        )
        yield* say(taproot, frames)
        const lost = yield* Fiber.join(losing)
        assert.deepInclude(lost, { _tag: "ChannelLost", reason: name === "a fault" ? "refused" : "broken" })
      })
    )
  }

  it.effect("noise, and the end in the middle of a frame", () =>
    Effect.gen(function* () {
      for (const [bytes, reason] of [
        [Uint8Array.of(255, 255, 255, 255), "broken"],
        [Uint8Array.of(2, 0, 0, 0, 0x84), "closed"],
        [Uint8Array.of(1, 0, 0, 0, 0x42), "broken"]
      ] as const) {
        const [brain, taproot] = duplexPair()
        taproot.resume()
        const losing = yield* Effect.forkChild(Effect.scoped(Effect.flip(ProcessesLive.make(brain))))
        yield* settled
        taproot.end(bytes)
        assert.strictEqual((yield* Fiber.join(losing)).reason, reason)
      }
    })
  )
})

describe("a guest that is gone", () => {
  it.effect("leaves nobody waiting: its processes count as killed, and what is asked is refused", () =>
    Effect.gen(function* () {
      const [brain, taproot] = duplexPair()
      taproot.resume()
      let told = ""
      const making = yield* Effect.forkChild(
        ProcessesLive.make(brain, { guestPatience: Duration.seconds(30), lost: ({ reason }) => (told = reason) })
      )
      const open = { stdin: true, stdout: true, stderr: false, pty: false }
      yield* say(taproot, [
        welcome(1),
        { _tag: "Process", id: 7n, pid: 70, startTime: 1n, open, label: "web", exit: undefined }
      ])
      const processes = yield* Fiber.join(making)
      const web = Option.getOrThrow(yield* processes.take("web"))
      const reading = yield* Effect.forkChild(Stream.runDrain(web.output("stdout")))
      const spawning = yield* Effect.forkChild(Effect.flip(processes.spawn(worker)))
      const signaling = yield* Effect.forkChild(Effect.flip(web.signal("SIGTERM")))
      yield* settled
      taproot.destroy()
      assert.deepInclude(yield* web.exit, { _tag: "Signaled", signal: "SIGKILL" })
      assert.strictEqual(told, "closed")
      yield* Fiber.join(reading)
      assert.deepInclude(yield* Fiber.join(spawning), { _tag: "SpawnRefused", errno: 104 })
      assert.propertyVal(yield* Fiber.join(signaling), "_tag", "SignalRefused")
      assert.deepInclude(yield* Effect.flip(processes.spawn(worker)), { _tag: "SpawnRefused", errno: 104 })
      assert.propertyVal(yield* Effect.flip(web.signal("SIGTERM")), "_tag", "ProcessGone")
      assert.propertyVal(yield* Effect.flip(web.write(Buffer.from("x"))), "_tag", "StdinClosed")
      yield* web.acknowledge
    }).pipe(Effect.scoped)
  )
})

describe("a guest that does not answer", () => {
  const guest = Effect.gen(function* () {
    const [brain, taproot] = duplexPair()
    taproot.resume()
    const making = yield* Effect.forkChild(ProcessesLive.make(brain, { guestPatience: Duration.seconds(30) }))
    yield* say(taproot, [welcome(0)])
    return yield* Fiber.join(making)
  })

  it.effect("is lost when its patience is over, also for those who cannot be interrupted", () =>
    Effect.gen(function* () {
      const processes = yield* guest
      const spawning = yield* Effect.forkChild(Effect.uninterruptible(Effect.flip(processes.spawn(worker))))
      const mounting = yield* Effect.forkChild(
        Effect.flip(processes.mount({ source: "tmpfs", target: "/run", type: "tmpfs" }))
      )
      yield* settled
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(spawning.pollUnsafe())
      yield* TestClock.adjust("1 second")
      yield* settled
      assert.deepInclude(yield* Fiber.join(spawning), { _tag: "SpawnRefused", errno: 104 })
      assert.propertyVal(yield* Fiber.join(mounting), "_tag", "MountFailed")
      assert.deepInclude(yield* processes.lost, { reason: "silent", detail: "no answer to SPAWN within 30s" })
    }).pipe(Effect.scoped)
  )

  it.effect("keeps nobody once it is left", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const processes = yield* Scope.provide(guest, scope)
      const spawning = yield* Effect.forkChild(Effect.flip(processes.spawn(worker)))
      yield* settled
      yield* Scope.close(scope, Exit.void)
      assert.propertyVal(yield* Fiber.join(spawning), "_tag", "SpawnRefused")
      assert.propertyVal(yield* Effect.flip(processes.spawn(worker)), "_tag", "SpawnRefused")
    })
  )

  it.effect("and one that never says WELCOME is given up", () =>
    Effect.gen(function* () {
      const [brain, taproot] = duplexPair()
      taproot.resume()
      const making = yield* Effect.forkChild(
        Effect.scoped(Effect.flip(ProcessesLive.make(brain, { guestPatience: Duration.seconds(30) })))
      )
      yield* settled
      yield* TestClock.adjust("30 seconds")
      assert.propertyVal(yield* Fiber.join(making), "reason", "silent")
    })
  )
})

describe("a channel that is lost while a claim is on the way", () => {
  it.effect("leaves nobody waiting", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const taproot = yield* SimulatedTaproot
      const create = yield* processes.spawn({ ...worker, label: "create" })
      const claiming = yield* Effect.forkChild(
        Effect.exit(processes.claim({ pid: 4711, label: "container", streamsFrom: create.id }))
      )
      // Sent behind the claim, so they wait for its answer.
      const reading = yield* Effect.forkChild(Effect.exit(Stream.runDrain(create.output("stdout"))))
      const writing = yield* Effect.forkChild(Effect.exit(create.write(Buffer.from("x"))))
      yield* taproot.vanish
      yield* processes.lost
      assert.isTrue(Exit.hasDies(yield* Fiber.join(reading)))
      assert.isTrue(Exit.hasDies(yield* Fiber.join(writing)))
      assert.isTrue(Exit.hasDies(yield* Fiber.join(claiming)))
    }).pipe(Effect.provide(ProcessesRecording.layer({ answerOther: () => ({ _tag: "Silence" }) })))
  )
})
