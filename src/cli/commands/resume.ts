/** `ironwood resume`: lets the processes of paused containers go on. */
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

export const resume = Command.make(
  "resume",
  { names: Argument.String("NAME").pipe(Argument.withDescription("Containers"), Argument.variadic({ min: 1 })) },
  Effect.fnUntraced(function* ({ names }) {
    const client = yield* Client
    yield* forEach(
      names,
      Effect.fnUntraced(function* (word) {
        const name = yield* Target.container(word)
        const { container } = yield* client.call(ContainerService.method.resumeContainer, {
          name,
          requestId: requestId()
        })
        return answered(word, ContainerSchema, container ?? create(ContainerSchema, { spec: { name } }))
      })
    )
  })
).pipe(
  describe({
    short: "Let the processes of paused containers go on",
    examples: [["ironwood resume web", "It goes on where it was"]]
  })
)
