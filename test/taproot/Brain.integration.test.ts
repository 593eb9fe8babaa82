/** What taproot promises between brains: nothing of a workload is lost when a brain dies, hangs, lies or never comes. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { eventually } from "../support/eventually.ts"
import { build, kill, program, supervised, temporary } from "./Supervised.ts"

beforeAll(build)

const alive = (pid: number): boolean => {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return false
  }
}

const suite = (name: string): void => {
  const taproot = [program(name)]

  describe(`brains of ${name}`, () => {
    it.live("exits are kept over many deaths of the brain, in order of id, until they are acknowledged", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        let brain = yield* it.brain
        const { processes, welcome } = yield* brain.hello
        assert.deepInclude(welcome, { version: 2, role: "parent", taprootPid: it.pid, brainStarts: 1 })
        assert.deepInclude(welcome.lastBrainEnd, { how: "none", value: 0 })
        assert.deepStrictEqual(processes, [])
        const before = yield* brain.spawn(["sh", "-c", "exit 41"], { label: "before" })
        const during = yield* brain.spawn(["sh", "-c", `while kill -0 ${brain.pid}; do :; done 2>/dev/null; exit 42`])
        const lasting = yield* brain.spawn(["sleep", "1000"])
        const missing = yield* brain.spawn(["no-such-command"])
        yield* brain.next("Exited", before.id)
        yield* brain.next("Exited", missing.id)
        yield* kill(brain.pid, "SIGKILL")
        yield* eventually("the process ends while nobody listens", () => !alive(during.pid))
        for (const starts of [2, 3, 4]) {
          brain = yield* it.brain
          const greeting = yield* brain.hello
          assert.deepInclude(greeting.welcome, { instance: welcome.instance, brainStarts: starts })
          assert.deepInclude(greeting.welcome.lastBrainEnd, { how: "signaled", value: 9 })
          assert.isTrue(greeting.welcome.lastBrainEnd.time > 0n)
          assert.deepStrictEqual(
            greeting.processes.map(({ exit, id, pid, startTime }) => [id, pid, startTime, exit?._tag]),
            [
              [before.id, before.pid, before.startTime, "Exited"],
              [during.id, during.pid, during.startTime, "Exited"],
              [lasting.id, lasting.pid, lasting.startTime, undefined],
              [missing.id, missing.pid, missing.startTime, "NotExecuted"]
            ]
          )
          assert.deepInclude(greeting.processes[0]?.exit, { code: 41 })
          assert.deepInclude(greeting.processes[1]?.exit, { code: 42 })
          assert.deepInclude(greeting.processes[3]?.exit, { stage: "exec", errno: 2 })
          assert.strictEqual(greeting.processes[0]?.label, "before")
          assert.isTrue(alive(lasting.pid))
          if (starts < 4) yield* kill(brain.pid, "SIGKILL")
        }
        for (const { id } of [before, during, lasting]) yield* brain.send({ _tag: "Acknowledge", id })
        yield* brain.send({ _tag: "StatusRequest", request: 77 })
        assert.deepInclude(yield* brain.next("Status", 77), { processes: 2, exited: 1 })
      })
    )

    it.live("output comes again to a new brain: the same bytes, offset and time, and then the rest", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        let brain = yield* it.brain
        yield* brain.hello
        const stream = { _tag: "Stream" } as const
        const { id } = yield* brain.spawn(
          ["sh", "-c", "echo one; read a; echo two; echo err >&2; read a; echo three; read a"],
          {
            stdin: stream,
            stderr: stream
          }
        )
        const say = (line: string) =>
          Effect.andThen(brain.send({ _tag: "Input", id, bytes: Buffer.from(line) }), brain.next("InputTaken", id))
        const one = yield* brain.read(id, 0n)
        assert.deepInclude(one, { offset: 0n, end: false })
        yield* say("\n")
        const two = yield* brain.read(id, 4n)
        assert.deepInclude(two, { offset: 4n, bytes: new Uint8Array(Buffer.from("two\n")) })
        const error = yield* brain.read(id, 0n, "stderr")
        yield* say("\n")
        // Read and not confirmed by this brain.
        yield* kill(brain.pid, "SIGKILL")
        brain = yield* it.brain
        const { processes } = yield* brain.hello
        assert.deepInclude(processes[0], { id, open: { stdin: true, stdout: true, stderr: true, pty: false } })
        assert.deepStrictEqual(yield* brain.read(id, 0n, "stderr"), error)
        assert.deepStrictEqual(yield* brain.read(id, 0n), two)
        const three = yield* brain.read(id, 8n)
        assert.deepInclude(three, { offset: 8n, bytes: new Uint8Array(Buffer.from("three\n")) })
        assert.isTrue(three.time > two.time)
        // This one knows, from its own store, that the dead brain had stored the chunk.
        yield* kill(brain.pid, "SIGKILL")
        brain = yield* it.brain
        yield* brain.hello
        yield* brain.send({ _tag: "InputEnd", id })
        assert.deepInclude(yield* brain.read(id, 14n), { offset: 14n, end: true })
        assert.deepInclude(yield* brain.read(id, 14n), { offset: 14n, end: true })
      })
    )

    it.live("a terminal's output comes again, too", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        let brain = yield* it.brain
        yield* brain.hello
        const { id } = yield* brain.spawn(["sh", "-c", "stty -echo; echo one; read a; echo two; read a"], {
          stdin: { _tag: "Pty", rows: 10, columns: 20 },
          stdout: { _tag: "Pty" },
          stderr: { _tag: "Pty" },
          session: true
        })
        const one = yield* brain.read(id, 0n)
        yield* brain.send({ _tag: "Input", id, bytes: Buffer.from("\n") })
        yield* brain.next("InputTaken", id)
        yield* kill(brain.pid, "SIGKILL")
        brain = yield* it.brain
        const { processes } = yield* brain.hello
        assert.deepInclude(processes[0], { open: { stdin: true, stdout: true, stderr: false, pty: true } })
        assert.deepStrictEqual(yield* brain.read(id, 0n), one)
        const two = yield* brain.read(id, 5n)
        assert.deepInclude(two, { offset: 5n, bytes: new Uint8Array(Buffer.from("two\r\n")) })
      })
    )

    it.live("an orphan that ends while there is no brain can still be claimed", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        let brain = yield* it.brain
        yield* brain.hello
        const script = `(while kill -0 ${brain.pid}; do :; done 2>/dev/null; exit 9) >/dev/null & echo $!`
        const maker = yield* brain.spawn(["sh", "-c", script])
        const pid = Number(yield* brain.text(maker.id))
        yield* kill(brain.pid, "SIGKILL")
        yield* eventually("the orphan ends", () => !alive(pid))
        brain = yield* it.brain
        yield* brain.hello
        const claim = { _tag: "Claim", pid, label: "orphan", streamsFrom: 0n } as const
        yield* brain.send({ ...claim, request: 900, startTime: 1n })
        assert.deepInclude(yield* brain.next("Refused", 900), { reason: "not-a-child" })
        yield* brain.send({ ...claim, request: 901, startTime: 0n })
        const claimed = yield* brain.next("Spawned", 901)
        assert.isTrue(claimed.startTime > 0n)
        assert.deepInclude((yield* brain.next("Exited", claimed.id)).exit, { _tag: "Exited", code: 9 })
        yield* brain.send({ ...claim, request: 902, startTime: 0n })
        assert.deepInclude(yield* brain.next("Refused", 902), { reason: "not-a-child" })
        // Neither itself nor the brain.
        yield* brain.send({ ...claim, request: 903, startTime: 0n, pid: it.pid })
        yield* brain.next("Refused", 903)
        yield* brain.send({ ...claim, request: 904, startTime: 0n, pid: brain.pid })
        yield* brain.next("Refused", 904)
      })
    )

    it.live("brains that die at once are started again with growing pauses", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        for (let deaths = 0; deaths < 4; deaths++) yield* kill((yield* it.brain).pid, "SIGKILL")
        yield* it.brain
        const pauses = (yield* it.log).matchAll(/was killed by signal 9; starting it again in (\d+) ms/g)
        assert.deepStrictEqual(
          Array.from(pauses, ([, pause]) => Number(pause)),
          [0, 100, 200, 400]
        )
      })
    )

    it.live("a brain that had lived for some seconds is back at once, however many died before", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--heartbeat", "3600000"])
        for (let deaths = 0; deaths < 3; deaths++) yield* kill((yield* it.brain).pid, "SIGKILL")
        const healthy = yield* it.brain
        yield* healthy.hello
        yield* Effect.sleep("5200 millis")
        yield* kill(healthy.pid, "SIGKILL")
        yield* it.brain
        const pauses = (yield* it.log).matchAll(/starting it again in (\d+) ms/g)
        assert.strictEqual(Array.from(pauses, ([, pause]) => pause).at(-1), "0")
      })
    )

    it.live("a brain that hangs is killed", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--heartbeat", "300"])
        const hanging = yield* it.brain
        yield* hanging.hello
        const { id } = yield* hanging.spawn(["sleep", "1000"])
        yield* kill(hanging.pid, "SIGSTOP")
        const next = yield* it.brain
        const { processes, welcome } = yield* next.hello
        assert.deepInclude(welcome.lastBrainEnd, { how: "missed-heartbeat", value: 9 })
        assert.deepStrictEqual(
          processes.map((process) => process.id),
          [id]
        )
        assert.isFalse(alive(hanging.pid))
        assert.include(yield* it.log, "missed its heartbeat")
      })
    )

    it.live("a brain that beats is left alone, and a taproot that had no time does not blame it", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--heartbeat", "500"])
        const brain = yield* it.brain
        yield* brain.hello
        for (let sequence = 0n; sequence < 6n; sequence++) {
          yield* Effect.sleep("100 millis")
          yield* brain.send({ _tag: "Heartbeat", sequence })
          if (sequence !== 2n) continue
          yield* kill(it.pid, "SIGSTOP")
          yield* brain.send({ _tag: "Heartbeat", sequence })
          yield* Effect.sleep("700 millis")
          yield* kill(it.pid, "SIGCONT")
        }
        yield* brain.send({ _tag: "StatusRequest", request: 5 })
        yield* brain.next("Status", 5)
      })
    )

    it.live("a brain that never says hello is killed, and a row of them ends it", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--hello", "200", "--brain-failures", "2"], () => ["sleep", "1000"])
        assert.strictEqual(yield* it.ended, 70)
        assert.match(
          yield* it.log,
          /never said hello .* 2 brains in a row never said hello, giving up: run `.*` by hand/
        )
      })
    )

    it.live("a first brain that says that none could do better is believed; a later one is not", () =>
      Effect.gen(function* () {
        const first = yield* supervised(taproot, [], () => ["sh", "-c", "exit 78"])
        assert.strictEqual(yield* first.ended, 78)
        assert.notInclude(yield* first.log, "starting it again")
        const mark = `${yield* temporary}/mark`
        const script = `[ -e ${mark} ] && exit 78; touch ${mark}; exit 1`
        const later = yield* supervised(taproot, ["--brain-failures", "3"], () => ["sh", "-c", script])
        assert.strictEqual(yield* later.ended, 70)
        assert.match(yield* later.log, /exited with 78; starting it again/)
      })
    )

    it.live("after several that ended soon the rescue brain has its turn, and then the ordinary one again", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--rescue-after", "3"], (relay) => ["false", "++", ...relay])
        const rescue = yield* it.brain
        const { welcome } = yield* rescue.hello
        assert.deepInclude(welcome, { brainStarts: 4 })
        assert.deepInclude(welcome.lastBrainEnd, { how: "exited", value: 1 })
        const kept = yield* rescue.spawn(["sleep", "1000"])
        yield* kill(rescue.pid, "SIGKILL")
        const again = yield* it.brain
        const greeting = yield* again.hello
        assert.deepInclude(greeting.welcome, { brainStarts: 8 })
        assert.deepStrictEqual(
          greeting.processes.map(({ pid }) => pid),
          [kept.pid]
        )
        assert.include(yield* it.log, "3 brains in a row ended soon after their start; starting the rescue brain")
      })
    )

    it.live("a brain that cannot be run is named", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--brain-failures", "3"], () => ["/no/such/brain"])
        assert.strictEqual(yield* it.ended, 70)
        assert.include(yield* it.log, "cannot run the brain, /no/such/brain: No such file or directory")
      })
    )

    it.live("garbage ends the brain with a fault, and costs no process anything", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        const brain = yield* it.brain
        yield* brain.hello
        const { id } = yield* brain.spawn(["sleep", "1000"])
        yield* brain.garbage(Buffer.alloc(64, 0xff))
        assert.include((yield* brain.next("Fault")).text, "an impossible length")
        yield* brain.closed
        const next = yield* it.brain
        const { processes, welcome } = yield* next.hello
        // The relay ends by itself when its channel does, as a brain must.
        assert.deepInclude(welcome.lastBrainEnd, { how: "exited", value: 0 })
        assert.deepStrictEqual(
          processes.map((process) => [process.id, process.exit]),
          [[id, undefined]]
        )
        assert.include(yield* it.log, "the brain broke the protocol: a frame has an impossible length")
      })
    )

    it.live("each kind of garbage is told apart", () =>
      Effect.gen(function* () {
        const hello = [5, 0, 0, 0, 1, 2, 0, 2, 0]
        const cases: ReadonlyArray<readonly [string, ReadonlyArray<number>]> = [
          ["HELLO comes first", [5, 0, 0, 0, 0x0e, 1, 0, 0, 0]],
          ["speaks version 2 to 2 of the protocol, the brain 1 to 1", [3, 0, 0, 0, 1, 1, 0]],
          ["speaks version 2 to 2 of the protocol, the brain 3 to 4", [5, 0, 0, 0, 1, 4, 0, 3, 0]],
          ["HELLO comes once", [...hello, ...hello]],
          ["an impossible length", [...hello, 0, 0, 0, 0, 0]],
          ["type 0x77 does not decode", [...hello, 1, 0, 0, 0, 0x77]],
          ["type 0x0e does not decode", [...hello, 6, 0, 0, 0, 0x0e, 1, 0, 0, 0, 0]],
          ["type 0x0a does not decode", [...hello, 2, 0, 0, 0, 0x0a, 1]]
        ]
        yield* Effect.forEach(cases, ([fault, bytes]) =>
          Effect.gen(function* () {
            const brain = yield* (yield* supervised(taproot)).brain
            yield* brain.garbage(Buffer.from(bytes))
            assert.include((yield* brain.next("Fault")).text, fault)
            yield* brain.closed
          }).pipe(Effect.scoped)
        )
      })
    )

    it.live("rules of READ and INPUT: what was not sent cannot be confirmed, the window is 65,536 bytes", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot)
        let brain = yield* it.brain
        yield* brain.hello
        const { id } = yield* brain.spawn(["sh", "-c", "echo hello; exec sleep 1000"], { stdin: { _tag: "Stream" } })
        yield* brain.read(id, 0n)
        yield* brain.send({ _tag: "Read", id, stream: "stdout", consumed: 7n, limit: 1 })
        assert.include((yield* brain.next("Fault")).text, "READ confirms")
        brain = yield* it.brain
        yield* brain.hello
        // The pipe takes the first, the buffer the second; a third would be on the way beside it.
        const bytes = new Uint8Array(65_536)
        yield* brain.send({ _tag: "Input", id, bytes })
        assert.deepInclude(yield* brain.next("InputTaken", id), { bytes: 65_536, closed: false })
        yield* brain.send({ _tag: "Input", id, bytes }, { _tag: "Input", id, bytes: new Uint8Array(1) })
        assert.include((yield* brain.next("Fault")).text, "65536 bytes")
        // The next brain has its whole window again.
        brain = yield* it.brain
        yield* brain.hello
        yield* brain.send({ _tag: "Input", id, bytes }, { _tag: "StatusRequest", request: 1 })
        yield* brain.next("Status", 1)
        // Input and output of a process that is not there.
        yield* brain.send(
          { _tag: "Input", id: 1n, bytes },
          { _tag: "InputEnd", id: 1n },
          { _tag: "Acknowledge", id: 1n }
        )
        assert.deepInclude(yield* brain.next("InputTaken", 1n), { bytes: 65_536, closed: true })
        assert.deepInclude(yield* brain.read(1n, 5n), { offset: 5n, end: true })
      })
    )

    it.live("a brain that lets go of the channel but lives is killed", () =>
      Effect.gen(function* () {
        const sleeper = ["sh", "-c", "exec 3<&-; exec sleep 1000"]
        const it = yield* supervised(taproot, ["--brain-failures", "1"], () => sleeper)
        assert.strictEqual(yield* it.ended, 70)
        assert.include(yield* it.log, "broke the channel and was killed by signal 9")
      })
    )
  })
}

suite("taproot")
suite("taproot-sanitized")
