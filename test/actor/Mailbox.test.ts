/** Mailboxes: bounded, kept over incarnations, each message handled at most once, every caller answered. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actor/Actor.ts"
import type { ChildSpec } from "../../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as Mailbox from "../../src/actor/Mailbox.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Crash } from "./Probe.ts"

type Message =
  | { readonly _tag: "Note"; readonly text: string }
  | { readonly _tag: "Crash" }
  /** Answered when the test says so. */
  | {
      readonly _tag: "Hold"
      readonly until: Deferred.Deferred<string, Crash>
      readonly reply: Mailbox.Reply<string, Crash>
    }
  | { readonly _tag: "Poison"; readonly reply: Mailbox.Reply<string> }

const note = (text: string): Message => ({ _tag: "Note", text })
const poison = (reply: Mailbox.Reply<string>): Message => ({ _tag: "Poison", reply })

const init = (...children: ReadonlyArray<ChildSpec<unknown, never>>) =>
  Root.start(Supervisor.make("init", { intensity: 1_000, children }))

/** An actor that writes down its notes. */
const noting = Effect.fnUntraced(function* (
  options: Partial<Mailbox.Options> = {},
  own: Actor.Options = { policy: RestartPolicy.permanent }
) {
  const mailbox = yield* Mailbox.make<Message>({ capacity: 3, ...options })
  const notes: Array<string> = []
  const handle = (message: Message, incarnation: number): Effect.Effect<unknown, Crash> => {
    switch (message._tag) {
      case "Note":
        return Effect.sync(() => notes.push(`${incarnation} ${message.text}`))
      case "Hold":
        return message.reply.answer(Deferred.await(message.until))
      case "Poison":
      case "Crash":
        return new Crash({ text: message._tag })
    }
  }
  const spec = Actor.make(
    "a",
    { ...own, mailbox },
    Effect.gen(function* () {
      const { incarnation } = yield* Actor.Self
      yield* Actor.ready()
      return yield* mailbox.serve((message) => handle(message, incarnation))
    })
  )
  return { mailbox, notes, spec }
})

const hold = Effect.map(Deferred.make<string, Crash>(), (until) => ({
  until,
  message: (reply: Mailbox.Reply<string, Crash>): Message => ({ _tag: "Hold", until, reply })
}))

const settle = Effect.repeat(Effect.yieldNow, { times: 5 })

describe("a cast", () => {
  it.effect("is handled in order, and what waits at a crash is handled by the next incarnation", () =>
    Effect.gen(function* () {
      const { mailbox, notes, spec } = yield* noting()
      const root = yield* init(spec)
      for (const message of [note("1"), note("2"), { _tag: "Crash" } as const, note("3"), note("4")]) {
        yield* mailbox.cast(message)
      }
      yield* settle
      assert.deepStrictEqual(notes, ["1 1", "1 2", "2 3", "2 4"], "the message it died of is not given again")
      assert.deepInclude((yield* root.tree.get("init/a")).lastExit, { tag: "Crash", message: "Crash" })
      yield* root.end("release")
      assert.deepInclude(yield* root.resources, { bonds: 0 })
    })
  )

  it.effect("waits for room, first come first served, or is refused", () =>
    Effect.gen(function* () {
      const { mailbox, notes, spec } = yield* noting({}, { autoStart: false })
      const root = yield* init(spec)
      const casts = yield* Effect.forEach(["1", "2", "3", "4", "5", "6"], (text) =>
        Effect.forkScoped(mailbox.cast(note(text)))
      )
      yield* settle
      assert.deepStrictEqual(
        casts.map((cast) => cast.pollUnsafe() !== undefined),
        [true, true, true, false, false, false]
      )
      assert.strictEqual(yield* mailbox.depth, 3)
      const [, , , , fifth] = casts
      if (fifth !== undefined) yield* Fiber.interrupt(fifth)
      yield* root.tree.start("init/a")
      yield* settle
      assert.deepStrictEqual(notes, ["1 1", "1 2", "1 3", "1 4", "1 6"])

      const small = yield* noting({ capacity: 1, whenFull: "refuse" }, { autoStart: false })
      yield* small.mailbox.cast(note("1"))
      const full = yield* Effect.flip(small.mailbox.cast(note("2")))
      assert.strictEqual(
        full.message,
        "the mailbox of the actor of this mailbox is full (1 messages): send less, or later"
      )
    })
  )

  it.effect("is kept or refused while the actor is down", () =>
    Effect.gen(function* () {
      const policy = RestartPolicy.make({ backoff: { initial: 1_000, jitter: 0 } })
      for (const whileDown of ["keep", "refuse"] as const) {
        const { mailbox, notes, spec } = yield* noting({ whileDown }, { policy })
        const early = yield* Effect.exit(mailbox.cast(note("early")))
        const root = yield* init(spec)
        yield* mailbox.cast({ _tag: "Crash" })
        yield* mailbox.cast(note("behind it"))
        yield* settle
        const down = yield* Effect.exit(mailbox.cast(note("down")))
        yield* TestClock.adjust("1 second")
        yield* mailbox.cast(note("up"))
        yield* settle
        const kept = whileDown === "keep"
        assert.deepStrictEqual([Exit.isSuccess(early), Exit.isSuccess(down)], [kept, kept])
        assert.deepStrictEqual(
          notes,
          kept ? ["1 early", "2 behind it", "2 down", "2 up"] : ["2 behind it", "2 up"],
          "what was accepted stays"
        )
        yield* root.end("stop")
        const asking = yield* Effect.forkScoped(Effect.flip(mailbox.call(poison, { timeout: "1 second" })))
        yield* TestClock.adjust("1 second")
        const { message } = yield* Fiber.join(asking)
        assert.strictEqual(message, kept ? "init/a did not answer within 1 s" : "init/a was stopped")
      }
    })
  )
})

