/** `ironwood stop`: ends containers in order and keeps them down. */
import * as Option from "effect/Option"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { TreeService } from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import { describe } from "../Help.ts"
import { durationFlag, secondsOrDuration, toProto } from "../QuantityFlags.ts"
import { stopTimeout } from "../Remove.ts"
import { requestId } from "../RequestId.ts"
import { steer, targets } from "../Steering.ts"

export const stop = Command.make(
  "stop",
  {
    time: durationFlag("time", secondsOrDuration).pipe(
      Flag.withAlias("t"),
      Flag.withDescription("How long it may take before it is killed: 30s, or seconds (default: as its spec says)"),
      Flag.optional
    ),
    signal: Flag.String("signal").pipe(
      Flag.withAlias("s"),
      Flag.withMetavar("SIGNAL"),
      Flag.withDescription("The signal that asks it to end (default: as its spec or image says)"),
      Flag.withDefault("")
    ),
    targets
  },
  ({ signal, targets, time }) => {
    const options = { timeout: stopTimeout } as const
    const period = Option.isSome(time) ? { gracePeriod: toProto(time.value) } : {}
    return steer(targets, {
      container: (client, name) =>
        client.call(
          ContainerService.method.stopContainer,
          { name, signal, requestId: requestId(), ...period },
          options
        ),
      actor: (client, path) => client.call(TreeService.method.stopActor, { path, requestId: requestId() }, options)
    })
  }
).pipe(
  describe({
    short: "Stop containers in order: the stop signal, the grace period, then SIGKILL",
    long: [
      "Returns when they are down. A container that a person stopped stays down, also over restarts of Ironwood and of the host,",
      "until `ironwood start` or `restart`."
    ],
    examples: [
      ["ironwood stop web db", "Two at once"],
      ["ironwood stop -t 60s db", "Give it a minute to write its data"],
      ["ironwood stop -t 0 web", "Kill it at once, and keep it down"]
    ]
  })
)
