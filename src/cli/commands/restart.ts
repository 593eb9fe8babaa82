/** `ironwood restart`: ends in order and starts again. */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Command from "effect/cli/Command"
import { ContainerService } from "../../../proto/generated/ironwood/v1/container_pb.ts"
import { ActorState, TreeService } from "../../../proto/generated/ironwood/v1/tree_pb.ts"
import type { Connection } from "../Client.ts"
import { exitCodes } from "../ExitCode.ts"
import { failure } from "../Failure.ts"
import { describe } from "../Help.ts"
import { stopTimeout } from "../Remove.ts"
import { requestId } from "../RequestId.ts"
import { steer, targets } from "../Steering.ts"

const options = { timeout: stopTimeout } as const

/**
 * Restarts an actor. One that serves the API answers before it goes down: then its next incarnation is waited for, so that the next
 * command finds somebody who answers.
 */
const restartActor = Effect.fnUntraced(function* (client: Connection, path: string) {
  const look = Effect.map(client.call(TreeService.method.getActor, { path }), ({ actor }) => actor)
  const before = yield* look
  const answer = yield* client.call(TreeService.method.restartActor, { path, requestId: requestId() }, options)
  if (answer.actor === undefined || answer.actor.incarnation !== before?.incarnation) return answer
  const { incarnation } = answer.actor
  const back = look.pipe(
    Effect.filterOrFail(
      (actor) => actor !== undefined && actor.incarnation > incarnation && actor.state === ActorState.RUNNING,
      () => failure(`${path} is being restarted, and has not come back yet`, { exitCode: exitCodes.timeout })
    ),
    Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 200 })
  )
  return { actor: yield* back }
})

export const restart = Command.make("restart", { targets }, ({ targets }) =>
  steer(targets, {
    container: (client, name) =>
      client.call(ContainerService.method.restartContainer, { name, requestId: requestId() }, options),
    actor: restartActor
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
