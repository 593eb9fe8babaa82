/**
 * `NAME=VALUE` pairs on the command line: labels and environment variables.
 *
 * A pair may hold more `=`; they belong to the value. Repeated names: the last one counts, as with docker.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as CliError from "effect/cli/CliError"
import * as Flag from "effect/cli/Flag"

/** The two sides of a pair; the failure is what would have been right. */
export const parsePair = (pair: string): Result.Result<readonly [name: string, value: string], string> => {
  const split = pair.indexOf("=")
  return split < 1 ? Result.fail("NAME=VALUE") : Result.succeed([pair.slice(0, split), pair.slice(split + 1)])
}

/** `-l`, `--label`: repeatable. */
export const labelFlag = (description: string) =>
  Flag.String("label").pipe(
    Flag.withAlias("l"),
    Flag.withMetavar("NAME=VALUE"),
    Flag.withDescription(description),
    Flag.atLeast(0),
    Flag.mapEffect((pairs) =>
      Effect.map(
        Effect.forEach(pairs, (value) =>
          Effect.mapError(
            Effect.fromResult(parsePair(value)),
            (expected) => new CliError.InvalidValue({ option: "label", value, expected, kind: "flag" })
          )
        ),
        (labels): Record<string, string> => Object.fromEntries(labels)
      )
    )
  )
