/**
 * The standard input of a process: writers take turns, whole, and send no more than the window that taproot has for the
 * process; INPUT_TAKEN gives the room back. Starts full for an adopted process, too: taproot drops what a dead brain had
 * sent and the process had not taken.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Semaphore from "effect/Semaphore"
import type { ChannelLost, ProcessId } from "./Processes.ts"
import type { Requests } from "./Requests.ts"
import { limits } from "./Wire.ts"

/** What `write` fails with here; the entry makes the `StdinClosed` that callers see of it. */
export type InputClosed = "InputClosed"

export class InputPort {
  readonly #requests: Requests
  readonly #turn = Semaphore.makeUnsafe(1)
  #id: ProcessId
  #room: number = limits.windowBytes
  #closed = false
  #waiter: Deferred.Deferred<void> | undefined = undefined
  /** Closed while a CLAIM that may move this port is on the way: an INPUT would name the wrong entry. */
  #gate: Deferred.Deferred<void> | undefined = undefined

  constructor(requests: Requests, id: ProcessId) {
    this.#requests = requests
    this.#id = id
  }

  write(bytes: Uint8Array): Effect.Effect<void, InputClosed> {
    return Semaphore.withPermit(this.#turn, this.#from(bytes, 0))
  }

  /** End of file, after all writers that are already waiting for their turn. */
  readonly close: Effect.Effect<void> = Effect.suspend(() =>
    Semaphore.withPermit(
      this.#turn,
      Effect.suspend(() => {
        if (this.#gate !== undefined) return Effect.andThen(Deferred.await(this.#gate), this.#end)
        return this.#end
      })
    )
  )

  readonly #end: Effect.Effect<void> = Effect.suspend(() => {
    if (this.#closed) return Effect.void
    this.#closed = true
    return this.#requests.send({ _tag: "InputEnd", id: this.#id })
  })

  #from(bytes: Uint8Array, start: number): Effect.Effect<void, InputClosed> {
    return Effect.suspend(() => {
      if (this.#closed) return Effect.fail("InputClosed" as const)
      if (start === bytes.length) return Effect.void
      if (this.#gate !== undefined) return Effect.andThen(Deferred.await(this.#gate), this.#from(bytes, start))
      if (this.#room === 0) {
        const waiter = Deferred.makeUnsafe<void>()
        this.#waiter = waiter
        return Effect.andThen(Deferred.await(waiter), this.#from(bytes, start))
      }
      const end = Math.min(bytes.length, start + this.#room)
      this.#room -= end - start
      return Effect.andThen(
        this.#requests.send({ _tag: "Input", id: this.#id, bytes: bytes.subarray(start, end) }),
        this.#from(bytes, end)
      )
    })
  }

  /** An INPUT_TAKEN arrived. Returns what is wrong with it, if anything. */
  taken(bytes: number, closed: boolean): string | undefined {
    if (this.#room + bytes > limits.windowBytes) return `INPUT_TAKEN of ${bytes} bytes, more than were sent`
    this.#room += bytes
    if (closed) this.#closed = true
    if (this.#room > 0 || closed) this.#settle(Exit.void)
    return undefined
  }

  /** A CLAIM that may move this port is about to be sent: writers wait. */
  hold(): void {
    this.#gate = Deferred.makeUnsafe<void>()
  }

  /** The CLAIM was refused; writers go on. */
  release(): void {
    const gate = this.#gate
    // Before the fibers that wait go on, which they do within the call.
    this.#gate = undefined
    if (gate !== undefined) Deferred.doneUnsafe(gate, Exit.void)
  }

  /** Another entry has the port now. */
  moveTo(id: ProcessId): void {
    this.#id = id
    this.release()
  }

  /** The entry is gone: nobody takes any more. */
  end(): void {
    this.#closed = true
    this.release()
    this.#settle(Exit.void)
  }

  /** Whoever waits dies; whoever waited at the gate does when it sends. */
  lose(lost: ChannelLost): void {
    this.release()
    this.#settle(Exit.die(lost))
  }

  #settle(exit: Exit.Exit<void>): void {
    const waiter = this.#waiter
    this.#waiter = undefined
    if (waiter !== undefined) Deferred.doneUnsafe(waiter, exit)
  }
}
