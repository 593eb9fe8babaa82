/**
 * One output stream of a process, as a pull: a READ confirms what the reader has dealt with and asks for more. Holds no
 * output but the chunk that the reader has in hand.
 *
 * A port outlives its readers (each goes on where the confirmed bytes end) and its entry (`CLAIM` moves it to another).
 * An OUTPUT that nobody waits for any more is dropped here: taproot has it until it is confirmed.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Pull from "effect/Pull"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { ChannelLost, OutputChunk, OutputStream, ProcessId } from "./Processes.ts"
import type { Requests } from "./Requests.ts"
import type { TaprootFrame } from "./TaprootFrame.ts"
import { limits } from "./Wire.ts"

type Output = Extract<TaprootFrame, { readonly _tag: "Output" }>

/** What one reader knows. */
interface Reading {
  /** The entry that it reads from; when the port moves to another, the reader meets the end. */
  readonly id: ProcessId
  /** What it was given last. */
  inHand: OutputChunk | undefined
}

export class OutputPort {
  readonly #requests: Requests
  readonly #stream: OutputStream
  readonly #turn = Semaphore.makeUnsafe(1)
  /** The entry that has this port; undefined when it was acknowledged. */
  #id: ProcessId | undefined
  /** Where the confirmed bytes end; undefined until taproot has told a new brain. */
  #confirmed: bigint | undefined
  /** The reader that waits for an OUTPUT; undefined in the answer: the port has moved. */
  #waiter: Deferred.Deferred<Output | undefined> | undefined = undefined
  /** Closed while a CLAIM that may move this port is on the way: a READ would name the wrong entry. */
  #gate: Deferred.Deferred<void> | undefined = undefined

  constructor(requests: Requests, id: ProcessId, stream: OutputStream, adopted: boolean) {
    this.#requests = requests
    this.#id = id
    this.#stream = stream
    this.#confirmed = adopted ? undefined : 0n
  }

  /** The output from the first unconfirmed byte on; see `Process.output`. */
  get read(): Stream.Stream<OutputChunk> {
    const pulled = (id: ProcessId): Pull.Pull<readonly [OutputChunk]> => {
      const reading: Reading = { id, inHand: undefined }
      const pull = Effect.suspend(() => this.#next(reading))
      return Effect.flatMap(pull, (chunk) => (chunk === undefined ? Cause.done() : Effect.succeed([chunk] as const)))
    }
    return Stream.unwrap(
      Effect.suspend(() => {
        const id = this.#id
        if (id === undefined) return Effect.succeed(Stream.empty)
        return Effect.as(Semaphore.takeScoped(this.#turn, 1), Stream.fromPull(Effect.sync(() => pulled(id))))
      })
    ).pipe(Stream.scoped)
  }

  /** Has `take` deal with the same, chunk by chunk; see `Process.consume`. */
  consume(take: (chunk: OutputChunk) => Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const id = this.#id
      if (id === undefined) return Effect.void
      const reading: Reading = { id, inHand: undefined }
      let open = true
      const took = (chunk: OutputChunk | undefined): Effect.Effect<void> => {
        if (chunk !== undefined) return take(chunk)
        open = false
        return Effect.void
      }
      const loop = Effect.whileLoop({
        while: () => open,
        body: () => Effect.flatMap(this.#next(reading), took),
        step: () => {}
      })
      return this.#turn.withPermit(loop)
    })
  }

  /** Confirms what the reader has in hand and waits for more; undefined: that was all. */
  #next(reading: Reading): Effect.Effect<OutputChunk | undefined> {
    const { id, inHand } = reading
    if (inHand !== undefined) {
      this.#confirmed = inHand.offset + BigInt(inHand.bytes.length)
      reading.inHand = undefined
    }
    if (this.#gate !== undefined) return Effect.flatMap(Deferred.await(this.#gate), () => this.#next(reading))
    if (this.#id !== id) return Effect.undefined
    const waiter = Deferred.makeUnsafe<Output | undefined>()
    this.#waiter = waiter
    const consumed = this.#confirmed ?? 0n
    return Effect.andThen(
      this.#requests.send({ _tag: "Read", id, stream: this.#stream, consumed, limit: limits.windowBytes }),
      Effect.flatMap(Deferred.await(waiter), (output) => {
        if (output === undefined) return this.#next(reading)
        if (output.bytes.length === 0) return Effect.undefined
        const { bytes, offset, stream, time } = output
        reading.inHand = { stream, offset, time, bytes }
        return Effect.succeed(reading.inHand)
      })
    )
  }

  /** An OUTPUT arrived. Returns what is wrong with it, if anything. */
  arrived(output: Output): string | undefined {
    if (output.bytes.length === 0 && !output.end) return "OUTPUT without bytes before the end"
    // An answer to an earlier reader, whose bytes were or will be served to this one.
    if (this.#waiter === undefined || (this.#confirmed ?? output.offset) !== output.offset) return undefined
    this.#confirmed = output.offset
    this.#settle(Exit.succeed(output))
    return undefined
  }

  /** A CLAIM that may move this port is about to be sent: readers wait. */
  hold(): void {
    this.#gate = Deferred.makeUnsafe<void>()
  }

  /** The CLAIM was refused; readers go on. */
  release(): void {
    const gate = this.#gate
    // Before the fibers that wait go on, which they do within the call.
    this.#gate = undefined
    if (gate !== undefined) Deferred.doneUnsafe(gate, Exit.void)
  }

  /** Another entry has the port now, or none: the reader that it had meets the end. */
  moveTo(id: ProcessId | undefined): void {
    this.#id = id
    this.release()
    this.#settle(Exit.succeed(undefined))
  }

  /** Whoever waits dies; whoever waited at the gate does when it sends. */
  lose(lost: ChannelLost): void {
    this.release()
    this.#settle(Exit.die(lost))
  }

  #settle(exit: Exit.Exit<Output | undefined>): void {
    const waiter = this.#waiter
    this.#waiter = undefined
    if (waiter !== undefined) Deferred.doneUnsafe(waiter, exit)
  }
}
