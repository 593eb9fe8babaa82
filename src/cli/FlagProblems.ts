/**
 * Flags whose values may be wrong without ending the parsing, so that all wrong flags of a command are told at once, together
 * with what the server finds wrong in the rest.
 *
 * A {@link checked} flag gives a {@link Checked}: its value, or a {@link FlagProblem}. The command collects the problems, asks
 * the server about what could be read, and fails with {@link wrongFlags}.
 */
import * as Result from "effect/Result"
import * as Flag from "effect/cli/Flag"
import { exitCodes } from "./ExitCode.ts"
import { type Failure, failure } from "./Failure.ts"
import * as Text from "./Text.ts"

/** What is wrong with a flag or an argument. */
export interface FlagProblem {
  /** As it is typed: `--memory`, `IMAGE`. */
  readonly flag: string
  readonly text: string
}

/** The value of a flag, or what is wrong with it. */
export type Checked<A> = Result.Result<A, FlagProblem>

/** Reads a flag's text; the failure of `parse` is what would have been right. */
export const check =
  <A>(flag: string, parse: (text: string) => Result.Result<A, string>) =>
  (text: string): Checked<A> =>
    Result.mapError(parse(text), (expected) => ({
      flag,
      text: `expected ${expected}${expected.includes(`"${text}"`) ? "" : `, not "${text}"`}`
    }))

/** A flag that takes a text, read by `parse`. */
export const checked = <A>(name: string, metavar: string, parse: (text: string) => Result.Result<A, string>) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.map(check(`--${name}`, parse)))

/**
 * The fields of a request that a server found wrong, as the flags they came from: `flags` has them by the field's path
 * (`spec.resources.memory_bytes`), for all that is in a field by the path of that one.
 */
export const flagOf = (
  { description, field }: { readonly field: string; readonly description: string },
  flags: ReadonlyMap<string, string>
): FlagProblem => {
  for (let path = field; path !== ""; path = path.replace(/\.?[^.[]*$|\[[^[]*$/, "")) {
    const flag = flags.get(path)
    // the number of an argument or the name of a variable says which; the rest of a path, and which of several equal flags
    // it is, is our business
    const within = /^\[(.*)\]$/s.exec(field.slice(path.length))?.[1]
    if (flag === undefined) continue
    const says = within !== undefined && !(flag.startsWith("--") && /^\d+$/.test(within))
    return { flag: says ? `${flag} ${within}` : flag, text: description }
  }
  return { flag: field, text: description }
}

/** The failure that tells all of them. */
export const wrongFlags = (
  command: string,
  problems: ReadonlyArray<FlagProblem>,
  nothing = "Nothing was made"
): Failure =>
  failure(problems.length === 1 ? "a flag is wrong" : `the flags are wrong in ${problems.length} places`, {
    exitCode: exitCodes.usage,
    details: problems.map(({ flag, text }) => Text.clean(`${flag}: ${text}`)),
    next: `${nothing}; \`ironwood ${command} --help\` explains the flags`
  })
