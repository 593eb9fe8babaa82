/**
 * Mailboxes: bounded queues of typed messages that belong to an actor and outlive its incarnations.
 *
 * ```ts
 * type Message =
 *   | { readonly _tag: "Add"; readonly amount: number }
 *   | { readonly _tag: "Total"; readonly reply: Mailbox.Reply<number> }
 *
 * export const counter = Effect.gen(function* () {
 *   const mailbox = yield* Mailbox.make<Message>({ capacity: 256 })
 *   const spec = Actor.make("counter", { mailbox }, Effect.gen(function* () {
 *     let total = 0
 *     yield* Actor.ready()
 *     yield* mailbox.serve((message) => {
 *       if (message._tag === "Total") return message.reply.succeed(total)
 *       total += message.amount
 *       return Effect.void
 *     })
 *   }))
 *   return { spec, mailbox }
 * })
 *
 * yield* mailbox.cast({ _tag: "Add", amount: 2 })
 * const total = yield* mailbox.call<number>((reply) => ({ _tag: "Total", reply }))
 * ```
 *
 * `cast` is done when the message is in the mailbox; `call` when it was answered. A full mailbox makes senders wait, the
 * one that came first going first, or refuses them (`whenFull`). While the actor is down (before its first start, backing
 * off, stopped, parked …) messages wait for its next incarnation, or are refused with `ActorDown` (`whileDown`). A message
 * is handled at most once: one that was taken by an incarnation which then ended is not given to the next, and whoever
 * called with it fails with `ActorDown` as soon as that end is complete.
 *
 * Every message costs O(1), and none makes a revision: how full the mailbox is, and since when its oldest message waits, is
 * read when somebody asks (`Tree.moment`, `ironwood inspect`).
 *
 * **Traps.**
 * - One mailbox, one actor: two that live at the same time with the same mailbox is a bug, and the second dies of it. So
 *   every copy of a partitioned actor needs its own.
 * - Make the mailbox beside the spec, not in the body or in the `children` of a dynamic supervisor: there every start
 *   would make a new one and nobody would know it.
 * - Two actors that `call` each other wait for each other until the time is up; so do those that `cast` into each other's
 *   full mailboxes. Let calls go one way.
 * - A call that has timed out may have been handled all the same.
 *
 * **Where this differs from OTP**, on purpose:
 * - The mailbox is bounded, typed, and lives longer than the process. There a crash loses all messages, silently.
 * - A call whose caller has gone (timeout, interruption) is taken out of the mailbox unless it is being handled. A
 *   `gen_server` that has fallen behind works through requests nobody waits for any more, and falls further behind.
 * - A call to a dead actor is told apart from a slow one; in OTP both are exits of the caller, here both are typed.
 * - No selective receive: what must be handled first deserves an actor of its own.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { MailboxControl } from "./ChildSpec.ts"
import type { Down } from "./Down.ts"
import { ActorDown, CallTimeout, MailboxFull } from "./Errors.ts"
import { type Linked, LinkedList } from "./internal/LinkedList.ts"
import { Self } from "./Self.ts"

export { ActorDown, CallTimeout, MailboxFull } from "./Errors.ts"

export interface Options {
  /** Messages that may wait; at least 1. */
  readonly capacity: number
  /** Default `wait`: the sender waits until there is room. */
  readonly whenFull?: "wait" | "refuse"
  /**
   * Default `keep`: the next incarnation handles them. `refuse`: senders fail at once, also those that wait already; casts
   * that were accepted stay.
   */
  readonly whileDown?: "keep" | "refuse"
}

/** How the actor answers a call. Only the first answer counts; the actor may give it later and from elsewhere. */
export interface Reply<in A, in E = never> {
  readonly succeed: (value: A) => Effect.Effect<void>
  readonly fail: (error: E) => Effect.Effect<void>
  /** Answers with what comes of `effect`: value or typed failure. A defect is the actor's own. */
  readonly answer: <R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<void, never, R>
}

export interface CallOptions {
  /** From the call to the answer, waiting for room included; default 5 seconds, as in OTP. */
  readonly timeout?: Duration.Input | "infinity"
}

/** A mailbox of messages `M`; see the module header. */
export interface Mailbox<in out M> {
  /** Puts a message in. */
  readonly cast: (message: M) => Effect.Effect<void, MailboxFull | ActorDown>
  /** Puts in the message that carries this reply, and waits for the answer. */
  readonly call: <A, E = never>(
    message: (reply: Reply<A, E>) => M,
    options?: CallOptions
  ) => Effect.Effect<A, E | MailboxFull | ActorDown | CallTimeout>
  /** For its actor: the oldest message, waiting for one if there is none. */
  readonly take: Effect.Effect<M, never, Self>
  /** For its actor: takes and handles messages one after another, until `handle` fails. */
  readonly serve: <E, R>(handle: (message: M) => Effect.Effect<unknown, E, R>) => Effect.Effect<never, E, R | Self>
  /** How many messages wait to be taken. */
  readonly depth: Effect.Effect<number>
  /** For how long the oldest of them has been waiting. */
  readonly oldest: Effect.Effect<Duration.Duration | undefined>
  /** What the actor that it belongs to needs; see `Actor.Options`. */
  readonly control: MailboxControl
}

