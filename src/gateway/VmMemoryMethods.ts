/** The methods of `ironwood.v1.VmService` that are about memory: snapshots, restores, clones, live migration. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Proto from "../../proto/generated/ironwood/v1/vm_pb.ts"
import { WorkloadName } from "../storage/Workload.ts"
import type { SnapshotUnusable } from "../vmm/SnapshotError.ts"
import { bytesOf, type SnapshotManifest } from "../vmm/SnapshotManifest.ts"
import { VmMoves, VmRestores, VmSnapshots } from "../vmm/VmSnapshots.ts"
import { NicSpec } from "../vmm/VmSpec.ts"
import { unary } from "./EffectGrpc.ts"
import { pageBy } from "./Page.ts"
import { decoder, given } from "./Request.ts"
import { unaryOnce } from "./RequestIds.ts"
import { timestamp, wireDuration } from "./Time.ts"
import { forwardToDomain, invalidSpec, specToProto, vmToProto } from "./VmMessages.ts"

const snapshotToProto = (found: SnapshotManifest): MessageInitShape<typeof Proto.VmSnapshotSchema> => ({
  vm: found.name,
  name: found.snapshot,
  createTime: timestamp(found.createdAt),
  spec: specToProto(found.spec),
  paused: found.paused,
  stoodStill: wireDuration(Duration.millis(found.stoodStill)),
  sizeBytes: BigInt(bytesOf(found)),
  model: found.hypervisor.model.type,
  hypervisor: `${found.hypervisor.name} ${found.hypervisor.version}`
})

const decodeCreate = decoder("", Proto.CreateVmSnapshotRequestSchema, Schema.Struct({ name: WorkloadName }))
const decodeClone = decoder(
  "",
  Proto.CloneVmRequestSchema,
  Schema.Struct({ clone: WorkloadName, forwards: NicSpec.fields.forwards })
)

/** One of a list: of one that cannot be read, why. */
const listedToProto = (one: SnapshotManifest | SnapshotUnusable): MessageInitShape<typeof Proto.VmSnapshotSchema> =>
  "problem" in one ? { vm: one.name, name: one.snapshot, problem: one.problem } : snapshotToProto(one)

export const memoryMethods = () => {
  const { method } = Proto.VmService
  return {
    createVmSnapshot: unaryOnce(
      method.createVmSnapshot,
      Effect.fn("VmService.createVmSnapshot")(function* ({ name, vm }) {
        const decoded = yield* decodeCreate({ name })
        return { snapshot: snapshotToProto(yield* (yield* VmSnapshots).create(vm, decoded.name)) }
      })
    ),
    listVmSnapshots: unary(
      method.listVmSnapshots,
      Effect.fn("VmService.listVmSnapshots")(function* (request) {
        const { vm } = request
        const found = yield* (yield* VmSnapshots).list(vm === "" ? undefined : vm)
        const { nextPageToken, page } = yield* pageBy("snapshots", { vm }, request, found, {
          schema: Proto.VmSnapshotSchema,
          toProto: listedToProto,
          key: ({ name, snapshot }) => `${name}/${snapshot}`
        })
        return { snapshots: page, nextPageToken }
      })
    ),
    getVmSnapshot: unary(
      method.getVmSnapshot,
      Effect.fn("VmService.getVmSnapshot")(function* ({ name, vm }) {
        return { snapshot: snapshotToProto(yield* (yield* VmSnapshots).get(vm, name)) }
      })
    ),
    removeVmSnapshot: unaryOnce(
      method.removeVmSnapshot,
      Effect.fn("VmService.removeVmSnapshot")(function* ({ name, vm }) {
        yield* (yield* VmSnapshots).remove(vm, name)
        return {}
      })
    ),
    restoreVm: unaryOnce(
      method.restoreVm,
      Effect.fn("VmService.restoreVm")(function* ({ name, snapshot }) {
        return { vm: vmToProto(yield* (yield* VmRestores).restore(name, snapshot)) }
      })
    ),
    cloneVm: unaryOnce(
      method.cloneVm,
      Effect.fn("VmService.cloneVm")(function* ({ clone, cold, forwards, name, snapshot }) {
        const decoded = yield* decodeClone(given({ clone, forwards: forwards.map(forwardToDomain) }))
        const made = (yield* VmRestores).clone(name, snapshot, decoded.clone, { cold, forwards: decoded.forwards })
        return {
          vm: vmToProto(yield* Effect.catchTag(made, "VmSpecInvalid", (error) => Effect.fail(invalidSpec(error))))
        }
      })
    ),
    migrateVm: unaryOnce(
      method.migrateVm,
      Effect.fn("VmService.migrateVm")(function* ({ name }) {
        const { stoodStill, vm } = yield* (yield* VmMoves).migrate(name)
        return { vm: vmToProto(vm), stoodStill: wireDuration(Duration.millis(stoodStill)) }
      })
    )
  }
}
