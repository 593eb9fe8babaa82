/**
 * Where a command's output goes: standard output and error, the size of the terminal, colours or none.
 *
 * Commands print only through this service, so tests see every byte and a closed pipe is a typed
 * {@link ReaderGone} instead of a crash. `write` waits until the kernel has taken the text: a slow reader slows us down, it
 * does not fill our memory.
 *
 * Trap: whether to colour is asked of `styles` with the flag of the person (`--color`/`--no-color`), see Globals.style.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { WriteStream } from "node:tty"
import { ReaderGone } from "./Failure.ts"

/** Columns and rows of a terminal. */
export interface Size {
  readonly columns: number
  readonly rows: number
}

/** The two outputs of the process and what is known of the terminal behind them. */
export class Screen extends Context.Service<
  Screen,
  {
    /** Is standard output a terminal? */
    readonly isTerminal: boolean
    /** Is standard error a terminal? Progress is shown only then. */
    readonly isErrorTerminal: boolean
    /** Colours, unless the person says otherwise by a flag. */
    readonly canColor: boolean
    /** The terminal's size now; undefined when output is not a terminal. */
    readonly size: Effect.Effect<Size | undefined>
    /** Emits whenever the size has changed. */
    readonly resized: Stream.Stream<void>
    /** Text to standard output, as it is. */
    readonly write: (text: string | Uint8Array) => Effect.Effect<void, ReaderGone>
    /** Text to standard error, as it is; a reader that is gone does not matter there. */
    readonly writeError: (text: string | Uint8Array) => Effect.Effect<void>
  }
>()("ironwood/cli/Screen") {}

const put = (stream: NodeJS.WriteStream | WriteStream, text: string | Uint8Array): Effect.Effect<void, ReaderGone> =>
  Effect.callback((resume) => {
    if (stream.destroyed || stream.writableEnded) return resume(Effect.fail(new ReaderGone()))
    stream.write(text, (error) => resume(error ? Effect.fail(new ReaderGone()) : Effect.void))
  })

/**
 * The process' own standard output and error. Installs error handlers on both for good: a closed pipe is reported by
 * the write that met it.
 */
export const layer: Layer.Layer<Screen> = Layer.sync(Screen, () => {
  const { env, stderr, stdout } = process
  stdout.on("error", () => {})
  stderr.on("error", () => {})
  const dumb = env["TERM"] === "dumb"
  const forced = env["FORCE_COLOR"] !== undefined && env["FORCE_COLOR"] !== "" && env["FORCE_COLOR"] !== "0"
  const isTerminal = stdout.isTTY && !dumb
  return Screen.of({
    isTerminal,
    isErrorTerminal: stderr.isTTY && !dumb,
    canColor: (env["NO_COLOR"] ?? "") === "" && (forced || isTerminal),
    size: Effect.sync(() =>
      stdout.isTTY && stdout.columns > 0 ? { columns: stdout.columns, rows: stdout.rows } : undefined
    ),
    resized: Stream.callback<void>(
      (queue) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            const listener = () => void Queue.offerUnsafe(queue, undefined)
            stdout.on("resize", listener)
            return listener
          }),
          (listener) => Effect.sync(() => void stdout.off("resize", listener))
        ),
      { bufferSize: 1, strategy: "sliding" }
    ),
    write: (text) => put(stdout, text),
    writeError: (text) => Effect.ignore(put(stderr, text))
  })
})