/** An empty mailbox. Dies when the capacity is not a whole number of at least 1. */
export const make = <M>(options: Options): Effect.Effect<Mailbox<M>> =>
  Effect.sync(() => {
    const { capacity } = options
    if (!Number.isSafeInteger(capacity) || capacity < 1) {
      throw new TypeError(`a mailbox has a capacity of at least 1, not ${capacity}`)
    }
    return new Box<M>(capacity, options.whenFull ?? "wait", options.whileDown ?? "keep")
  })

const defaultTimeout = Duration.seconds(5)

interface Envelope<M> extends Linked<Envelope<M>> {
  readonly message: M
  /** Milliseconds since 1970. */
  readonly at: number
  /** Of a call: has its caller fail. */
  readonly refuse: ((error: ActorDown) => void) | undefined
}

/** A sender that waits for room. */
interface Sender<M> {
  readonly envelope: Envelope<M>
  readonly resume: (effect: Effect.Effect<void, ActorDown>) => void
}

/** An actor's fiber that waits for a message. */
interface Taker {
  readonly wake: () => void
  woken: boolean
}

/** Lets a fiber go on in a turn of its own: who sends or ends must not run what comes next for the other. */
const inTurn = (fiber: Fiber.Fiber<unknown, unknown>, run: () => void): void =>
  fiber.currentDispatcher.scheduleTask(run, 0)

class Box<M> implements Mailbox<M> {
  readonly #capacity: number
  readonly #whenFull: "wait" | "refuse"
  readonly #whileDown: "keep" | "refuse"
  readonly #waiting = new LinkedList<Envelope<M>>()
  /** Calls taken by the present life and not answered yet. */
  readonly #taken = new Set<Envelope<M>>()
  /** In the order in which they came. */
  readonly #senders = new Set<Sender<M>>()
  readonly #takers = new Set<Taker>()
  /** The actor it belongs to, once that has lived. */
  #path: string | undefined
  /** The life that may take messages. */
  #incarnation: number | undefined
  /** What came last of the actor, when it does not live. */
  #down: Down | undefined

  constructor(capacity: number, whenFull: "wait" | "refuse", whileDown: "keep" | "refuse") {
    this.#capacity = capacity
    this.#whenFull = whenFull
    this.#whileDown = whileDown
  }

