/** `ironwood rm`: removes containers, and the sandboxes that were theirs alone. */
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { ContainerSchema } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { answered, forEach } from "../ForEach.ts"
import { describe } from "../Help.ts"
import { removeContainer } from "../Remove.ts"
import * as Target from "../Target.ts"

export const rm = Command.make(
  "rm",
  {
    force: Flag.Boolean("force").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Stop those that are up first, in order"),
      Flag.withDefault(false)
    ),
    names: Argument.String("NAME").pipe(Argument.withDescription("Containers"), Argument.variadic({ min: 1 }))
  },
  Effect.fnUntraced(function* ({ force, names }) {
    yield* forEach(
      names,
      Effect.fnUntraced(function* (word) {
        const name = yield* Target.container(word)
        return answered(word, ContainerSchema, yield* removeContainer(name, force))
      })
    )
  })
).pipe(
  describe({
    short: "Remove containers with their writable layers and logs",
    long: [
      "Refused for one that is up, unless -f: then it gets its stop signal and its grace period first. A sandbox that was made",
      "for the container alone goes with it."
    ],
    examples: [
      ["ironwood rm -f web", "Stop it in order and remove it"],
      ["ironwood stop -t 0 web && ironwood rm web", "Kill it at once and remove it"],
      ["ironwood rm $(ironwood ps -aq -l job=import)", "All with a label"]
    ]
  })
)
