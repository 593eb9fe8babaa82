/** `ironwood run`: a container from an image, with the flags docker people type. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import {
  ContainerSchema,
  ContainerService,
  type ContainerSpecSchema
} from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { NetworkMode, SandboxService } from "../../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { type Failure, withNext } from "../Failure.ts"
import { type FlagProblem, flagOf, wrongFlags } from "../FlagProblems.ts"
import { attach } from "../Foreground.ts"
import { describe } from "../Help.ts"
import { withMissing } from "../Missing.ts"
import { generateName } from "../Names.ts"
import * as Output from "../Output.ts"
import { requestId } from "../RequestId.ts"
import { flagOfField, read, runFlags } from "../RunFlags.ts"

export const run = Command.make(
  "run",
  {
    ...runFlags,
    image: Argument.String("IMAGE").pipe(
      Argument.withDescription("The image: a name with an optional tag, or a digest")
    ),
    command: Argument.String("COMMAND").pipe(
      Argument.withDescription("Instead of the image's command; all words after IMAGE belong to it"),
      Argument.variadic()
    )
  },
  Effect.fnUntraced(function* (flags) {
    const client = yield* Client
    const name = flags.name === "" ? generateName(Math.random) : flags.name
    const { network, problems, spec: rest } = yield* read(flags)
    const spec = { ...rest, name, sandbox: flags.sandbox }
    const ownSandbox = network === NetworkMode.HOST && flags.sandbox === ""
    // what is made before the container is made only for one that can be
    if (problems.length > 0 || ownSandbox) yield* check(spec, problems)
    if (ownSandbox) {
      const sandbox = { name, network }
      yield* client.call(SandboxService.method.createSandbox, { spec: sandbox, requestId: requestId() })
    }
    const { container } = yield* client
      .call(
        ContainerService.method.createContainer,
        { spec: ownSandbox ? { ...spec, sandbox: name } : spec, requestId: requestId() },
        { timeout: "5 minutes" }
      )
      .pipe(
        Effect.mapError((error) => explained(error, name)),
        Effect.tapError(() => (ownSandbox ? removeEmptySandbox(name) : Effect.void))
      )
    if (container === undefined) return yield* Effect.die("CreateContainer answered without a container")
    if (flags.detach) return yield* Output.answer(ContainerSchema, container, Effect.succeed([name]))
    return yield* attach(container, { remove: flags.remove })
  })
).pipe(
  describe({
    short: "Run a container from an image",
    long: [
      "The image must have been imported (`ironwood image import`). In the foreground its output is shown, Ctrl-C stops it, and the",
      "exit code is its own (128 + N when signal N ended it). With -d it is supervised from then on: it comes back by its",
      "restart policy, also after a restart of Ironwood."
    ],
    examples: [
      ["ironwood run --rm hello", "See what an image does"],
      ["ironwood run -d --name web --memory 64MiB --restart always web:latest", "A service that is kept up"],
      ["ironwood run --rm --entrypoint /bin/sh hello -c 'id; env'", "Another program of the image"],
      [
        "ironwood run -d --restart on-failure:3 -e JOB=7 worker ./run --once",
        "Tried again at most 3 times, then parked"
      ]
    ]
  })
)

/** What the flags are to blame for, and what to do about the rest. */
const explained = (error: Failure, name: string): Failure => {
  if (error.violations !== undefined) {
    return wrongFlags(
      "run",
      error.violations.map((violation) => flagOf(violation, flagOfField))
    )
  }
  return error.status === status.alreadyExists
    ? withNext(error, `Choose another --name, or remove that one with \`ironwood rm -f ${name}\``)
    : withMissing(error)
}

/** Fails with all that is wrong, here and at the server, which only looks. */
const check = Effect.fnUntraced(function* (
  spec: MessageInitShape<typeof ContainerSpecSchema>,
  problems: ReadonlyArray<FlagProblem>
) {
  const client = yield* Client
  const asked = client.call(ContainerService.method.createContainer, { spec, validateOnly: true }).pipe(
    Effect.as<ReadonlyArray<FlagProblem>>([]),
    Effect.catch((error) => {
      if (error.violations !== undefined) {
        return Effect.succeed(error.violations.map((violation) => flagOf(violation, flagOfField)))
      }
      if (problems.length === 0) return Effect.fail(explained(error, spec.name ?? ""))
      // nobody answers: what is wrong with the flags is still so
      if (error.exitCode === exitCodes.unavailable) return Effect.succeed([])
      return Effect.succeed([{ flag: error.about?.type === "image" ? "IMAGE" : "--name", text: error.summary }])
    })
  )
  const all = [...problems, ...(yield* asked)]
  return yield* all.length === 0 ? Effect.void : wrongFlags("run", all)
})

const removeEmptySandbox = Effect.fnUntraced(function* (name: string) {
  const client = yield* Client
  yield* client.call(SandboxService.method.removeSandbox, { name, requestId: requestId() }).pipe(
    orElseStatus(status.notFound, () => Effect.void),
    orElseStatus(status.failedPrecondition, () => Effect.void)
  )
})
