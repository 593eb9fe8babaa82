/** `ironwood events`: every change of the tree, one line each. */
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { Client } from "../Client.ts"
import { describe } from "../Help.ts"
import * as LiveTree from "../LiveTree.ts"

const revisionFlag = Flag.String("from").pipe(
  Flag.withMetavar("REVISION"),
  Flag.withDescription("Begin with the changes after this revision instead of with the present"),
  Flag.mapEffect((text) =>
    /^\d{1,19}$/.test(text)
      ? Effect.succeed(BigInt(text))
      : Effect.fail(
          new CliError.InvalidValue({
            option: "from",
            value: text,
            expected: "a revision, a whole number",
            kind: "flag"
          })
        )
  ),
  Flag.optional
)

export const events = Command.make(
  "events",
  {
    from: revisionFlag,
    path: Argument.String("PATH").pipe(
      Argument.withDescription("Only this actor and those below it; it need not exist yet"),
      Argument.withDefault("")
    )
  },
  Effect.fnUntraced(function* ({ from, path }) {
    const client = yield* Client
    yield* LiveTree.events(client, {
      path,
      showSnapshot: false,
      ...(from._tag === "Some" ? { from: from.value } : {})
    })
  })
).pipe(
  describe({
    short: "Follow what happens, one line per change, each with its revision",
    long: [
      "Goes on until Ctrl-C. When the connection is lost (Ironwood's brain may be restarted) it comes back by itself and",
      "continues after the last revision it has shown. Revisions only grow: a program that keeps the last one it has seen",
      "comes back with --from and misses nothing. When changes since then are no longer held, a snapshot comes instead.",
      "A slow reader gets the newest state of an actor, not every step to it."
    ],
    examples: [
      ["ironwood events", "Everything from now on"],
      ["ironwood events init/runtime/flaky", "One sandbox and its containers"],
      ["ironwood events --from 1042 -o json", "For a program: one JSON object per line, after revision 1042"]
    ]
  })
)
