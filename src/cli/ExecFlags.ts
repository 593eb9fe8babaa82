/** The flags of `ironwood exec`, docker's, and the request they make. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Argument from "effect/cli/Argument"
import * as Flag from "effect/cli/Flag"
import type { ExecStartSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { detachKeys } from "./DetachKeys.ts"
import type { FlagProblem } from "./FlagProblems.ts"
import { environmentOf, environmentFlags, text, yes } from "./RunFlags.ts"

/** The flags; RunArguments.ts needs to know which of them take a value. */
export const execFlags = {
  interactive: yes("interactive", "Give it what is typed or piped here as its standard input").pipe(
    Flag.withAlias("i")
  ),
  terminal: yes("tty", "Give it a terminal").pipe(Flag.withAlias("t")),
  detach: yes("detach", "Return when it runs, and let it go on; what it writes is not kept").pipe(Flag.withAlias("d")),
  detachKeys,
  privileged: Flag.withHidden(yes("privileged", "Not to be had")),
  ...environmentFlags,
  workingDirectory: text("workdir", "DIRECTORY", "Where it starts (default: as the container)").pipe(
    Flag.withAlias("w")
  ),
  user: text("user", "USER[:GROUP]", "Who it runs as, by name or number (default: as the container)").pipe(
    Flag.withAlias("u")
  )
}

/** The words after the flags. */
export const execArguments = {
  name: Argument.String("NAME").pipe(Argument.withDescription("The container")),
  command: Argument.String("COMMAND").pipe(
    Argument.withDescription("The program and its arguments; all words after NAME belong to it"),
    Argument.variadic({ min: 1 })
  )
}

/** Which flag, or which word, a field of the request comes from. */
export const flagOfField: ReadonlyMap<string, string> = new Map([
  ["start.name", "NAME"],
  ["start.command", "COMMAND"],
  ["start.environment", "--env"],
  ["start.working_directory", "--workdir"],
  ["start.user", "--user"],
  ["start.stdin", "--interactive"]
])

type Value<F> = F extends Flag.Flag<infer A> ? A : never
/** What was typed. */
export type ExecFlags = { readonly [K in keyof typeof execFlags]: Value<(typeof execFlags)[K]> } & {
  readonly command: ReadonlyArray<string>
}

/** The request, without its terminal, and what is wrong. */
export const read = Effect.fnUntraced(function* (name: string, flags: ExecFlags) {
  const problems: Array<FlagProblem> = []
  const variables = yield* environmentOf(flags.environment, flags.environmentFiles)
  for (const variable of variables) if (Result.isFailure(variable)) problems.push(variable.failure)
  if (Option.isSome(flags.detachKeys) && Result.isFailure(flags.detachKeys.value)) {
    problems.push(flags.detachKeys.value.failure)
  }
  if (flags.privileged) {
    problems.push({
      flag: "--privileged",
      text: "a program has the rights of its container: that one must be run with it"
    })
  }
  if (flags.detach && (flags.interactive || flags.terminal)) {
    problems.push({ flag: "-d", text: "does not go with -i and -t: what is detached has nobody to talk to" })
  }
  const start: MessageInitShape<typeof ExecStartSchema> = {
    name,
    command: [...flags.command],
    environment: Object.fromEntries(
      variables.flatMap((variable) => (Result.isSuccess(variable) ? [variable.success] : []))
    ),
    workingDirectory: flags.workingDirectory,
    user: flags.user,
    stdin: flags.interactive,
    detach: flags.detach
  }
  return { start, problems }
})
