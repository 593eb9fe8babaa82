/**
 * Whether the API answers at its own door and says that it is whole: asked as a client asks, over the unix socket, so that
 * nothing between is taken on trust. For a brain that has to prove itself.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { Client, credentials, Metadata } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import {
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus as Serving,
  HealthCheckResponseSchema
} from "../../proto/generated/grpc/health/v1/health_pb.ts"

const patienceMillis = 5_000

/** Never fails: who does not answer is not healthy. */
export const answersAt = (socketPath: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const client = new Client(`unix:${socketPath}`, credentials.createInsecure())
    client.makeUnaryRequest(
      `/${Health.typeName}/${Health.method.check.name}`,
      (request: Uint8Array) => Buffer.from(request),
      (bytes) => fromBinary(HealthCheckResponseSchema, bytes),
      toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, {})),
      new Metadata(),
      { deadline: Date.now() + patienceMillis },
      (error, answer) => {
        client.close()
        resume(Effect.succeed(error === null && answer?.status === Serving.SERVING))
      }
    )
    return Effect.sync(() => client.close())
  })
