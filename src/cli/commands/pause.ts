/** `ironwood pause`: freezes all processes of containers. */
import * as Command from "effect/cli/Command"
import { ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { describe } from "../Help.ts"
import { requestId } from "../RequestId.ts"
import { containers, steerContainers } from "../Steering.ts"

export const pause = Command.make("pause", { names: containers }, ({ names }) =>
  steerContainers(names, (client, name) =>
    client.call(ContainerService.method.pauseContainer, { name, requestId: requestId() })
  )
).pipe(
  describe({
    short: "Freeze all processes of containers",
    long: ["They stay up and keep their memory; their probes wait. A stop lets them go on first."],
    examples: [["ironwood pause web", "Nothing of it runs until `ironwood resume web`"]]
  })
)
