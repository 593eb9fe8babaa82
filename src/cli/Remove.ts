/**
 * Removing a container together with what was made for it alone: a sandbox of its own name that has nobody else in it.
 */
import * as Effect from "effect/Effect"
import { ContainerService } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { SandboxService } from "../../proto/generated/ironwood/v1/sandbox_pb.ts"
import { Client, orElseStatus, status } from "./Client.ts"
import { exitCodes } from "./ExitCode.ts"
import { withNext } from "./Failure.ts"
import { requestId } from "./RequestId.ts"

/** Removes it; `force` stops it first. Fails with the next step when it is up. */
export const removeContainer = Effect.fnUntraced(function* (name: string, force: boolean) {
  const client = yield* Client
  yield* client
    .call(ContainerService.method.removeContainer, { name, force, requestId: requestId() }, { timeout: "10 minutes" })
    .pipe(
      Effect.mapError((error) =>
        error.exitCode === exitCodes.conflict && !force
          ? withNext(error, `Stop it first, or \`ironwood rm -f ${name}\``)
          : error
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
})
