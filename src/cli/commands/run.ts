/** `ironwood run`: a container from an image, with the flags docker people type. */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  ContainerSchema,
  ContainerService,
  type ContainerSpecSchema
} from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { RestartPolicySchema, RestartType } from "../../../proto/generated/ironwood/v1/policy_pb.ts"
import { NetworkMode, SandboxService } from "../../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure, withNext } from "../Failure.ts"
import { attach } from "../Foreground.ts"
import { describe } from "../Help.ts"
import { labelFlag, parsePairs } from "../Labels.ts"
import { withMissing } from "../Missing.ts"
import { generateName } from "../Names.ts"
import * as Output from "../Output.ts"
import { restartFlag, withRestart } from "../PolicyFlags.ts"
import { bytesFlag, durationFlag, secondsOrDuration, toProto } from "../QuantityFlags.ts"
import { requestId } from "../RequestId.ts"

const text = (name: string, metavar: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar(metavar), Flag.withDescription(description), Flag.withDefault(""))

const yes = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withDefault(false))

/** The flags; RunArguments.ts needs to know which of them take a value. */
export const runFlags = {
  name: text("name", "NAME", "Its name (default: two words)"),
  detach: yes("detach", "Print the name and return, instead of showing its output until it ends").pipe(
    Flag.withAlias("d")
  ),
  environment: Flag.String("env").pipe(
    Flag.withAlias("e"),
    Flag.withMetavar("NAME=VALUE"),
    Flag.withDescription("An environment variable; NAME alone takes the value from here; may be repeated"),
    Flag.atLeast(0)
  ),
  environmentFiles: Flag.String("env-file").pipe(
    Flag.withMetavar("FILE"),
    Flag.withDescription("Environment variables from a file, a NAME=VALUE per line; may be repeated"),
    Flag.atLeast(0)
  ),
  workingDirectory: text("workdir", "DIRECTORY", "Where it starts").pipe(Flag.withAlias("w")),
  user: text("user", "USER[:GROUP]", "Who it runs as, by name or number").pipe(Flag.withAlias("u")),
  entrypoint: Flag.String("entrypoint").pipe(
    Flag.withMetavar("PROGRAM"),
    Flag.withDescription("What to execute instead of the image's entrypoint; COMMAND becomes its arguments"),
    Flag.optional
  ),
  memory: bytesFlag("memory").pipe(
    Flag.withAlias("m"),
    Flag.withDescription("Most memory, e.g. 64MiB or 64m"),
    Flag.optional
  ),
  cpus: Flag.Finite("cpus").pipe(
    Flag.withMetavar("N"),
    Flag.withDescription("Most processor time, in cores, e.g. 0.5"),
    Flag.filter(
      (n) => n > 0,
      (n) => `Expected more than 0, got ${n}`
    ),
    Flag.optional
  ),
  pids: Flag.Int("pids-limit").pipe(
    Flag.withMetavar("N"),
    Flag.withDescription("Most processes and threads"),
    Flag.filter(
      (n) => n > 0,
      (n) => `Expected more than 0, got ${n}`
    ),
    Flag.optional
  ),
  restart: restartFlag(
    "permanent, transient or temporary; always, on-failure[:N], no (default: permanent with -d, else temporary)"
  ),
  network: Flag.Literals("network", ["none", "host"]).pipe(
    Flag.withMetavar("MODE"),
    Flag.withDescription("Only loopback, or the host's own network (default: none)"),
    Flag.withDefault("none")
  ),
  sandbox: text("sandbox", "NAME", "Run in this sandbox, with the containers there (default: one of its own)"),
  stopSignal: text("stop-signal", "SIGNAL", "The signal that asks it to end"),
  stopTimeout: durationFlag("stop-timeout", secondsOrDuration).pipe(
    Flag.withDescription("How long it may take to end before it is killed: 30s, or seconds (default: 10s)"),
    Flag.optional
  ),
  labels: labelFlag("A label; may be repeated"),
  readonlyRootfs: yes("read-only", "Its root filesystem read-only"),
  remove: yes("rm", "Remove it when it has ended (not with -d)")
}

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
    if (flags.detach && flags.remove) {
      return yield* failure("--rm needs the foreground", {
        exitCode: exitCodes.usage,
        next: "Leave out -d, or remove the container later with `ironwood rm`"
      })
    }
    const name = flags.name === "" ? generateName(Math.random) : flags.name
    const sandbox = yield* sandboxOf(name, flags.network, flags.sandbox)
    const restart = Option.getOrElse(flags.restart, () => ({
      type: flags.detach ? RestartType.PERMANENT : RestartType.TEMPORARY
    }))
    const spec: MessageInitShape<typeof ContainerSpecSchema> = {
      name,
      sandbox,
      image: flags.image,
      entrypoint: Option.match(flags.entrypoint, { onNone: () => [], onSome: (program) => [program] }),
      command: [...flags.command],
      environment: yield* environmentOf(flags.environment, flags.environmentFiles),
      workingDirectory: flags.workingDirectory,
      user: flags.user,
      stopSignal: flags.stopSignal,
      labels: flags.labels,
      readonlyRootfs: flags.readonlyRootfs,
      restart: withRestart(create(RestartPolicySchema), restart),
      resources: {
        ...(Option.isSome(flags.memory) ? { memoryBytes: flags.memory.value } : {}),
        ...(Option.isSome(flags.cpus) ? { cpus: flags.cpus.value } : {}),
        ...(Option.isSome(flags.pids) ? { pids: flags.pids.value } : {})
      },
      ...(Option.isSome(flags.stopTimeout) ? { stopGracePeriod: toProto(flags.stopTimeout.value) } : {})
    }
    const { container } = yield* client
      .call(ContainerService.method.createContainer, { spec, requestId: requestId() }, { timeout: "5 minutes" })
      .pipe(
        Effect.mapError((error) =>
          error.status === status.alreadyExists
            ? withNext(error, `Choose another --name, or remove that one with \`ironwood rm -f ${name}\``)
            : withMissing(error)
        ),
        Effect.tapError(() => (sandbox === "" || flags.sandbox !== "" ? Effect.void : removeEmptySandbox(sandbox)))
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

/** The sandbox to name in the spec: one of the container's own is made first only when it needs the host's network. */
const sandboxOf = Effect.fnUntraced(function* (name: string, network: "none" | "host", sandbox: string) {
  if (sandbox !== "" && network === "host") {
    return yield* failure("--network belongs to the sandbox, which is there already", {
      exitCode: exitCodes.usage,
      next: "Leave out --network, or --sandbox"
    })
  }
  if (network === "none") return sandbox
  const client = yield* Client
  yield* client.call(SandboxService.method.createSandbox, {
    spec: { name, network: NetworkMode.HOST },
    requestId: requestId()
  })
  return name
})

const removeEmptySandbox = Effect.fnUntraced(function* (name: string) {
  const client = yield* Client
  yield* client.call(SandboxService.method.removeSandbox, { name, requestId: requestId() }).pipe(
    orElseStatus(status.notFound, () => Effect.void),
    orElseStatus(status.failedPrecondition, () => Effect.void)
  )
})

/** Variables of the files, then those of the flags; later ones win. `NAME` alone is taken from our own environment. */
const environmentOf = Effect.fnUntraced(function* (pairs: ReadonlyArray<string>, files: ReadonlyArray<string>) {
  const system = yield* FileSystem.FileSystem
  const words: Array<string> = []
  for (const file of files) {
    const content = yield* Effect.mapError(system.readFileString(file), () =>
      failure(`the environment file ${file} cannot be read`, { exitCode: exitCodes.usage })
    )
    words.push(
      ...content
        .split("\n")
        .map((line) => line.trim())
        .filter((line) => line !== "" && !line.startsWith("#"))
    )
  }
  const all = [...words, ...pairs].flatMap((word) => {
    if (word.includes("=")) return [word]
    const inherited = process.env[word]
    return inherited === undefined ? [] : [`${word}=${inherited}`]
  })
  const parsed = parsePairs(all)
  if (Result.isSuccess(parsed)) return parsed.success
  return yield* failure(`"${parsed.failure}" is no environment variable`, {
    exitCode: exitCodes.usage,
    next: "Write NAME=VALUE, or NAME alone to take the value from here"
  })
})
