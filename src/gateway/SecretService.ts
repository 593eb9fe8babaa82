/**
 * `ironwood.v1.SecretService`: secrets over gRPC.
 *
 * Trap: no request ids here: what a client repeats changes nothing, and a memory of requests would be one of secrets.
 */
import * as Effect from "effect/Effect"
import * as Proto from "../../proto/generated/ironwood/v1/secret_pb.ts"
import * as Schema from "effect/Schema"
import { Containers } from "../runtime/Containers.ts"
import { mostBytes, type Secret } from "../runtime/Secrets.ts"
import { WorkloadName } from "../storage/Workload.ts"
import { service, unary } from "./EffectGrpc.ts"
import { decoder } from "./Request.ts"
import { timestamp, uint32 } from "./Time.ts"

const decode = decoder(
  "",
  Proto.PutSecretRequestSchema,
  Schema.Struct({
    name: WorkloadName,
    value: Schema.Uint8Array.pipe(
      Schema.check(
        Schema.makeFilter((value: Uint8Array) =>
          value.length === 0 || value.length > mostBytes ? `must have 1 to ${mostBytes} bytes` : undefined
        )
      )
    )
  })
)

const secretToProto = ({ at, bytes, name }: Secret) => ({ name, sizeBytes: uint32(bytes), updateTime: timestamp(at) })

export const makeSecretService = () => {
  const { method } = Proto.SecretService
  return service(Proto.SecretService, {
    putSecret: unary(
      method.putSecret,
      Effect.fn("SecretService.putSecret")(function* (request) {
        const { name, value } = yield* decode({ name: request.name, value: request.value })
        return { secret: secretToProto(yield* (yield* Containers).putSecret(name, value)) }
      })
    ),
    listSecrets: unary(
      method.listSecrets,
      Effect.fn("SecretService.listSecrets")(function* () {
        return { secrets: (yield* (yield* Containers).listSecrets).map(secretToProto) }
      })
    ),
    removeSecret: unary(
      method.removeSecret,
      Effect.fn("SecretService.removeSecret")(function* ({ name }) {
        yield* (yield* Containers).removeSecret(name)
        return {}
      })
    )
  })
}
