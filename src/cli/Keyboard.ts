/**
 * Where a command's input comes from: standard input, as it is piped or typed.
 *
 * Traps: nothing is read before somebody pulls, so a command that wants no input leaves it to whoever reads next. In `raw` mode
 * Ctrl-C is a byte like any other, and the terminal is as it was when the scope closes.
 */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

export class Keyboard extends Context.Service<
  Keyboard,
  {
    /** Is standard input a terminal? */
    readonly isTerminal: boolean
    /** The bytes, to the end of the input; one that cannot be read is at its end. */
    readonly input: Stream.Stream<Uint8Array>
    /** Keys come as they are pressed and are not shown, until the scope closes. Nothing happens without a terminal. */
    readonly raw: Effect.Effect<void, never, Scope.Scope>
  }
>()("ironwood/cli/Keyboard") {}

/** The process' own standard input. */
export const layer: Layer.Layer<Keyboard> = Layer.sync(Keyboard, () => {
  const { stdin } = process
  const setRaw = (raw: boolean) =>
    Effect.sync(() => {
      if (stdin.isTTY) stdin.setRawMode(raw)
    })
  return Keyboard.of({
    isTerminal: stdin.isTTY,
    input: NodeStream.fromReadable<Uint8Array, "unreadable">({
      evaluate: () => stdin,
      onError: () => "unreadable",
      closeOnDone: false
    }).pipe(Stream.catch(() => Stream.empty)),
    raw: Effect.asVoid(Effect.acquireRelease(setRaw(true), () => setRaw(false)))
  })
})
