/** `ironwood history`: what happened to one actor, and what was decided each time. */
import { create } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import {
  GetActorHistoryResponseSchema,
  type HistoryEntry,
  TreeService
} from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import { Client } from "../Client.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as HistoryText from "../HistoryText.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import * as Target from "../Target.ts"

export const history = Command.make(
  "history",
  {
    limit: Flag.Int("limit").pipe(
      Flag.withAlias("n"),
      Flag.withDescription("How many entries at most, the newest first (default: 20; 0: all that are kept)"),
      Flag.filter(
        (n) => n >= 0,
        (n) => `Expected 0 or more, got ${n}`
      ),
      Flag.withDefault(20)
    ),
    target: Argument.String("NAME|PATH").pipe(
      Argument.withDescription("A container's name, or an actor's path or name")
    )
  },
  Effect.fnUntraced(function* ({ limit, target: word }) {
    const client = yield* Client
    const path = yield* Target.pathOf(word)
    const most = limit === 0 ? Number.POSITIVE_INFINITY : limit
    const entries: Array<HistoryEntry> = []
    let pageToken = ""
    do {
      const pageSize = Math.min(1000, most - entries.length)
      const answer = yield* client.call(TreeService.method.getActorHistory, { path, pageSize, pageToken })
      entries.push(...answer.entries)
      pageToken = answer.nextPageToken
    } while (pageToken !== "" && entries.length < most)
    return yield* Output.answer(
      GetActorHistoryResponseSchema,
      create(GetActorHistoryResponseSchema, { entries, nextPageToken: pageToken }),
      Effect.gen(function* () {
        const screen = yield* Screen
        const style = yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        const size = yield* screen.size
        return HistoryText.table(entries, now, {
          heading: style.dim,
          ...(size === undefined ? {} : { width: size.columns })
        })
      })
    )
  })
).pipe(
  describe({
    short: "Show what happened to an actor and what was decided each time, newest first",
    long: ["Also what happened before Ironwood's brain was restarted. The oldest entries are dropped at some point."],
    examples: [["ironwood history flaky", "Why it keeps failing, and how its back-off grew"]]
  })
)
