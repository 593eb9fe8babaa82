/**
 * Putting the help of a command together: the description in paragraphs, lists indented as the help prints them.
 */
import * as Command from "effect/cli/Command"

/** Paragraphs (or lines) as one description; the help indents its first line by two blanks, this the others. */
export const paragraphs = (...lines: ReadonlyArray<string>): string =>
  lines.map((line, index) => (index === 0 || line === "" ? line : `  ${line}`)).join("\n")

/** Describes a command: one line for lists, the whole for its own help, and examples that can be typed as they are. */
export const describe =
  (help: {
    readonly short: string
    readonly long?: ReadonlyArray<string>
    readonly examples?: ReadonlyArray<readonly [command: string, description: string]>
  }) =>
  <Name extends string, Input, ContextInput, E, R>(
    command: Command.Command<Name, Input, ContextInput, E, R>
  ): Command.Command<Name, Input, ContextInput, E, R> =>
    command.pipe(
      Command.withShortDescription(help.short),
      Command.withDescription(paragraphs(`${help.short}.`, ...(help.long === undefined ? [] : ["", ...help.long]))),
      Command.withExamples((help.examples ?? []).map(([command, description]) => ({ command, description })))
    )
