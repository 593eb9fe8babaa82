/** `ironwood resume`: lets the processes of paused containers go on. */
import * as Command from "effect/cli/Command"
import { ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { describe } from "../Help.ts"
import { requestId } from "../RequestId.ts"
import { containers, steerContainers } from "../Steering.ts"

export const resume = Command.make("resume", { names: containers }, ({ names }) =>
  steerContainers(names, (client, name) =>
    client.call(ContainerService.method.resumeContainer, { name, requestId: requestId() })
  )
).pipe(
  describe({
    short: "Let the processes of paused containers go on",
    examples: [["ironwood resume web", "It goes on where it was"]]
  })
)
