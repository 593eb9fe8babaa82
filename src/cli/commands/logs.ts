/** `ironwood logs`: what a container has written. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt"
import * as Argument from "effect/cli/Argument"
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { LogStream } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "../Client.ts"
import * as ContainerLogs from "../ContainerLogs.ts"
import { describe } from "../Help.ts"
import { LogPrinter } from "../LogPrinter.ts"
import { parseDuration } from "../Quantity.ts"
import * as Target from "../Target.ts"

/** A moment: so long ago, or an RFC 3339 time. */
const momentFlag = (name: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("TIME|DURATION"),
    Flag.mapEffect((text): Effect.Effect<Timestamp, CliError.CliError> =>
      Effect.gen(function* () {
        const ago = parseDuration(text)
        const now = yield* Clock.currentTimeMillis
        if (Result.isSuccess(ago)) {
          return timestampFromMs(now - Number(ago.success.seconds) * 1000 - ago.success.nanos / 1_000_000)
        }
        const moment = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN
        if (!Number.isNaN(moment)) return timestampFromMs(moment)
        return yield* new CliError.InvalidValue({
          option: name,
          value: text,
          expected: "a duration such as 10m (so long ago), or a time such as 2026-11-22T14:00:00Z",
          kind: "flag"
        })
      })
    ),
    Flag.optional
  )

const tailFlag = Flag.String("tail").pipe(
  Flag.withAlias("n"),
  Flag.withMetavar("N|all"),
  Flag.withDescription("Begin with the last N lines (default: all)"),
  Flag.withDefault("all"),
  Flag.mapEffect((text) =>
    text === "all"
      ? Effect.succeedNone
      : /^\d{1,9}$/.test(text)
        ? Effect.succeedSome(Number(text))
        : Effect.fail(
            new CliError.InvalidValue({ option: "tail", value: text, expected: "a whole number, or all", kind: "flag" })
          )
  )
)

export const logs = Command.make(
  "logs",
  {
    follow: Flag.Boolean("follow").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Go on with new output as it comes, also over restarts of the container and of Ironwood"),
      Flag.withDefault(false)
    ),
    tail: tailFlag,
    since: momentFlag("since").pipe(Flag.withDescription("Only what was written since: 10m (so long ago), or a time")),
    until: momentFlag("until").pipe(Flag.withDescription("Only what was written before")),
    timestamps: Flag.Boolean("timestamps").pipe(
      Flag.withAlias("t"),
      Flag.withDescription("Begin each line with the time it was read"),
      Flag.withDefault(false)
    ),
    stream: Flag.Literals("stream", ["both", "stdout", "stderr"]).pipe(
      Flag.withMetavar("STREAM"),
      Flag.withDescription("Only what was written there (default: both)"),
      Flag.withDefault("both")
    ),
    name: Argument.String("NAME").pipe(Argument.withDescription("The container"))
  },
  Effect.fnUntraced(function* ({ follow, name: word, since, stream, tail, timestamps, until }) {
    const client = yield* Client
    const name = yield* Target.container(word)
    const printer = yield* LogPrinter.make({ timestamps })
    yield* ContainerLogs.stream(client, {
      name,
      follow,
      streams: stream === "both" ? [] : [stream === "stdout" ? LogStream.STDOUT : LogStream.STDERR],
      ...(Option.isSome(tail) ? { tail: tail.value } : {}),
      ...(Option.isSome(since) ? { since: since.value } : {}),
      ...(Option.isSome(until) ? { until: until.value } : {})
    }).pipe(Stream.runForEachArray(printer.print))
  })
).pipe(
  describe({
    short: "Print what a container has written",
    long: [
      "From all its lives that are still in the log, in the order it was read. What the container wrote to standard error goes to",
      "standard error. The bytes are printed as they are."
    ],
    examples: [
      ["ironwood logs -f web", "Everything, and what comes"],
      ["ironwood logs --tail 20 -t web", "The last 20 lines, with times"],
      ["ironwood logs --since 10m --stream stderr web", "The errors of the last ten minutes"],
      ["ironwood logs -o json web | jq -r '.line | @base64d'", "For a program: an object per line"]
    ]
  })
)
