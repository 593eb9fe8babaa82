/**
 * The channel: frames over a byte stream to taproot. Sending never waits; what is sent in one turn of the event loop
 * leaves in one write, so a hundred spawns are one system call. Arriving frames are handed over synchronously and in
 * order.
 *
 * Nothing here bounds what is queued for sending; the protocol's windows and the callers' waiting for answers do.
 */
import type { Duplex } from "node:stream"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { type BrainFrame, encodeBrainFrame } from "./BrainFrame.ts"
import { ChannelLost } from "./Processes.ts"
import { decodeTaprootFrame, type TaprootFrame } from "./TaprootFrame.ts"
import { type FrameError, FrameSplitter, FrameWriter } from "./Wire.ts"

/** What arrives; a FAULT is the loss of the channel. */
export type Incoming = Exclude<TaprootFrame, { readonly _tag: "Fault" }>

export interface Channel {
  /** Queues a frame. A frame that breaks a bound is not sent and the channel stays whole. After the loss, nothing happens. */
  readonly send: (frame: BrainFrame) => Result.Result<void, FrameError>
  /** Gives the channel up: it is lost, for this reason. */
  readonly lose: (reason: ChannelLost["reason"], detail: string) => void
}

/**
 * Opens the channel over a stream, which is destroyed when the scope closes. `onFrame` gets every frame and returns
 * what is wrong with it, if anything: that ends the channel. `onLost` is called once, unless the scope closed it.
 */
export const open = (
  stream: Duplex,
  handlers: {
    readonly onFrame: (frame: Incoming) => string | undefined
    readonly onLost: (lost: ChannelLost) => void
  }
): Effect.Effect<Channel, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const writer = new FrameWriter()
      let ended = false

      const lose = (reason: ChannelLost["reason"], detail: string): void => {
        if (ended) return
        ended = true
        handlers.onLost(new ChannelLost({ reason, detail }))
        stream.destroy()
      }

      const splitter = new FrameSplitter((bytes) => {
        const frame = decodeTaprootFrame(bytes)
        if (Result.isFailure(frame)) return Result.fail(frame.failure)
        if (ended) return Result.void
        if (frame.success._tag === "Fault") {
          lose("refused", frame.success.text)
        } else {
          const problem = handlers.onFrame(frame.success)
          if (problem !== undefined) lose("broken", problem)
        }
        return Result.void
      })

      const onData = (chunk: Uint8Array): void => {
        const pushed = splitter.push(chunk)
        if (Result.isFailure(pushed)) lose("broken", pushed.failure.message)
      }
      const onError = (error: Error): void => lose("closed", error.message)
      const onEnd = (): void =>
        lose("closed", splitter.complete ? "taproot closed it" : "taproot closed it in the middle of a frame")
      stream.on("data", onData)
      // Stays for good: a destroyed stream may still report an error, and nobody else listens.
      stream.on("error", onError)
      stream.on("end", onEnd)
      stream.on("close", onEnd)
      // one that somebody has read from before is paused
      stream.resume()

      const flush = (): void => {
        const bytes = writer.take()
        if (!ended) stream.write(bytes)
      }

      return {
        lose,
        send: (frame: BrainFrame) => {
          if (ended) return Result.void
          const first = writer.empty
          const encoded = encodeBrainFrame(writer, frame)
          if (first && !writer.empty) queueMicrotask(flush)
          return encoded
        },
        close: () => {
          if (ended) return
          ended = true
          // What was sent in this turn (an acknowledgement in a finalizer) still leaves.
          stream.end(writer.take(), () => stream.destroy())
        }
      }
    }),
    (channel) => Effect.sync(channel.close)
  )
