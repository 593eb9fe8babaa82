/**
 * Requests to taproot and their answers: numbers them, so that any number can be on the way at once, and gives each
 * answer to whoever waits for it. When the channel is lost, all that wait and all that come later die with it, or are refused.
 *
 * The taproot of a guest is a stranger, which may take a request and never answer. Who waits for it may be uninterruptible, so
 * its answers have a deadline: with the first that is overdue the channel is lost, and everybody's wait is over.
 */
import type * as Duration from "effect/Duration"
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

/** How to deal with a taproot that is not our own. */
export interface Distrust {
  /** How long it may take with an answer. */
  readonly patience: Duration.Input
  /** Called when it has taken longer: loses the channel. */
  readonly overdue: (detail: string) => void
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
  /** Of another's taproot; after the loss its requests are refused, instead of dying. */
  readonly #distrust: Distrust | undefined

  constructor(send: (frame: BrainFrame) => Result.Result<void, FrameError>, distrust?: Distrust) {
    this.#send = send
    this.#distrust = distrust
  }

  get #refuses(): boolean {
    return this.#distrust !== undefined
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
      const made = frame(request)
      const sent = this.#send(made)
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
      const answer = Effect.tap(Deferred.await(answered), Effect.yieldNow)
      const distrust = this.#distrust
      if (distrust === undefined) return answer
      return Effect.timeoutOrElse(answer, {
        duration: distrust.patience,
        orElse: () => {
          distrust.overdue(`no answer to ${made._tag.toUpperCase()}`)
          return answer
        }
      })
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
