/**
 * What a person at a terminal (or a pipe) says to a process: keys, sizes of the window, signals, as the requests that `exec` and
 * `attach` have in common.
 *
 * Ctrl-P Ctrl-Q leaves without ending anything, as with docker: the stream then fails with {@link Detached}. A Ctrl-P waits for
 * the next key.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Keyboard } from "./Keyboard.ts"
import { Screen, type Size } from "./Screen.ts"
import { Signals } from "./Signals.ts"

/** One thing said. */
export type Said =
  | { readonly case: "stdin"; readonly value: Uint8Array }
  | { readonly case: "stdinEnd"; readonly value: true }
  | { readonly case: "resize"; readonly value: Size }
  | { readonly case: "signal"; readonly value: string }

/** The keys to detach were pressed. */
export class Detached extends Schema.TaggedError<Detached>()("Detached", {}) {
  override get message() {
    return "detached"
  }
}

/** The second signal: enough. */
export class Impatient extends Schema.TaggedError<Impatient>()("Impatient", {}) {
  override get message() {
    return "interrupted"
  }
}

const [ctrlP, ctrlQ] = [16, 17]

/** The bytes up to the keys to detach. */
export const untilDetached = (input: Stream.Stream<Uint8Array>): Stream.Stream<Uint8Array, Detached> => {
  let held = false
  return Stream.flatMap(input, (bytes): Stream.Stream<Uint8Array, Detached> => {
    const all = held ? Uint8Array.of(ctrlP, ...bytes) : bytes
    const end = all.findIndex((byte, index) => byte === ctrlP && all[index + 1] === ctrlQ)
    held = end < 0 && all.at(-1) === ctrlP
    const said = end >= 0 ? all.subarray(0, end) : held ? all.subarray(0, -1) : all
    const passed = said.length === 0 ? Stream.empty : Stream.make<[Uint8Array]>(said)
    return end < 0 ? passed : Stream.concat(passed, Stream.fail(new Detached()))
  })
}

/** What one message may carry. */
const mostInput = 65_536
const pieces = (bytes: Uint8Array): ReadonlyArray<Uint8Array> =>
  Array.from({ length: Math.ceil(bytes.length / mostInput) }, (_, index) =>
    bytes.subarray(index * mostInput, (index + 1) * mostInput)
  )

/** The size of the terminal here. */
export const windowSize = Effect.gen(function* () {
  return (yield* (yield* Screen).size) ?? { rows: 24, columns: 80 }
})

/** Everything that is said, for as long as somebody listens. */
export const said = Effect.fnUntraced(function* (options: {
  /** Standard input goes along. */
  readonly input: boolean
  /** Sizes of the window go along. */
  readonly terminal: boolean
  /** The keys to detach are heard. */
  readonly detachable: boolean
}): Effect.fn.Return<Stream.Stream<Said, Detached | Impatient>, never, Screen | Keyboard | Signals | Scope.Scope> {
  const screen = yield* Screen
  const keyboard = yield* Keyboard
  const signals = yield* (yield* Signals).claim
  const typed = options.detachable ? untilDetached(keyboard.input) : keyboard.input
  const input = typed.pipe(
    Stream.flatMap((bytes) => Stream.fromIterable(pieces(bytes))),
    Stream.map((value): Said => ({ case: "stdin", value })),
    Stream.concat(Stream.make<[Said]>({ case: "stdinEnd", value: true }))
  )
  const resizes = Stream.mapEffect(screen.resized, () =>
    Effect.map(windowSize, (value): Said => ({ case: "resize", value }))
  ).pipe(Stream.provideService(Screen, screen))
  // the first one is for the process, the next one for us
  let asked = false
  const passedOn = Stream.fromEffectRepeat(
    Effect.gen(function* () {
      const value = yield* Queue.take(signals)
      if (asked) return yield* new Impatient()
      asked = true
      return { case: "signal", value } satisfies Said
    })
  )
  return Stream.merge(
    Stream.merge(
      options.input ? Stream.concat(input, Stream.never) : Stream.never,
      options.terminal ? resizes : Stream.never
    ),
    passedOn
  )
})
