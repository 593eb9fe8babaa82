/**
 * `NAME=VALUE` pairs on the command line: labels and environment variables.
 *
 * A pair may hold more `=`; they belong to the value. Repeated names: the last one counts, as with docker.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as CliError from "effect/cli/CliError"
import * as Flag from "effect/cli/Flag"

/** The pairs as a record; the failure is the first that has no `=` or no name. */
export const parsePairs = (pairs: ReadonlyArray<string>): Result.Result<Record<string, string>, string> => {
  const wrong = pairs.find((pair) => pair.indexOf("=") < 1)
  if (wrong !== undefined) return Result.fail(wrong)
  return Result.succeed(
    Object.fromEntries(pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]))
  )
}

/** `-l`, `--label`: repeatable. */
export const labelFlag = (description: string) =>
  Flag.String("label").pipe(
    Flag.withAlias("l"),
    Flag.withMetavar("NAME=VALUE"),
    Flag.withDescription(description),
    Flag.atLeast(0),
    Flag.mapEffect((pairs) =>
      Result.match(parsePairs(pairs), {
        onSuccess: (labels) => Effect.succeed(labels),
        onFailure: (value) =>
          Effect.fail(new CliError.InvalidValue({ option: "label", value, expected: "NAME=VALUE", kind: "flag" }))
      })
    )
  )
