/** `ironwood pause`: freezes all processes of containers. */
import { create } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import { ContainerSchema, ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "../Client.ts"
import { answered, forEach } from "../ForEach.ts"
import { describe } from "../Help.ts"
import { requestId } from "../RequestId.ts"
import * as Target from "../Target.ts"

export const pause = Command.make(
  "pause",
  { names: Argument.String("NAME").pipe(Argument.withDescription("Containers"), Argument.variadic({ min: 1 })) },
  Effect.fnUntraced(function* ({ names }) {
    const client = yield* Client
    yield* forEach(
      names,
      Effect.fnUntraced(function* (word) {
        const name = yield* Target.container(word)
        const { container } = yield* client.call(ContainerService.method.pauseContainer, {
          name,
          requestId: requestId()
        })
        return answered(word, ContainerSchema, container ?? create(ContainerSchema, { spec: { name } }))
      })
    )
  })
).pipe(
  describe({
    short: "Freeze all processes of containers",
    long: ["They stay up and keep their memory; their probes wait. A stop lets them go on first."],
    examples: [["ironwood pause web", "Nothing of it runs until `ironwood resume web`"]]
  })
)