describe("a call", () => {
  it.effect("is answered with a value or a typed failure", () =>
    Effect.gen(function* () {
      const { mailbox, spec } = yield* noting()
      yield* init(spec)
      const good = yield* hold
      const asking = yield* Effect.forkScoped(mailbox.call(good.message))
      yield* settle
      yield* Deferred.succeed(good.until, "yes")
      assert.strictEqual(yield* Fiber.join(asking), "yes")
      const bad = yield* hold
      yield* Deferred.fail(bad.until, new Crash({ text: "no" }))
      assert.deepInclude(yield* Effect.flip(mailbox.call(bad.message)), { _tag: "Crash", text: "no" })
    })
  )

  it.effect("fails at once when the incarnation that took it dies, and is not given to the next", () =>
    Effect.gen(function* () {
      const { mailbox, notes, spec } = yield* noting()
      const root = yield* init(spec)
      const error = yield* Effect.flip(mailbox.call(poison))
      assert.deepInclude(error, { _tag: "ActorDown", path: "init/a", incarnation: 1, reason: "ended" })
      assert.strictEqual(error.message, "init/a ended: Crash: Poison")
      yield* mailbox.cast(note("alive"))
      yield* settle
      assert.deepStrictEqual(notes, ["2 alive"])
      const held = yield* hold
      const waiting = yield* Effect.forkScoped(Effect.flip(mailbox.call(held.message)))
      yield* settle
      yield* root.tree.stop("init/a")
      assert.strictEqual((yield* Fiber.join(waiting)).message, "init/a was stopped")
    })
  )

  it.effect("that waits when the actor goes down is kept, or fails at once", () =>
    Effect.gen(function* () {
      for (const whileDown of ["keep", "refuse"] as const) {
        const { mailbox, spec } = yield* noting({ whileDown, capacity: 2 }, { policy: RestartPolicy.temporary })
        const root = yield* init(spec)
        const held = yield* hold
        const first = yield* Effect.forkScoped(Effect.flip(mailbox.call(held.message)))
        yield* settle
        const others = yield* Effect.forEach([1, 2, 3], () =>
          Effect.forkScoped(Effect.flip(mailbox.call(held.message, { timeout: "1 minute" })))
        )
        yield* settle
        yield* Deferred.fail(held.until, new Crash({ text: "answered" }))
        assert.deepInclude(yield* Fiber.join(first), { _tag: "Crash" })
        yield* Effect.forEach(others, Fiber.join)
        const late = yield* hold
        const taken = yield* Effect.forkScoped(Effect.flip(mailbox.call(late.message)))
        yield* settle
        const queued = yield* Effect.forEach([1, 2, 3], () =>
          Effect.forkScoped(Effect.flip(mailbox.call(late.message)))
        )
        yield* settle
        yield* Effect.forkScoped(root.tree.restart("init/a", { ending: "release" }))
        yield* settle
        assert.strictEqual((yield* Fiber.join(taken)).message, "init/a was released by its supervisor")
        const ended = queued.map((call) => call.pollUnsafe() !== undefined)
        assert.deepStrictEqual(ended, whileDown === "keep" ? [false, false, false] : [true, true, true])
        yield* Deferred.fail(late.until, new Crash({ text: "late" }))
        const tags = yield* Effect.forEach(queued, (call) => Effect.map(Fiber.join(call), ({ _tag }) => _tag))
        assert.deepStrictEqual(new Set(tags), new Set([whileDown === "keep" ? "Crash" : "ActorDown"]))
        yield* root.end("release")
      }
    })
  )

  it.effect("that nobody waits for any more is not handled", () =>
    Effect.gen(function* () {
      const { mailbox, notes, spec } = yield* noting({}, { autoStart: false })
      const root = yield* init(spec)
      const calls = yield* Effect.forEach(["1 second", "2 seconds"] as const, (timeout) =>
        Effect.forkScoped(Effect.flip(mailbox.call(poison, { timeout })))
      )
      const interrupted = yield* Effect.forkScoped(mailbox.call(poison))
      yield* settle
      assert.strictEqual(yield* mailbox.depth, 3)
      const cast = yield* Effect.forkScoped(mailbox.cast(note("waits for room")))
      yield* Fiber.interrupt(interrupted)
      yield* Fiber.join(cast)
      yield* TestClock.adjust("2 seconds")
      const messages = yield* Effect.forEach(calls, (call) => Effect.map(Fiber.join(call), ({ message }) => message))
      assert.deepStrictEqual(messages, [
        "the actor of this mailbox did not answer within 1 s",
        "the actor of this mailbox did not answer within 2 s"
      ])
      assert.strictEqual(yield* mailbox.depth, 1)
      yield* root.tree.start("init/a")
      yield* settle
      assert.deepStrictEqual(notes, ["1 waits for room"])
    })
  )

  it.effect("fails when its actor leaves the tree, and works again when it comes back", () =>
    Effect.gen(function* () {
      const { mailbox, notes, spec } = yield* noting()
      const pool = yield* DynamicSupervisor.make("pool", { children: Effect.succeed([spec]) })
      const root = yield* init(pool.spec)
      yield* pool.terminateChild("a")
      yield* mailbox.cast(note("kept"))
      const waiting = yield* Effect.forkScoped(Effect.flip(mailbox.call(poison)))
      yield* settle
      yield* pool.deleteChild("a")
      assert.strictEqual((yield* Fiber.join(waiting)).message, "init/pool/a does not exist")
      assert.strictEqual((yield* Effect.flip(mailbox.cast(note("refused"))))._tag, "ActorDown")
      yield* pool.startChild(spec)
      yield* settle
      assert.deepStrictEqual(notes, ["1 kept"])
      yield* root.end("release")
    })
  )
})

