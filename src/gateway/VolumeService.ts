/** `ironwood.v1.VolumeService`: volumes over gRPC. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Proto from "../../proto/generated/ironwood/v1/volume_pb.ts"
import { type Volume, Volumes, VolumeSpec } from "../storage/Volumes.ts"
import { service, unary } from "./EffectGrpc.ts"
import { hasLabels } from "./Page.ts"
import { decoder, given, invalid } from "./Request.ts"
import { unaryOnce } from "./RequestIds.ts"
import { timestamp } from "./Time.ts"

/** A volume as it goes over the wire. */
export const volumeToProto = (volume: Volume): MessageInitShape<typeof Proto.VolumeSchema> => ({
  spec: {
    name: volume.spec.name,
    labels: { ...volume.spec.labels },
    ...(volume.spec.sizeBytes === undefined ? {} : { sizeBytes: BigInt(volume.spec.sizeBytes) })
  },
  uid: volume.uid,
  createTime: timestamp(volume.createdAt),
  path: volume.path,
  filled: volume.filled,
  users: [...volume.users]
})

const decode = decoder("spec", Proto.VolumeSpecSchema, VolumeSpec)

/** The volume's spec in the field `spec` of a request. */
const specFromProto = (spec: Proto.VolumeSpec | undefined) =>
  spec === undefined
    ? Effect.fail(invalid("spec", "must be set"))
    : decode(
        given({
          name: spec.name,
          labels: spec.labels,
          sizeBytes: spec.sizeBytes === undefined ? undefined : Number(spec.sizeBytes)
        })
      )

const volume = (found: Volume) => ({ volume: volumeToProto(found) })

/** The service. One value remembers request ids for as long as it lives: make it once per brain. */
export const makeVolumeService = () => {
  const { method } = Proto.VolumeService
  return service(Proto.VolumeService, {
    createVolume: unaryOnce(
      method.createVolume,
      Effect.fn("VolumeService.createVolume")(function* (request) {
        const spec = yield* specFromProto(request.spec)
        return volume(yield* (yield* Volumes).create(spec))
      })
    ),
    getVolume: unary(
      method.getVolume,
      Effect.fn("VolumeService.getVolume")(function* ({ name }) {
        return volume(yield* (yield* Volumes).get(name))
      })
    ),
    listVolumes: unary(
      method.listVolumes,
      Effect.fn("VolumeService.listVolumes")(function* ({ labels }) {
        const all = yield* (yield* Volumes).list
        return { volumes: all.filter(({ spec }) => hasLabels(spec.labels, labels)).map(volumeToProto) }
      })
    ),
    removeVolume: unaryOnce(
      method.removeVolume,
      Effect.fn("VolumeService.removeVolume")(function* ({ name }) {
        yield* (yield* Volumes).remove(name)
        return {}
      })
    )
  })
}
