/** `ironwood kill`: sends a signal to the first process of containers. */
import { create } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { ContainerSchema, ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { Client } from "../Client.ts"
import { answered, forEach } from "../ForEach.ts"
import { describe } from "../Help.ts"
import { requestId } from "../RequestId.ts"
import * as Target from "../Target.ts"

export const kill = Command.make(
  "kill",
  {
    signal: Flag.String("signal").pipe(
      Flag.withAlias("s"),
      Flag.withMetavar("SIGNAL"),
      Flag.withDescription("HUP, SIGHUP or 1 (default: SIGKILL)"),
      Flag.withDefault("")
    ),
    names: Argument.String("NAME").pipe(Argument.withDescription("Containers"), Argument.variadic({ min: 1 }))
  },
  Effect.fnUntraced(function* ({ names, signal }) {
    const client = yield* Client
    yield* forEach(
      names,
      Effect.fnUntraced(function* (word) {
        const name = yield* Target.container(word)
        yield* client.call(ContainerService.method.killContainer, { name, signal, requestId: requestId() })
        const { container } = yield* client.call(ContainerService.method.getContainer, { name })
        return answered(word, ContainerSchema, container ?? create(ContainerSchema, { spec: { name } }))
      })
    )
  })
).pipe(
  describe({
    short: "Send a signal to the first process of containers",
    long: [
      "What follows is up to the process and its restart policy: a permanent container that is killed comes back.",
      "To have it down and stay down, use `ironwood stop`."
    ],
    examples: [
      ["ironwood kill -s HUP web", "Ask it to read its configuration again"],
      ["ironwood kill web", "See its restart policy at work"]
    ]
  })
)
