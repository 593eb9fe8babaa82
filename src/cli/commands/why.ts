/** `ironwood why`: why an actor is as it is, in plain words. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import { ExplainActorResponseSchema, TreeService } from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import { Client } from "../Client.ts"
import { style as currentStyle } from "../Globals.ts"
import { describe } from "../Help.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import * as Target from "../Target.ts"
import * as WhyText from "../WhyText.ts"

export const why = Command.make(
  "why",
  {
    target: Argument.String("NAME|PATH").pipe(
      Argument.withDescription("A container's name, or an actor's path (or its name, when only one has it)")
    )
  },
  Effect.fnUntraced(function* ({ target: word }) {
    const client = yield* Client
    const path = yield* Target.pathOf(word)
    const answer = yield* client.call(TreeService.method.explainActor, { path })
    return yield* Output.answer(
      ExplainActorResponseSchema,
      answer,
      Effect.gen(function* () {
        const screen = yield* Screen
        const style = yield* currentStyle
        const now = yield* Clock.currentTimeMillis
        const size = yield* screen.size
        return WhyText.lines(answer, { now, style, ...(size === undefined ? {} : { width: size.columns }) })
      })
    )
  })
).pipe(
  describe({
    short: "Explain why a container or an actor is as it is: what happened, why, what comes next, what to do",
    long: [
      "Tells what it does now, its past ends as a short story, why its policy decided so, when its next start is and what",
      "follows if that fails too. An actor that is down because of another names the one that began it.",
      "-o json prints the API's ExplainActorResponse."
    ],
    examples: [
      ["ironwood why flaky", "A container that keeps failing"],
      ["ironwood why init/runtime", "What is wrong below an actor"],
      ["ironwood why flaky -o json | jq -r '.prospects[0].time'", "When its next start is"]
    ]
  })
)
