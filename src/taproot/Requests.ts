/**
 * Requests to taproot and their answers: numbers them, so that any number can be on the way at once, and gives each
 * answer to whoever waits for it. When the channel is lost, all that wait and all that come later die with it, or are refused.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import * as Result from "effect/Result"
import type { BrainFrame } from "./BrainFrame.ts"
import type { ChannelLost, RefusalReason } from "./Processes.ts"
import type { TaprootFrame } from "./TaprootFrame.ts"
import type { FrameError } from "./Wire.ts"

export type Answer = Extract<TaprootFrame, { readonly _tag: "Spawned" | "Done" | "Status" | "Refused" }>

/** The part that all errors of refusals share. */
export interface Refusal {
  readonly reason: RefusalReason
  readonly errno: number
  readonly detail: string
}

interface Waiting {
  /** False: that is no answer to this request. */
  readonly answer: (answer: Answer) => boolean
  readonly lose: (lost: ChannelLost) => void
}

const longestNumber = 0xffff_ffff
/** ECONNRESET: what a request that the other side did not live to answer is refused with. */
const connectionReset = 104

export class Requests {
  readonly #send: (frame: BrainFrame) => Result.Result<void, FrameError>
  readonly #waiting = new Map<number, Waiting>()
  #last = 0
  #lost: ChannelLost | undefined = undefined
  /** After the loss: refuse, instead of dying. */
  readonly #refuses: boolean

  constructor(send: (frame: BrainFrame) => Result.Result<void, FrameError>, refuses = false) {
    this.#send = send
    this.#refuses = refuses
  }

  /** Sends a frame that has no answer and that the caller has made within the bounds of the protocol. */
  send(frame: BrainFrame): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#lost !== undefined) return this.#refuses ? Effect.void : Effect.die(this.#lost)
      const sent = this.#send(frame)
      return Result.isSuccess(sent) ? Effect.void : Effect.die(sent.failure)
    })
  }

  /** The same from where no effect runs; after the loss nothing happens. */
  post(frame: BrainFrame): void {
    if (this.#lost === undefined) this.#send(frame)
  }

  /**
   * Sends a request and waits for the answer. `accept` runs synchronously when the answer arrives, before the frames
   * behind it; none: that answer makes no sense. `refuse` makes the error of a refusal, and of a request that breaks a
   * bound and was therefore not sent. Interrupting the wait does not take the request back.
   */
  ask<A, E>(
    frame: (request: number) => BrainFrame,
    accept: (answer: Exclude<Answer, { readonly _tag: "Refused" }>) => Option.Option<A>,
    refuse: (refusal: Refusal) => E
  ): Effect.Effect<A, E> {
    return Effect.suspend(() => {
      const lost = this.#lost
      if (lost !== undefined) {
        return this.#refuses
          ? Effect.fail(refuse({ reason: "system-call", errno: connectionReset, detail: lost.message }))
          : Effect.die(lost)
      }
      const request = this.#number()
      const sent = this.#send(frame(request))
      if (Result.isFailure(sent)) {
        return Effect.fail(refuse({ reason: "invalid", errno: 0, detail: sent.failure.problem }))
      }
      const answered = Deferred.makeUnsafe<A, E>()
      this.#waiting.set(request, {
        answer: (answer) => {
          if (answer._tag === "Refused") {
            const { errno, reason, text } = answer
            return Deferred.doneUnsafe(answered, Exit.fail(refuse({ reason, errno, detail: text })))
          }
          const accepted = accept(answer)
          return accepted._tag === "Some" && Deferred.doneUnsafe(answered, Exit.succeed(accepted.value))
        },
        lose: (lost) =>
          Deferred.doneUnsafe(
            answered,
            this.#refuses
              ? Exit.fail(refuse({ reason: "system-call", errno: connectionReset, detail: lost.message }))
              : Exit.die(lost)
          )
      })
      // taproot answers many at a time; whoever waited does not go on inside the reading of its frames
      return Effect.tap(Deferred.await(answered), Effect.yieldNow)
    })
  }

  /** An answer arrived. Returns what is wrong with it, if anything. */
  answered(answer: Answer): string | undefined {
    const waiting = this.#waiting.get(answer.request)
    if (waiting === undefined) return `${answer._tag} to request ${answer.request}, which was not made`
    this.#waiting.delete(answer.request)
    return waiting.answer(answer) ? undefined : `${answer._tag} is no answer to request ${answer.request}`
  }

  lose(lost: ChannelLost): void {
    this.#lost = lost
    for (const waiting of this.#waiting.values()) waiting.lose(lost)
    this.#waiting.clear()
  }

  /** The next number that no request on the way has: one that taproot answers late (a mount) may outlive a full turn. */
  #number(): number {
    do {
      this.#last = this.#last === longestNumber ? 1 : this.#last + 1
    } while (this.#waiting.has(this.#last))
    return this.#last
  }
}
