/** `ironwood version`: which Ironwood this is, and which one answers. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Command from "effect/cli/Command"
import { GetVersionResponseSchema, HostService } from "../../../proto/generated/ironwood/v1/host_pb.ts"
import * as ActorText from "../ActorText.ts"
import { Client } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { OutputSetting } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HumanText from "../HumanText.ts"
import * as Output from "../Output.ts"
import { pairs } from "../Table.ts"
import * as Text from "../Text.ts"
import { version as own } from "../Version.ts"

export const version = Command.make(
  "version",
  {},
  Effect.fnUntraced(function* () {
    const client = yield* Client
    const format = yield* OutputSetting
    const node = `node ${process.versions.node}`
    const answer = yield* client.call(HostService.method.getVersion, {}, { timeout: "5 seconds" }).pipe(
      Effect.asSome,
      Effect.catchIf(
        ({ exitCode }) => format === "table" && exitCode === exitCodes.unavailable,
        () => Effect.succeedNone
      )
    )
    if (Option.isNone(answer)) {
      return yield* Output.lines(
        pairs([
          ["client", `${own} (${node})`],
          ["server", `none answers at ${client.address}`]
        ])
      )
    }
    const server = answer.value
    // not from its start time: the clock may have been set since, and ours may differ
    const uptime =
      server.brainUptime === undefined ? "" : `, up ${HumanText.span(ActorText.millisecondsOf(server.brainUptime))}`
    return yield* Output.answer(
      GetVersionResponseSchema,
      server,
      Effect.succeed(
        pairs([
          ["client", `${own} (${node})`],
          [
            "server",
            `${Text.clean(server.version)} (node ${Text.clean(server.nodeVersion).replace(/^v/, "")}) at ${client.address}`
          ],
          ["taproot", `pid ${server.taprootPid}, instance ${Text.clean(server.instance)}`],
          ["brain", `pid ${server.brainPid}${uptime}, started ${HumanText.count(server.brainStarts, "time")}`],
          ["state", Text.clean(server.stateDirectory)],
          ...(server.rescue === "" ? [] : [["rescue", Text.clean(server.rescue)] as const])
        ])
      )
    )
  })
).pipe(
  describe({
    short: "Show the version of this command and of the Ironwood that answers",
    long: ["Fine without a server, except with -o json or yaml, which print the server's answer."],
    examples: [["ironwood version", "Both versions, the pids of taproot and brain, where the state is kept"]]
  })
)