describe("a mailbox", () => {
  it.effect("tells its load without a revision", () =>
    Effect.gen(function* () {
      const { mailbox, spec } = yield* noting()
      const root = yield* init(spec, Actor.make("b", {}, Effect.andThen(Actor.ready(), Effect.never)))
      const { revision } = yield* root.tree.get("init/a")
      const held = yield* hold
      yield* Effect.forkScoped(Effect.exit(mailbox.call(held.message, { timeout: "infinity" })))
      yield* settle
      assert.deepStrictEqual((yield* root.tree.moment("init/a")).mailbox, {
        mailboxDepth: 0,
        oldestMessageAt: undefined
      })
      yield* TestClock.adjust("1 second")
      yield* mailbox.cast(note("1"))
      yield* TestClock.adjust("3 seconds")
      yield* mailbox.cast(note("2"))
      assert.deepStrictEqual((yield* root.tree.moment("init/a")).mailbox, { mailboxDepth: 2, oldestMessageAt: 1_000 })
      assert.deepStrictEqual(yield* mailbox.oldest, Duration.seconds(3))
      assert.strictEqual((yield* root.tree.get("init/a")).revision, revision)
      assert.strictEqual((yield* root.tree.moment("init/b")).mailbox, undefined)
      assert.strictEqual((yield* Effect.flip(root.tree.moment("init/c")))._tag, "NoSuchActor")
      assert.deepInclude(yield* root.resources, { bonds: 1 })
    })
  )

  it.effect("belongs to one actor: a second dies, and others may not take from it", () =>
    Effect.gen(function* () {
      const { mailbox, notes, spec } = yield* noting()
      const thief = Actor.make(
        "thief",
        { policy: RestartPolicy.temporary },
        Effect.andThen(Actor.ready(), mailbox.take)
      )
      const second = { ...spec, id: "second", policy: RestartPolicy.temporary }
      const pool = yield* DynamicSupervisor.make("pool", { children: Effect.succeed([spec]) })
      yield* init(pool.spec)
      const refused = yield* Effect.flip(pool.startChild(second))
      assert.match(refused.message, /TypeError: the mailbox of init\/pool\/second is that of init\/pool\/a already/)
      yield* pool.startChild(thief)
      yield* mailbox.cast(note("1"))
      yield* settle
      assert.deepStrictEqual(notes, ["1 1"])
    })
  )

  it.effect("is served by several fibers of its actor, of which one may be gone", () =>
    Effect.gen(function* () {
      const mailbox = yield* Mailbox.make<number>({ capacity: 100 })
      const seen: Array<number> = []
      const workers: Array<Fiber.Fiber<never>> = []
      const spec = Actor.make(
        "a",
        { mailbox },
        Effect.gen(function* () {
          for (let worker = 0; worker < 3; worker++) {
            workers.push(yield* Effect.forkScoped(mailbox.serve((message) => Effect.sync(() => seen.push(message)))))
          }
          yield* Actor.ready()
          return yield* Effect.never
        })
      )
      yield* init(spec)
      yield* settle
      for (let message = 0; message < 3; message++) yield* mailbox.cast(message)
      workers[0]?.interruptUnsafe()
      workers[1]?.interruptUnsafe()
      yield* settle
      assert.deepStrictEqual(seen, [0, 1, 2])
    })
  )

  it.effect("has a capacity", () =>
    Effect.gen(function* () {
      for (const capacity of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
        const exit = yield* Effect.exit(Mailbox.make({ capacity }))
        assert.isTrue(Exit.isFailure(exit))
      }
    })
  )
})
