/** `ironwood exec`: runs a further program in a container. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as Command from "effect/cli/Command"
import { type ExecContainerRequestSchema, ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "../Client.ts"
import { execArguments, execFlags, flagOfField, read } from "../ExecFlags.ts"
import { exitCodes } from "../ExitCode.ts"
import { type Failure, failure } from "../Failure.ts"
import { flagOf, wrongFlags } from "../FlagProblems.ts"
import { ContainerEnded } from "../Foreground.ts"
import { describe } from "../Help.ts"
import { Keyboard } from "../Keyboard.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import { Signals } from "../Signals.ts"
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

/** What a program's standard input may carry in one message. */
const mostInput = 65_536
const pieces = (bytes: Uint8Array): ReadonlyArray<Uint8Array> =>
  Array.from({ length: Math.ceil(bytes.length / mostInput) }, (_, index) =>
    bytes.subarray(index * mostInput, (index + 1) * mostInput)
  )

export const exec = Command.make(
  "exec",
  { ...execFlags, ...execArguments },
  Effect.fnUntraced(function* (flags) {
    const client = yield* Client
    const screen = yield* Screen
    const keyboard = yield* Keyboard
    const { problems, start } = yield* read(flags.name, flags)
    if (problems.length > 0) return yield* wrongFlags("exec", problems, "Nothing was run")
    if (flags.terminal && flags.interactive && !keyboard.isTerminal) {
      return yield* failure("-t needs a terminal to type on, and standard input is none", {
        exitCode: exitCodes.usage,
        next: "Leave out -t to pipe something in"
      })
    }
    const name = yield* Target.container(flags.name)
    const size = (yield* screen.size) ?? { rows: 24, columns: 80 }
    const signals = yield* (yield* Signals).claim
    // set only once it runs: a mistake is told on a terminal as it was
    const typing = Effect.suspend(() => (flags.terminal && flags.interactive ? keyboard.raw : Effect.void))

    const begin: Request = {
      request: { case: "start", value: { ...start, name, ...(flags.terminal ? { terminal: size } : {}) } }
    }
    const input = flags.interactive
      ? keyboard.input.pipe(
          Stream.flatMap((bytes) => Stream.fromIterable(pieces(bytes))),
          Stream.map((value): Request => ({ request: { case: "stdin", value } })),
          Stream.concat(Stream.make<[Request]>({ request: { case: "stdinEnd", value: true } }))
        )
      : Stream.never
    const resizes = flags.terminal
      ? Stream.mapEffect(screen.resized, () =>
          Effect.map(screen.size, (now): Request => ({ request: { case: "resize", value: now ?? size } }))
        )
      : Stream.never
    // one Ctrl-C is for the program, the next one for us: the call ends, and the program with it
    let asked = false
    const passedOn = Stream.fromEffectRepeat(
      Effect.gen(function* () {
        const signal = yield* Queue.take(signals)
        if (asked) return yield* Effect.fail("enough" as const)
        asked = true
        return { request: { case: "signal", value: signal } } satisfies Request
      })
    )
    const requests = Stream.concat(
      Stream.make<[Request]>(begin),
      Stream.merge(Stream.merge(Stream.concat(input, Stream.never), resizes), passedOn)
    )

    let code: number | undefined
    yield* client.exchange(ContainerService.method.execContainer, requests).pipe(
      Stream.runForEach(({ response }) => {
        switch (response.case) {
          case "started":
            return typing
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
      Effect.catchTag("Failure", explained),
      Effect.catchIf(
        (error) => error === "enough",
        () => new ContainerEnded({ code: exitCodes.interrupted })
      )
    )
    if (flags.detach || code === 0) return yield* Effect.void
    return yield* new ContainerEnded({ code: code ?? exitCodes.failed })
  }, Effect.scoped)
).pipe(
  describe({
    short: "Run a program in a container that runs",
    long: [
      "Its exit code becomes ours (128 + N when signal N ended it; 127: the container has no such program, 126: it cannot be",
      "executed). It ends with this command: whatever happens to that, nothing of the program stays, unless it was detached with",
      "-d. Without a terminal the first Ctrl-C is passed on to it. Flags come before NAME: what stands behind it is the command."
    ],
    examples: [
      ["ironwood exec -it web sh", "A shell in it"],
      ["ironwood exec web cat /etc/hostname", "One command"],
      ["ironwood exec -i db psql < dump.sql", "Pipe something in"],
      ["ironwood exec -u 0 -w /tmp -e DEBUG=1 web ./check", "As another user, elsewhere, with another environment"]
    ]
  })
)