  get #owner(): string {
    return this.#path ?? "the actor of this mailbox"
  }

  // --- sending ---

  cast(message: M): Effect.Effect<void, MailboxFull | ActorDown> {
    return Effect.withFiber((fiber) => this.#send(envelopeOf(fiber, message, undefined), fiber))
  }

  call<A, E = never>(
    message: (reply: Reply<A, E>) => M,
    options?: CallOptions
  ): Effect.Effect<A, E | MailboxFull | ActorDown | CallTimeout> {
    const timeout = options?.timeout ?? defaultTimeout
    return Effect.withFiber((fiber) => {
      const answer = Deferred.makeUnsafe<A, E | ActorDown>()
      const refuse = (error: ActorDown) => inTurn(fiber, () => Deferred.doneUnsafe(answer, Exit.fail(error)))
      const envelope = envelopeOf(fiber, message(replyTo(answer)), refuse)
      const answered = Effect.andThen(this.#send(envelope, fiber), Deferred.await(answer))
      const inTime =
        timeout === "infinity"
          ? answered
          : Effect.timeoutOrElse(answered, {
              duration: timeout,
              orElse: () => Effect.fail(new CallTimeout({ path: this.#owner, after: Duration.toMillis(timeout) }))
            })
      return Effect.ensuring(
        inTime,
        Effect.sync(() => this.#withdraw(envelope))
      )
    })
  }

  #send(envelope: Envelope<M>, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void, MailboxFull | ActorDown> {
    const refusal = this.#refusal()
    if (refusal !== undefined) return Effect.fail(refusal)
    if (this.#waiting.size < this.#capacity) {
      this.#append(envelope)
      return Effect.void
    }
    if (this.#whenFull === "refuse") {
      return Effect.fail(new MailboxFull({ path: this.#owner, capacity: this.#capacity }))
    }
    return Effect.callback((resume) => {
      const sender: Sender<M> = { envelope, resume: (effect) => inTurn(fiber, () => resume(effect)) }
      this.#senders.add(sender)
      return Effect.sync(() => void this.#senders.delete(sender))
    })
  }

  #refusal(): ActorDown | undefined {
    if (this.#incarnation !== undefined) return undefined
    const down = this.#down ?? { path: this.#owner, incarnation: 0, reason: "not-alive", exit: undefined }
    return this.#whileDown === "refuse" || down.reason === "no-such-actor" ? new ActorDown(down) : undefined
  }

  #append(envelope: Envelope<M>): void {
    this.#waiting.append(envelope)
    this.#wakeOne()
  }

  /** There is room: whoever has waited longest gets it. */
  #admit(): void {
    for (const sender of this.#senders) {
      if (this.#waiting.size >= this.#capacity) return
      this.#senders.delete(sender)
      this.#append(sender.envelope)
      sender.resume(Effect.void)
    }
  }

  /** Nobody waits for the answer any more. */
  #withdraw(envelope: Envelope<M>): void {
    this.#taken.delete(envelope)
    if (!envelope.listed) return
    this.#waiting.remove(envelope)
    this.#admit()
  }

  // --- taking ---

  readonly take: Effect.Effect<M, never, Self> = Effect.flatMap(Self, (self) => this.#take(self))

  serve<E, R>(handle: (message: M) => Effect.Effect<unknown, E, R>): Effect.Effect<never, E, R | Self> {
    return Effect.forever(Effect.flatMap(this.take, handle))
  }

  #take(self: Self["Service"]): Effect.Effect<M> {
    return Effect.suspend(() => {
      if (self.path !== this.#path) {
        return Effect.die(new TypeError(`${self.path} takes from the mailbox of ${this.#owner}: only its actor may`))
      }
      // A fiber that has outlived its incarnation gets nothing of what the next one is to handle.
      if (self.incarnation !== this.#incarnation) return Effect.interrupt
      const envelope = this.#waiting.first
      if (envelope === undefined) return Effect.andThen(this.#message, this.#take(self))
      this.#waiting.remove(envelope)
      if (envelope.refuse !== undefined) this.#taken.add(envelope)
      this.#admit()
      return Effect.succeed(envelope.message)
    })
  }

  /** Waits until there is a message, perhaps. */
  readonly #message: Effect.Effect<void> = Effect.withFiber((fiber) =>
    Effect.callback((resume) => {
      const taker: Taker = { wake: () => inTurn(fiber, () => resume(Effect.void)), woken: false }
      this.#takers.add(taker)
      return Effect.sync(() => {
        this.#takers.delete(taker)
        if (taker.woken && this.#waiting.size > 0) this.#wakeOne()
      })
    })
  )

  #wakeOne(): void {
    for (const taker of this.#takers) {
      this.#takers.delete(taker)
      taker.woken = true
      return taker.wake()
    }
  }

  // --- its actor ---

  readonly control: MailboxControl = {
    begin: (path, incarnation) => {
      if (this.#incarnation !== undefined) return this.#path
      this.#path = path
      this.#incarnation = incarnation
      this.#down = undefined
      return undefined
    },
    end: (down) => {
      this.#incarnation = undefined
      this.#takers.clear()
      this.#isDown(down, this.#whileDown === "refuse")
    },
    removed: (path) => {
      if (path !== (this.#path ?? path) || this.#incarnation !== undefined) return
      const incarnation = this.#down?.incarnation ?? 0
      this.#isDown({ path, incarnation, reason: "no-such-actor", exit: undefined }, true)
    },
    load: () => ({ mailboxDepth: this.#waiting.size, oldestMessageAt: this.#waiting.first?.at })
  }

  #isDown(down: Down, refuses: boolean): void {
    this.#down = down
    const error = new ActorDown(down)
    for (const { refuse } of this.#taken) refuse?.(error)
    this.#taken.clear()
    if (!refuses) return
    for (const { resume } of this.#senders) resume(Effect.fail(error))
    this.#senders.clear()
    let next = this.#waiting.first
    while (next !== undefined) {
      const envelope = next
      next = envelope.next
      if (envelope.refuse === undefined) continue
      this.#waiting.remove(envelope)
      envelope.refuse(error)
    }
  }

  readonly depth: Effect.Effect<number> = Effect.sync(() => this.#waiting.size)

  readonly oldest: Effect.Effect<Duration.Duration | undefined> = Effect.map(Clock.currentTimeMillis, (now) => {
    const at = this.#waiting.first?.at
    return at === undefined ? undefined : Duration.millis(Math.max(0, now - at))
  })
}

const envelopeOf = <M>(
  fiber: Fiber.Fiber<unknown, unknown>,
  message: M,
  refuse: Envelope<M>["refuse"]
): Envelope<M> => ({
  message,
  at: fiber.getRef(Clock.Clock).currentTimeMillisUnsafe(),
  refuse,
  previous: undefined,
  next: undefined,
  listed: false
})

const replyTo = <A, E>(answer: Deferred.Deferred<A, E | ActorDown>): Reply<A, E> => {
  const succeed = (value: A) => Effect.asVoid(Deferred.succeed(answer, value))
  const fail = (error: E) => Effect.asVoid(Deferred.fail(answer, error))
  return {
    succeed,
    fail,
    answer: (effect) => Effect.matchEffect(effect, { onSuccess: succeed, onFailure: fail })
  }
}
