/** What taproot does with a brain that another one has asked for: tries it, keeps it when it confirms, and goes back when not. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Succession } from "../../src/taproot/Processes.ts"
import { eventually } from "../support/eventually.ts"
import { build, kill, type Peer, program, supervised, type Supervised } from "./Supervised.ts"

beforeAll(build)

interface Started {
  readonly it: Supervised
  readonly first: Peer
  /** What starts a relay. */
  readonly relay: ReadonlyArray<string>
}

const suite = (name: string): void => {
  /** A taproot whose first brain has said hello. */
  const started = (...options: ReadonlyArray<string>): Effect.Effect<Started, never, Scope.Scope> =>
    Effect.gen(function* () {
      let words: ReadonlyArray<string> = []
      const it = yield* supervised([program(name)], options, (relay) => (words = relay))
      const first = yield* it.brain
      yield* first.hello
      return { it, first, relay: words }
    })

  /** Asks for another brain, and lets go as a brain does. */
  const succeed = (brain: Peer, argv: ReadonlyArray<string>, patienceMillis = 60_000, tries = 2) =>
    Effect.gen(function* () {
      yield* brain.send({ _tag: "Succeed", request: 1, patienceMillis, tries, argv })
      yield* brain.next("Done", 1)
      yield* kill(brain.pid, "SIGKILL")
    })

  /** The next brain, and what it is told of successors. */
  const next = Effect.fnUntraced(function* (it: Supervised, succession: Partial<Succession>) {
    const brain = yield* it.brain
    const greeting = yield* brain.hello
    assert.deepInclude(greeting.welcome.succession, succession)
    return { brain, ...greeting }
  })

  describe(`successors of ${name}`, () => {
    it.live("one that confirms is kept, with every process; when it dies it is started again", () =>
      Effect.gen(function* () {
        const { first, it, relay } = yield* started()
        const lasting = yield* first.spawn(["sleep", "1000"])
        yield* succeed(first, relay, 2_000)
        const trial = yield* next(it, { state: "trial", fault: "none" })
        assert.deepStrictEqual(
          trial.processes.map(({ pid }) => pid),
          [lasting.pid]
        )
        assert.include(trial.welcome.features, "successor")
        yield* trial.brain.send({ _tag: "Confirm", request: 2 })
        yield* trial.brain.next("Done", 2)
        for (let waited = 0n; waited < 25n; waited++) {
          yield* Effect.sleep("100 millis")
          yield* trial.brain.send({ _tag: "Heartbeat", sequence: waited })
        }
        yield* kill(trial.brain.pid, "SIGKILL")
        yield* next(it, { state: "proven" })
      })
    )

    it.live("one that ends too often is given up, and the first has its turn, told why", () =>
      Effect.gen(function* () {
        const { first, it } = yield* started()
        const lasting = yield* first.spawn(["sleep", "1000"])
        yield* succeed(first, ["sh", "-c", "exit 9"])
        const back = yield* next(it, { state: "given-up", fault: "ended" })
        assert.deepInclude(back.welcome.succession.end, { how: "exited", value: 9 })
        assert.deepInclude(back.welcome, { brainStarts: 4 })
        assert.deepStrictEqual(
          back.processes.map(({ pid }) => pid),
          [lasting.pid]
        )
        assert.include(yield* it.log, "is given up: it ended too often")
        // and may ask for another one
        yield* succeed(back.brain, ["sh", "-c", "exit 8"], 60_000, 1)
        yield* next(it, { state: "given-up", fault: "ended" })
      })
    )

    it.live("one that does not confirm in time is killed and given up", () =>
      Effect.gen(function* () {
        const { first, it, relay } = yield* started()
        yield* succeed(first, relay, 1_000)
        yield* next(it, { state: "trial" })
        const back = yield* next(it, { state: "given-up", fault: "late" })
        assert.deepInclude(back.welcome.lastBrainEnd, { how: "late", value: 9 })
      })
    )

    it.live("one that hangs before it says hello is given up when its time is over, not later", () =>
      Effect.gen(function* () {
        const { first, it } = yield* started("--hello", "3600000")
        yield* succeed(first, ["sleep", "1000"], 1_000)
        yield* next(it, { state: "given-up", fault: "late" })
      })
    )

    it.live("one that speaks another version is given up at once", () =>
      Effect.gen(function* () {
        const { first, it, relay } = yield* started()
        yield* succeed(first, relay, 60_000, 200)
        yield* (yield* it.brain).send({ _tag: "Hello", version: 9, oldest: 7 })
        yield* next(it, { state: "given-up", fault: "protocol" })
        assert.include(yield* it.log, "speaks version 2 to 2 of the protocol, the brain 7 to 9")
      })
    )

    it.live("one that was proven and cannot keep itself up is given up, before the rescue brain has its turn", () =>
      Effect.gen(function* () {
        let words: ReadonlyArray<string> = []
        const it = yield* supervised([program(name)], ["--rescue-after", "2"], (relay) => {
          words = relay
          return [...relay, "++", "sleep", "1000"]
        })
        const first = yield* it.brain
        yield* first.hello
        yield* succeed(first, words)
        const trial = yield* next(it, { state: "trial" })
        yield* trial.brain.send({ _tag: "Confirm", request: 2 })
        yield* trial.brain.next("Done", 2)
        yield* kill(trial.brain.pid, "SIGKILL")
        const again = yield* next(it, { state: "proven" })
        yield* kill(again.brain.pid, "SIGKILL")
        yield* next(it, { state: "given-up", fault: "unstable" })
        assert.notInclude(yield* it.log, "rescue")
      })
    )

    it.live("who has asked and does not go is ended; what cannot be asked is refused", () =>
      Effect.gen(function* () {
        const { first, it, relay } = yield* started("--heartbeat", "3600000")
        yield* first.send({ _tag: "Succeed", request: 1, patienceMillis: 1_000, tries: 1, argv: ["x".repeat(5_000)] })
        assert.deepInclude(yield* first.next("Refused", 1), { reason: "invalid", text: "its arguments are too long" })
        yield* first.send({ _tag: "Succeed", request: 2, patienceMillis: 60_000, tries: 1, argv: relay })
        yield* first.next("Done", 2)
        yield* next(it, { state: "trial" })
        yield* eventually("the first is gone", () => {
          try {
            return !process.kill(first.pid, 0)
          } catch {
            return true
          }
        })
      })
    )
  })
}

suite("taproot")
suite("taproot-sanitized")
