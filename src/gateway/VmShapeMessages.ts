/** The shape of a virtual machine between the domain and the wire: processors, memory, what its disks may do. See `VmMessages.ts`. */
import * as Schema from "effect/Schema"
import * as Proto from "../../proto/generated/ironwood/v1/vm_pb.ts"
import type { DiskLimits } from "../vmm/Shape.ts"
import { DiskSpec, VmSpec } from "../vmm/VmSpec.ts"
import { decoder, given, wordOf } from "./Request.ts"

const hugepages = {
  none: Proto.VmHugepages.VM_HUGEPAGES_NONE,
  "2MiB": Proto.VmHugepages.VM_HUGEPAGES_2MIB,
  "1GiB": Proto.VmHugepages.VM_HUGEPAGES_1GIB
} as const satisfies Record<VmSpec["hugepages"], Proto.VmHugepages>

const size = (bytes: bigint | undefined) => (bytes === undefined ? undefined : Number(bytes))
const wide = (bytes: number | undefined) => (bytes === undefined ? undefined : BigInt(bytes))

const limitsToProto = ({ bytes, operations }: DiskLimits) => ({ operations, bytes: wide(bytes) })
const encodedLimits = (limits: Proto.VmDiskLimits | undefined) =>
  limits && given({ operations: limits.operations, bytes: size(limits.bytes) })

export const diskShapeToProto = ({ limits, sizeBytes }: DiskSpec) => ({
  sizeBytes: wide(sizeBytes),
  limits: limits && limitsToProto(limits)
})

/** The fields of a disk, for its decoder. */
export const encodedDiskShape = ({ limits, sizeBytes }: Proto.VmDisk) => ({
  sizeBytes: size(sizeBytes),
  limits: encodedLimits(limits)
})

export const shapeToProto = (spec: VmSpec) => ({
  maxCpus: spec.maxCpus,
  maxMemoryBytes: wide(spec.maxMemoryBytes),
  topology: spec.topology,
  hugepages: hugepages[spec.hugepages],
  pciDevices: [...spec.pciDevices],
  balloonBytes: wide(spec.balloonBytes),
  cloudInit: spec.cloudInit && {
    userData: spec.cloudInit.userData,
    metaData: spec.cloudInit.metaData ?? "",
    networkConfig: spec.cloudInit.networkConfig ?? ""
  },
  ignition: spec.ignition ?? ""
})

/** The fields of a spec, for its decoder. */
export const encodedShape = ({
  balloonBytes,
  maxCpus,
  maxMemoryBytes,
  pciDevices,
  topology,
  ...spec
}: Proto.VmSpec) => ({
  maxCpus,
  maxMemoryBytes: size(maxMemoryBytes),
  topology: topology && {
    sockets: topology.sockets,
    cores: topology.cores,
    threads: topology.threads,
    numaNodes: topology.numaNodes || 1
  },
  hugepages: wordOf(hugepages, spec.hugepages),
  pciDevices,
  balloonBytes: size(balloonBytes),
  cloudInit:
    spec.cloudInit &&
    given({
      userData: spec.cloudInit.userData,
      metaData: spec.cloudInit.metaData || undefined,
      networkConfig: spec.cloudInit.networkConfig || undefined
    }),
  ignition: spec.ignition || undefined
})

const { balloonBytes, cpus, maxCpus, maxMemoryBytes, memoryBytes } = VmSpec.fields
const { limits, sizeBytes } = DiskSpec.fields
/** Which disk it is, in one of the words for it (`DiskNames`). */
const path = Schema.String.pipe(
  Schema.check(Schema.isPattern(/^[^\0]{1,4095}$/, { expected: "the path, volume or serial of a disk of it" }))
)

const Measure = Schema.Struct({
  cpus: Schema.optionalKey(Schema.toType(cpus)),
  memoryBytes: Schema.optionalKey(Schema.toType(memoryBytes)),
  balloonBytes,
  maxCpus,
  maxMemoryBytes,
  disks: Schema.Array(Schema.Struct({ path, sizeBytes, limits }))
})

const decodeMeasure = decoder("", Proto.ResizeVmRequestSchema, Measure)

export const measureFromProto = (request: Proto.ResizeVmRequest) =>
  decodeMeasure(
    given({
      cpus: request.cpus,
      memoryBytes: size(request.memoryBytes),
      balloonBytes: size(request.balloonBytes),
      maxCpus: request.maxCpus,
      maxMemoryBytes: size(request.maxMemoryBytes),
      disks: request.disks.map((disk) =>
        given({ path: disk.path, sizeBytes: size(disk.sizeBytes), limits: encodedLimits(disk.limits) })
      )
    })
  )
