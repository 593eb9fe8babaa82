/** `ironwood restart`: ends in order and starts again. */
import * as Command from "effect/cli/Command"
import { ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { TreeService } from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import { describe } from "../Help.ts"
import { requestId } from "../RequestId.ts"
import { steer, targets } from "../Steering.ts"

const options = { timeout: "10 minutes" } as const

export const restart = Command.make("restart", { targets }, ({ targets }) =>
  steer(targets, {
    container: (client, name) =>
      client.call(ContainerService.method.restartContainer, { name, requestId: requestId() }, options),
    actor: (client, path) => client.call(TreeService.method.restartActor, { path, requestId: requestId() }, options)
  })
).pipe(
  describe({
    short: "Stop containers or actors in order and start them again at once",
    long: [
      "Does not spend the restart budget, and restarts nobody else: siblings are left alone.",
      "Any actor can be restarted, also Ironwood's own: a path says which."
    ],
    examples: [
      ["ironwood restart web", "A container: its process is stopped and a new one started"],
      ["ironwood restart init/gateway/grpc", "The API server itself"]
    ]
  })
)
