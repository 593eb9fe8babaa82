/**
 * What a person at a terminal (or a pipe) says to a process: keys, sizes of the window, signals, as the requests that `exec` and
 * `attach` have in common.
 *
 * Ctrl-P Ctrl-Q (or other keys, see `DetachKeys.ts`) leaves without ending anything, as with docker: the stream then fails with
 * {@link Detached}. A Ctrl-P waits for the next key.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { usualKeys } from "./DetachKeys.ts"
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

/** How many of the first keys the bytes end with: these wait for the next ones. */
const heldAt = (bytes: Uint8Array, keys: ReadonlyArray<number>): number => {
  for (let count = Math.min(keys.length - 1, bytes.length); count > 0; count--) {
    if (keys.slice(0, count).every((key, index) => bytes[bytes.length - count + index] === key)) return count
  }
  return 0
}

/** The bytes up to the keys to detach. */
export const untilDetached = (
  input: Stream.Stream<Uint8Array>,
  keys: ReadonlyArray<number> = usualKeys
): Stream.Stream<Uint8Array, Detached> => {
  let held = new Uint8Array()
  return Stream.flatMap(input, (bytes): Stream.Stream<Uint8Array, Detached> => {
    const all = Uint8Array.of(...held, ...bytes)
    const end = Buffer.from(all).indexOf(Buffer.from(keys))
    const waiting = end < 0 ? heldAt(all, keys) : 0
    held = all.slice(all.length - waiting)
    const said = end >= 0 ? all.subarray(0, end) : all.subarray(0, all.length - waiting)
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
  /** The keys to detach are heard: these, or (true) the usual ones. */
  readonly detachable: boolean | ReadonlyArray<number>
}): Effect.fn.Return<Stream.Stream<Said, Detached | Impatient>, never, Screen | Keyboard | Signals | Scope.Scope> {
  const screen = yield* Screen
  const keyboard = yield* Keyboard
  const signals = yield* (yield* Signals).claim
  const { detachable } = options
  const typed =
    detachable === false ? keyboard.input : untilDetached(keyboard.input, detachable === true ? usualKeys : detachable)
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
