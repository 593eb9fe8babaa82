/**
 * What a person asks for when they ask for a further program in a container that runs: decoded at the border like a
 * container's own spec. What is not given here is that of the container's first process.
 */
import * as Schema from "effect/Schema"
import { Arguments, Environment, User, WorkingDirectory } from "./ContainerSpec.ts"

/** Rows or columns of a terminal; 0 is what a terminal says that does not know. */
const Extent = Schema.Int.pipe(
  Schema.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }, { expected: "a number from 0 to 65535" }))
)

export const WindowSize = Schema.Struct({ rows: Extent, columns: Extent })
export type WindowSize = typeof WindowSize.Type

export const ExecSpec = Schema.Struct({
  /** The program and its arguments; the first word is looked up in the PATH of its environment unless it has a slash. */
  command: Arguments.pipe(Schema.check(Schema.isMinLength(1, { expected: "the program to run" }))),
  /** Added to that of the container's first process; the same name replaces. */
  environment: Environment,
  workingDirectory: Schema.optionalKey(WorkingDirectory),
  user: Schema.optionalKey(User),
  /** A terminal of this size as standard input, output and error. */
  terminal: Schema.optionalKey(WindowSize),
  /** Its standard input is what the caller sends; else it is at its end from the beginning. */
  stdin: Schema.Boolean,
  /** It lives on without the caller; nothing is read of it. */
  detach: Schema.Boolean
}).pipe(
  Schema.check(
    Schema.makeFilter(({ detach, stdin }) =>
      detach && stdin ? { path: ["stdin"], issue: "cannot be sent to a program that is detached" } : undefined
    )
  )
)
export type ExecSpec = typeof ExecSpec.Type
