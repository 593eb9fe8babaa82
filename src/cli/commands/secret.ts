/** `ironwood secret`: values that containers find as files and that nobody is shown again. */
import { create as make } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import {
  ListSecretsResponseSchema,
  SecretSchema,
  SecretService
} from "../../../proto/generated/ironwood/v1/secret_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure, withNext } from "../Failure.ts"
import { flagOf, wrongFlags } from "../FlagProblems.ts"
import { answered, forEach } from "../ForEach.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Output from "../Output.ts"
import * as Table from "../Table.ts"
import * as Text from "../Text.ts"

const flagOfField: ReadonlyMap<string, string> = new Map([
  ["name", "NAME"],
  ["value", "FILE"]
])

/** The bytes of a file, or of standard input. */
const read = Effect.fnUntraced(function* (file: string) {
  const files = yield* FileSystem.FileSystem
  const stdio = yield* Stdio.Stdio
  const bytes =
    file === "-"
      ? Stream.runFold(
          stdio.stdin,
          () => new Uint8Array(),
          (all, more) => Buffer.concat([all, more])
        )
      : files.readFile(file)
  return yield* Effect.mapError(bytes, () => failure(`${file} cannot be read`, { exitCode: exitCodes.usage }))
})

const create = Command.make(
  "create",
  {
    name: Argument.String("NAME").pipe(Argument.withDescription("Its name")),
    file: Argument.String("FILE|-").pipe(Argument.withDescription("Where its value is; -: standard input"))
  },
  Effect.fnUntraced(function* ({ file, name }) {
    const client = yield* Client
    const { secret } = yield* client.call(SecretService.method.putSecret, { name, value: yield* read(file) }).pipe(
      Effect.mapError((error) =>
        error.violations === undefined
          ? error
          : wrongFlags(
              "secret create",
              error.violations.map((violation) => flagOf(violation, flagOfField))
            )
      )
    )
    return yield* Output.answer(SecretSchema, secret ?? make(SecretSchema, { name }), Effect.succeed([name]))
  })
).pipe(
  describe({
    short: "Keep a secret, or give one another value",
    long: [
      "It is kept in memory, never on a disk: it outlives Ironwood's brain, and is gone with a restart of the host. A container finds it",
      "as a file in /run/secrets that only its user may read (`ironwood run --secret NAME`); its next start finds another value."
    ],
    examples: [
      ["pass show db | ironwood secret create db-password -", "From standard input, so that no shell keeps it"]
    ]
  })
)

const ls = Command.make(
  "ls",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const found = yield* client.call(SecretService.method.listSecrets, {})
    return yield* Output.answer(
      ListSecretsResponseSchema,
      found,
      Effect.gen(function* () {
        const style = yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        return Table.render(
          [{ title: "NAME" }, { title: "SIZE", align: "right" }, { title: "PUT" }],
          found.secrets.map(({ name, sizeBytes, updateTime }) => {
            const put = ActorText.momentOf(updateTime)
            return [
              Text.clean(name),
              HumanText.size(BigInt(sizeBytes)),
              put === undefined ? "" : HumanText.ago(put, now)
            ]
          }),
          { heading: style.dim }
        )
      })
    )
  })
).pipe(
  Command.withAlias("list"),
  describe({ short: "List the secrets, without their values", examples: [["ironwood secret ls", "All of them"]] })
)

const rm = Command.make(
  "rm",
  { names: Argument.String("NAME").pipe(Argument.withDescription("Secrets"), Argument.variadic({ min: 1 })) },
  ({ names }) =>
    forEach(
      names,
      Effect.fnUntraced(function* (name) {
        const client = yield* Client
        yield* client
          .call(SecretService.method.removeSecret, { name })
          .pipe(orElseStatus(status.notFound, (error) => withNext(error, "`ironwood secret ls` lists those there are")))
        return answered(name, SecretSchema, make(SecretSchema, { name }))
      })
    )
).pipe(
  describe({
    short: "Forget secrets that no container needs",
    examples: [["ironwood secret rm db-password", "It is gone at once"]]
  })
)

export const secret = Command.make("secret").pipe(
  Command.withSubcommands([create, ls, rm]),
  describe({
    short: "Values that containers find as files, and nobody is shown again",
    examples: [["ironwood run -d --secret db-password web:latest", "It is in /run/secrets/db-password"]]
  })
)
