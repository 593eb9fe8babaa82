/**
 * Removing a container together with what was made for it alone: a sandbox of its own name that has nobody else in it.
 *
 * `force` is not the API's, which kills: one that is up is stopped in order first, with its grace period. Whoever cannot wait
 * says `ironwood stop -t 0` before or meanwhile.
 */
import { create } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import { ContainerSchema, ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { Client, orElseStatus, status } from "./Client.ts"
import { exitCodes } from "./ExitCode.ts"
import { changed, withNext } from "./Failure.ts"
import { requestId } from "./RequestId.ts"

/** The server keeps to the grace period, a day at most: this only guards against one that never answers. */
export const stopTimeout = "25 hours"

/** Stops it in order, as its spec says, and waits. */
export const stopContainer = Effect.fnUntraced(function* (name: string) {
  const client = yield* Client
  return yield* client.call(
    ContainerService.method.stopContainer,
    { name, requestId: requestId() },
    { timeout: stopTimeout }
  )
})

/** Removes it; `force` stops one that is up in order first, else it fails with the next step. Gives what it was at last. */
export const removeContainer = Effect.fnUntraced(function* (name: string, force: boolean) {
  const client = yield* Client
  const last = yield* force ? stopContainer(name) : client.call(ContainerService.method.getContainer, { name })
  yield* (
    client
      // by force again: somebody may have started it just now
      .call(ContainerService.method.removeContainer, { name, force, requestId: requestId() }, { timeout: "10 minutes" })
      .pipe(
        Effect.mapError((error) => {
          if (force && error.status !== status.notFound) {
            return changed(error, { summary: `${name} is stopped, but not removed: ${error.summary}` })
          }
          return error.exitCode === exitCodes.conflict
            ? withNext(error, `Stop it first, or \`ironwood rm -f ${name}\``)
            : error
        })
      )
  )
  yield* client.call(SandboxService.method.getSandbox, { name }).pipe(
    Effect.flatMap(({ sandbox }) =>
      sandbox === undefined || sandbox.containers.length > 0
        ? Effect.void
        : client.call(SandboxService.method.removeSandbox, { name, requestId: requestId() })
    ),
    // somebody else may have removed or filled it meanwhile: then it is not ours to remove
    orElseStatus(status.notFound, () => Effect.void),
    orElseStatus(status.failedPrecondition, () => Effect.void)
  )
  return last.container ?? create(ContainerSchema, { spec: { name } })
})
