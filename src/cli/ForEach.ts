/**
 * One action on several names, as `stop a b c` does: all are tried, each that is done is printed at once (a line, or with `-o json`
 * an object, of its own), and what failed is told together at the end.
 *
 * Names run side by side, eight at a time: a container that takes its whole grace period holds up nobody else. With one name the
 * failure is that name's own; with several, a summary whose exit code is the one they have in common, or 1.
 */
import type { DescMessage, JsonValue, MessageShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import { exitCodes } from "./ExitCode.ts"
import { Failure, failure, ReaderGone } from "./Failure.ts"
import * as Output from "./Output.ts"

/** What is printed for a name. */
export interface Done {
  /** For people. */
  readonly lines: ReadonlyArray<string>
  /** For programs. */
  readonly json: JsonValue
}

/** What is printed about a message of the API. */
export const answered = <D extends DescMessage>(line: string, schema: D, message: MessageShape<D>): Done => ({
  lines: [line],
  json: Output.json(schema, message)
})

/** Runs `act` for every name; prints what it gives. */
export const forEach = Effect.fnUntraced(function* <R>(
  names: ReadonlyArray<string>,
  act: (name: string) => Effect.Effect<Done, Failure | ReaderGone, R>
) {
  const distinct = [...new Set(names)]
  const failures = yield* Effect.forEach(
    distinct,
    (name) =>
      act(name).pipe(
        Effect.flatMap(({ json, lines }) => Output.value(json, lines)),
        Effect.as(undefined),
        Effect.catchTag("Failure", (error) => Effect.succeed(error))
      ),
    { concurrency: 8 }
  )
  const failed = failures.filter((error) => error !== undefined)
  const [first] = failed
  if (first === undefined) return yield* Effect.void
  if (distinct.length === 1) return yield* first
  return yield* failure(`${failed.length} of ${distinct.length} failed`, {
    details: failed.map((error) => error.message.replaceAll("\n", " ")),
    exitCode: failed.every(({ exitCode }) => exitCode === first.exitCode) ? first.exitCode : exitCodes.failed
  })
})
