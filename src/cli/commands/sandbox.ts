/** `ironwood sandbox ls|rm`: what containers share. They are created by `apply`, `run`, or for a container of their own. */
import { create } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  ListSandboxesResponseSchema,
  NetworkMode,
  type Sandbox,
  SandboxSchema,
  SandboxService
} from "../../../proto/generated/ironwood/v1/sandbox_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client, orElseStatus, status } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { withNext } from "../Failure.ts"
import { answered, forEach } from "../ForEach.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Output from "../Output.ts"
import { stopContainer } from "../Remove.ts"
import { requestId } from "../RequestId.ts"
import { Screen } from "../Screen.ts"
import * as Table from "../Table.ts"
import * as Text from "../Text.ts"

const ls = Command.make(
  "ls",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const sandboxes: Array<Sandbox> = []
    let pageToken = ""
    do {
      const page = yield* client.call(SandboxService.method.listSandboxes, { pageToken })
      sandboxes.push(...page.sandboxes)
      pageToken = page.nextPageToken
    } while (pageToken !== "")
    return yield* Output.answer(
      ListSandboxesResponseSchema,
      create(ListSandboxesResponseSchema, { sandboxes }),
      Effect.gen(function* () {
        const screen = yield* Screen
        const style = yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        const size = yield* screen.size
        return Table.render(
          [{ title: "NAME" }, { title: "NETWORK" }, { title: "CREATED" }, { title: "CONTAINERS", shrinkTo: 20 }],
          sandboxes.map(({ containers, createTime, spec }) => {
            const created = ActorText.momentOf(createTime)
            return [
              Text.clean(spec?.name ?? ""),
              spec?.network === NetworkMode.HOST ? "host" : "none",
              created === undefined ? "" : HumanText.ago(created, now),
              containers.map(Text.clean).join(", ")
            ]
          }),
          { heading: style.dim, ...(size === undefined ? {} : { width: size.columns }) }
        )
      })
    )
  })
).pipe(
  Command.withAlias("list"),
  describe({ short: "List the sandboxes with their containers", examples: [["ironwood sandbox ls", "All of them"]] })
)

const rm = Command.make(
  "rm",
  {
    force: Flag.Boolean("force").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Remove its containers too; those that are up are stopped first, in order"),
      Flag.withDefault(false)
    ),
    names: Argument.String("NAME").pipe(Argument.withDescription("Sandboxes"), Argument.variadic({ min: 1 }))
  },
  Effect.fnUntraced(function* ({ force, names }) {
    const client = yield* Client
    yield* forEach(
      names,
      Effect.fnUntraced(function* (name) {
        const { sandbox } = yield* client
          .call(SandboxService.method.getSandbox, { name })
          .pipe(
            orElseStatus(status.notFound, (error) => withNext(error, "`ironwood sandbox ls` lists those there are"))
          )
        if (force) {
          yield* Effect.forEach(
            sandbox?.containers ?? [],
            (container) => stopContainer(container).pipe(orElseStatus(status.notFound, () => Effect.void)),
            { concurrency: 8, discard: true }
          )
        }
        const request = { name, force, requestId: requestId() }
        yield* client
          .call(SandboxService.method.removeSandbox, request, { timeout: "10 minutes" })
          .pipe(
            Effect.mapError((error) =>
              error.exitCode === exitCodes.conflict && !force
                ? withNext(error, `Remove them first, or \`ironwood sandbox rm -f ${name}\``)
                : error
            )
          )
        return answered(name, SandboxSchema, sandbox ?? create(SandboxSchema, { spec: { name } }))
      })
    )
  })
).pipe(
  describe({
    short: "Remove sandboxes that have no container; with -f, with their containers",
    examples: [["ironwood sandbox rm -f web", "The sandbox and everything in it"]]
  })
)

export const sandbox = Command.make("sandbox").pipe(
  Command.withSubcommands([ls, rm]),
  describe({ short: "List and remove sandboxes, which containers share" })
)
