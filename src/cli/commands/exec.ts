/** `ironwood exec`: runs a further program in a container. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Command from "effect/cli/Command"
import { ContainerService, type ExecContainerRequestSchema } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "../Client.ts"
import { execArguments, execFlags, flagOfField, read } from "../ExecFlags.ts"
import { exitCodes } from "../ExitCode.ts"
import { keysOf } from "../DetachKeys.ts"
import { type Failure, failure } from "../Failure.ts"
import { flagOf, wrongFlags } from "../FlagProblems.ts"
import { ContainerEnded } from "../Foreground.ts"
import { describe } from "../Help.ts"
import * as Interactive from "../Interactive.ts"
import { Keyboard } from "../Keyboard.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import * as Target from "../Target.ts"

type Request = MessageInitShape<typeof ExecContainerRequestSchema>

/** As a shell has it, and docker. */
const codes = { notExecutable: 126, notFound: 127 } as const

/** What the flags are to blame for; a program that cannot be run is told with the code that a shell would give. */
const explained = (error: Failure): Effect.Effect<never, Failure | ContainerEnded, Screen> => {
  if (error.violations !== undefined) {
    const problems = error.violations.map((violation) => flagOf(violation, flagOfField))
    return Effect.fail(wrongFlags("exec", problems, "Nothing was run"))
  }
  const type = error.about?.type
  if (type !== "program" && type !== "exec") return Effect.fail(error)
  const code = error.exitCode === exitCodes.notFound ? codes.notFound : codes.notExecutable
  return Effect.andThen(Output.remark(`ironwood: ${error.message}`), Effect.fail(new ContainerEnded({ code })))
}

export const exec = Command.make(
  "exec",
  { ...execFlags, ...execArguments },
  Effect.fnUntraced(function* (flags) {
    const client = yield* Client
    const screen = yield* Screen
    const keyboard = yield* Keyboard
    const { interactive, terminal } = flags
    const { problems, start } = yield* read(flags.name, flags)
    if (problems.length > 0) return yield* wrongFlags("exec", problems, "Nothing was run")
    if (terminal && interactive && !keyboard.isTerminal) {
      return yield* failure("-t needs a terminal to type on, and standard input is none", {
        exitCode: exitCodes.usage,
        next: "Leave out -t to pipe something in"
      })
    }
    const name = yield* Target.container(flags.name)
    const size = yield* Interactive.windowSize
    const begin: Request = {
      request: { case: "start", value: { ...start, name, ...(terminal ? { terminal: size } : {}) } }
    }
    const said = yield* Interactive.said({
      input: interactive,
      terminal,
      detachable: interactive && terminal && keysOf(flags.detachKeys)
    })
    let left = false
    // who leaves says so: else the program would end with this command
    const leave = Stream.suspend(() => {
      left = true
      return Stream.make<[Request]>({ request: { case: "detach", value: true } })
    })
    const requests = Stream.concat(
      Stream.make<[Request]>(begin),
      Stream.map(said, (request): Request => ({ request })).pipe(Stream.catchTag("Detached", () => leave))
    )
    let code: number | undefined
    yield* client.exchange(ContainerService.method.execContainer, requests).pipe(
      Stream.runForEach(({ response }) => {
        switch (response.case) {
          case "started":
            // only now: a mistake is told on a terminal as it was
            return terminal && interactive ? keyboard.raw : Effect.void
          case "stdout":
            return screen.write(response.value)
          case "stderr":
            return screen.writeError(response.value)
          case "exited":
            return Effect.sync(() => void (code = response.value.code))
          default:
            return Effect.void
        }
      }),
      Effect.catchTags({
        Failure: explained,
        Impatient: () => new ContainerEnded({ code: exitCodes.interrupted })
      })
    )
    if (left) return yield* Output.remark("detached; it goes on, and nobody sees what it writes")
    if (flags.detach || code === 0) return yield* Effect.void
    return yield* new ContainerEnded({ code: code ?? exitCodes.failed })
  }, Effect.scoped)
).pipe(
  describe({
    short: "Run a program in a container that runs",
    long: [
      "Its exit code becomes ours (128 + N when signal N ended it; 127: the container has no such program, 126: it cannot be",
      "executed). It ends with this command: whatever happens to that, nothing of the program stays, unless it was detached with",
      "-d, or on a terminal with Ctrl-P Ctrl-Q. Without a terminal the first Ctrl-C is passed on to it. Flags come before NAME: what stands behind it is the command."
    ],
    examples: [
      ["ironwood exec -it web sh", "A shell in it"],
      ["ironwood exec web cat /etc/hostname", "One command"],
      ["ironwood exec -i db psql < dump.sql", "Pipe something in"],
      ["ironwood exec -u 0 -w /tmp -e DEBUG=1 web ./check", "As another user, elsewhere, with another environment"]
    ]
  })
)
