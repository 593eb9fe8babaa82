/** `ironwood start`: brings up what is down. */
import * as Command from "effect/cli/Command"
import { ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { TreeService } from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import { describe } from "../Help.ts"
import { requestId } from "../RequestId.ts"
import { steer, targets } from "../Steering.ts"

const options = { timeout: "2 minutes" } as const

export const start = Command.make("start", { targets }, ({ targets }) =>
  steer(targets, {
    container: (client, name) =>
      client.call(ContainerService.method.startContainer, { name, requestId: requestId() }, options),
    actor: (client, path) => client.call(TreeService.method.startActor, { path, requestId: requestId() }, options)
  })
).pipe(
  describe({
    short: "Start containers or actors that are stopped, parked, finished or failed",
    long: ["One that waits for its next try is started at once. One that is up is left alone."],
    examples: [
      ["ironwood start web", "Start a container again that was stopped"],
      ["ironwood start flaky", "Do not wait for the back-off"]
    ]
  })
)
