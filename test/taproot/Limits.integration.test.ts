/** What taproot does when something runs out: it refuses, says why, goes on, and loses nothing that it has. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import type { BrainFrame } from "../../src/taproot/BrainFrame.ts"
import { temporaryCgroup } from "../support/cgroups.ts"
import { eventually } from "../support/eventually.ts"
import { build, kill, type Peer, program, supervised } from "./Supervised.ts"

beforeAll(build)

const errnos = { EAGAIN: 11, EMFILE: 24 } as const
const stream = { _tag: "Stream" } as const
const rssKib = (pid: number): number =>
  Number(/^Rss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1])

/** Starts processes until one is refused; the ids, and the refusal. */
const fill = Effect.fnUntraced(function* (brain: Peer, argv: ReadonlyArray<string>, more: Parameters<Peer["ask"]>[1]) {
  const started: Array<{ readonly id: bigint; readonly pid: number }> = []
  for (;;) {
    const answer = yield* brain.ask(argv, more)
    if (answer._tag === "Refused") return { started, refused: answer }
    started.push(answer)
  }
})

const suite = (suffix: "" | "-sanitized"): void => {
  const taproot = [program(`taproot${suffix}`)]
  const small = [program(`taproot-small${suffix}`)]

  describe(`limits of taproot${suffix}`, () => {
    it.live("a full table refuses, exits do not make room in it, acknowledgements do", () =>
      Effect.gen(function* () {
        const it = yield* supervised(small)
        const brain = yield* it.brain
        yield* brain.hello
        const ids = new Set<bigint>()
        for (let round = 0; round < 3; round++) {
          const { refused, started } = yield* fill(brain, ["true"], {})
          assert.strictEqual(started.length, 8)
          assert.deepInclude(refused, { reason: "table-full" })
          yield* brain.send({ _tag: "Claim", request: 900, pid: 4, startTime: 0n, label: "x", streamsFrom: 0n })
          assert.deepInclude(yield* brain.next("Refused", 900), { reason: "table-full" })
          for (const { id } of started) {
            yield* brain.next("Exited", id)
            assert.isFalse(ids.has(id))
            ids.add(id)
          }
          assert.strictEqual((yield* brain.ask(["true"]))._tag, "Refused")
          yield* brain.send(...started.map(({ id }): BrainFrame => ({ _tag: "Acknowledge", id })))
        }
        yield* brain.send({ _tag: "StatusRequest", request: 1 })
        assert.deepInclude(yield* brain.next("Status", 1), { processes: 0, exited: 0, capacity: 8, refused: 9 })
      })
    )

    it.live("without descriptors it still reaps, reads, and starts brains", () =>
      Effect.gen(function* () {
        const it = yield* supervised(["prlimit", "--nofile=40:40", ...taproot])
        let brain = yield* it.brain
        yield* brain.hello
        const speaker = yield* brain.spawn(["sh", "-c", "read a; (sleep 0.05; exit 9) >/dev/null & echo $!; exit 3"], {
          stdin: stream
        })
        const { refused, started } = yield* fill(brain, ["sleep", "1000"], { stdin: stream, stderr: stream })
        assert.deepInclude(refused, { reason: "system-call", errno: errnos.EMFILE })
        assert.isAbove(started.length, 2)
        yield* kill(brain.pid, "SIGKILL")
        brain = yield* it.brain
        const { processes } = yield* brain.hello
        assert.strictEqual(processes.length, started.length + 1)
        yield* brain.send({ _tag: "Input", id: speaker.id, bytes: Buffer.from("\n") })
        const orphan = Number(yield* brain.text(speaker.id))
        assert.deepInclude((yield* brain.next("Exited", speaker.id)).exit, { _tag: "Exited", code: 3 })
        // An orphan's start time is read from /proc when it is reaped, which takes a descriptor, too.
        yield* eventually("the orphan is reaped", () => !existsSync(`/proc/${orphan}`))
        const claim = { _tag: "Claim", pid: orphan, startTime: 0n, label: "orphan", streamsFrom: 0n } as const
        yield* brain.send({ ...claim, request: 901 }, { _tag: "StatusRequest", request: 1 })
        assert.isTrue((yield* brain.next("Spawned", 901)).startTime > 0n)
        const { descriptors } = yield* brain.next("Status", 1)
        assert.isAtLeast(descriptors, 30)
        assert.isAtMost(descriptors, 40)
        // Every refused spawn gave back what it had opened.
        for (let again = 0; again < 50; again++) yield* brain.ask(["sleep", "1000"], { stdin: stream, stderr: stream })
        for (const { id, pid } of started) {
          yield* kill(pid, "SIGKILL")
          yield* brain.next("Exited", id)
          yield* brain.send({ _tag: "Acknowledge", id })
        }
        assert.strictEqual((yield* brain.ask(["true"], { stdin: stream }))._tag, "Spawned")
      })
    )

    it.live.skipIf(!existsSync("/sys/fs/cgroup/pids/cgroup.procs"))(
      "without processes it refuses, and starts the brain when it can",
      () =>
        Effect.gen(function* () {
          const cgroup = `/sys/fs/cgroup/pids/taproot-test-${process.pid}${suffix}`
          yield* temporaryCgroup(cgroup)
          const most = (count: string) => Effect.sync(() => writeFileSync(`${cgroup}/pids.max`, count))
          const it = yield* supervised(["sh", "-c", `echo $$ > ${cgroup}/cgroup.procs; exec "$0" "$@"`, ...taproot])
          let brain = yield* it.brain
          yield* brain.hello
          yield* most("1")
          assert.deepInclude(yield* brain.ask(["true"], { stdin: stream }), {
            reason: "system-call",
            errno: errnos.EAGAIN
          })
          yield* brain.send({ _tag: "Unmount", request: 900, target: "/x", flags: 0 })
          assert.deepInclude(yield* brain.next("Refused", 900), { reason: "system-call", errno: errnos.EAGAIN })
          yield* kill(brain.pid, "SIGKILL")
          yield* eventually(
            "it tries",
            Effect.map(it.log, (log) => log.includes("no brain could be started: Resource temporarily unavailable"))
          )
          yield* most("max")
          brain = yield* it.brain
          yield* brain.hello
          assert.strictEqual((yield* brain.ask(["true"]))._tag, "Spawned")
        })
    )

    it.live("a brain that asks and never reads costs no memory and misses nothing", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--heartbeat", "3600000"])
        const brain = yield* it.brain
        yield* brain.hello
        const { id } = yield* brain.spawn(["sh", "-c", "read a; exit 5"], { stdin: stream })
        const talker = yield* brain.spawn(["sh", "-c", "echo $$; exec yes"])
        yield* brain.read(talker.id, 0n)
        const before = rssKib(it.pid)
        yield* brain.pause
        const count = 30_000
        yield* brain.send({ _tag: "Input", id, bytes: Buffer.from("\n") })
        yield* brain.send(
          ...Array.from({ length: count }, (_, request): BrainFrame => ({
            _tag: "Unmount",
            request,
            target: "",
            flags: 0x8000_0000
          }))
        )
        yield* brain.send({ _tag: "Read", id: talker.id, stream: "stdout", consumed: 0n, limit: 65_536 })
        yield* Effect.sleep("300 millis")
        const grown = rssKib(it.pid) - before
        yield* brain.resume
        assert.deepInclude((yield* brain.next("Exited", id)).exit, { code: 5 })
        assert.strictEqual((yield* brain.next("Output", talker.id)).bytes.length > 0, true)
        // The two buffers, and not a page for each request.
        if (suffix === "") assert.isBelow(grown, 900)
      })
    )

    it.live.skipIf(suffix !== "")("with its memory limited to little more than its tables it serves all it has", () =>
      Effect.gen(function* () {
        const it = yield* supervised(["prlimit", "--as=40000000:unlimited", ...taproot], [], (relay) => [
          "prlimit",
          "--as=unlimited",
          ...relay
        ])
        const brain = yield* it.brain
        yield* brain.hello
        // Stopped, so that the input of each fills its pipe and its buffer.
        const bytes = new Uint8Array(65_536)
        const { refused, started } = yield* fill(brain, ["sh", "-c", "kill -STOP $$; wc -c"], { stdin: stream })
        assert.deepInclude(refused, { reason: "table-full" })
        assert.strictEqual(started.length, 512)
        const some = started.slice(0, 20)
        for (const { id } of some) {
          yield* brain.send({ _tag: "Input", id, bytes })
          yield* brain.next("InputTaken", id)
          yield* brain.send({ _tag: "Input", id, bytes }, { _tag: "InputEnd", id })
          yield* brain.send({ _tag: "Heartbeat", sequence: id })
        }
        for (const { id, pid } of some) {
          yield* kill(pid, "SIGCONT")
          assert.strictEqual(yield* brain.text(id), "131072\n")
        }
        for (const { pid } of started.slice(20)) yield* kill(pid, "SIGKILL")
      })
    )

    it.live.skipIf(suffix !== "")("has buffers for 256 terminals and 512 input streams, and gives them back", () =>
      Effect.gen(function* () {
        const it = yield* supervised(taproot, ["--heartbeat", "3600000"])
        const brain = yield* it.brain
        yield* brain.hello
        const pty = {
          stdin: { _tag: "Pty", rows: 1, columns: 1 },
          stdout: { _tag: "Pty" },
          stderr: { _tag: "Pty" }
        } as const
        const terminals = yield* fill(brain, ["true"], pty)
        assert.strictEqual(terminals.started.length, 256)
        assert.deepInclude(terminals.refused, { reason: "table-full" })
        const inputs = yield* fill(brain, ["true"], { stdin: stream, stdout: { _tag: "Null" } })
        assert.strictEqual(inputs.started.length, 256)
        assert.deepInclude(inputs.refused, { reason: "table-full" })
        for (const { id } of [...terminals.started, ...inputs.started]) {
          yield* brain.next("Exited", id)
          yield* brain.send({ _tag: "Acknowledge", id })
        }
        assert.strictEqual((yield* brain.ask(["true"], pty))._tag, "Spawned")
        yield* brain.send({ _tag: "StatusRequest", request: 100_000 })
        assert.isBelow((yield* brain.next("Status", 100_000)).descriptors, 30)
      })
    )
  })
}

suite("")
suite("-sanitized")
