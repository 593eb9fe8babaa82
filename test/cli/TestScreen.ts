/**
 * A screen for tests: keeps every byte a command prints, and can be a terminal of any size or a pipe whose reader leaves.
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { ReaderGone } from "../../src/cli/Failure.ts"
import { Screen, type Size } from "../../src/cli/Screen.ts"

/** What a test sees of a {@link Screen}. */
export interface Captured {
  readonly out: () => string
  readonly err: () => string
  /** Changes the size and tells the command. */
  readonly resize: (size: Size) => void
}

/**
 * A screen that keeps what is printed. `columns` makes it a terminal (80 × `rows`, 24 if absent); `closeAfter` closes the
 * output after that many writes, as `head` does; `slow` is a reader that takes as long over each write.
 */
export const make = (
  options: {
    readonly columns?: number
    readonly rows?: number
    readonly color?: boolean
    readonly closeAfter?: number
    readonly slow?: Duration.Input
  } = {}
): { readonly captured: Captured; readonly layer: Layer.Layer<Screen> } => {
  let out = ""
  let err = ""
  let writes = 0
  let size = options.columns === undefined ? undefined : { columns: options.columns, rows: options.rows ?? 24 }
  const listeners = new Set<() => void>()
  const decode = (text: string | Uint8Array) => (typeof text === "string" ? text : new TextDecoder().decode(text))
  return {
    captured: {
      out: () => out,
      err: () => err,
      resize: (next) => {
        size = next
        for (const listener of listeners) listener()
      }
    },
    layer: Layer.succeed(
      Screen,
      Screen.of({
        isTerminal: size !== undefined,
        isErrorTerminal: size !== undefined,
        canColor: options.color ?? false,
        size: Effect.sync(() => size),
        resized: Stream.callback<void, Cause.Done>((queue) =>
          Effect.acquireRelease(
            Effect.sync(() => {
              const listener = () => void Queue.offerUnsafe(queue, undefined)
              listeners.add(listener)
              return listener
            }),
            (listener) => Effect.sync(() => void listeners.delete(listener))
          )
        ).pipe(Stream.catch(() => Stream.empty)),
        write: (text) =>
          Effect.suspend(() => {
            if (options.closeAfter !== undefined && writes++ >= options.closeAfter) return Effect.fail(new ReaderGone())
            out += decode(text)
            return options.slow === undefined ? Effect.void : Effect.sleep(options.slow)
          }),
        writeError: (text) => Effect.sync(() => void (err += decode(text)))
      })
    )
  }
}
