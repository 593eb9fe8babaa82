/** Virtual machines between the domain and the wire: pure functions, out (`…ToProto`) and in (`specFromProto`). */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import { DesiredState } from "../../proto/generated/ironwood/v1/container_pb.ts"
import * as Proto from "../../proto/generated/ironwood/v1/vm_pb.ts"
import type { ExitView } from "../actor/ExitView.ts"
import type { VmState } from "../vmm/Lifecycle.ts"
import type { VmSpecInvalid } from "../vmm/VmError.ts"
import { DiskSpec, macAt, NicSpec, VmSpec } from "../vmm/VmSpec.ts"
import type { Vm } from "../vmm/Vms.ts"
import * as Policy from "./Policy.ts"
import { decoder, fieldPath, given, invalid, InvalidRequest, wordOf } from "./Request.ts"
import { diskShapeToProto, encodedDiskShape, encodedShape, shapeToProto } from "./VmShapeMessages.ts"
import { millisOf, timestamp, uint32, wireDuration } from "./Time.ts"

const states = {
  unregistered: Proto.VmState.CREATED,
  waiting: Proto.VmState.CREATED,
  starting: Proto.VmState.STARTING,
  running: Proto.VmState.RUNNING,
  paused: Proto.VmState.PAUSED,
  stalled: Proto.VmState.STALLED,
  "backing-off": Proto.VmState.BACKING_OFF,
  stopping: Proto.VmState.STOPPING,
  stopped: Proto.VmState.STOPPED,
  parked: Proto.VmState.PARKED,
  finished: Proto.VmState.FINISHED,
  failed: Proto.VmState.FAILED
} as const satisfies Record<VmState, Proto.VmState>

const chipsets = {
  q35: Proto.VmChipset.Q35,
  microvm: Proto.VmChipset.MICROVM
} as const satisfies Record<VmSpec["chipset"], Proto.VmChipset>

const hypervisors = {
  auto: Proto.VmHypervisor.UNSPECIFIED,
  qemu: Proto.VmHypervisor.QEMU,
  "cloud-hypervisor": Proto.VmHypervisor.CLOUD_HYPERVISOR,
  firecracker: Proto.VmHypervisor.FIRECRACKER
} as const satisfies Record<VmSpec["hypervisor"], Proto.VmHypervisor>

const firmwares = {
  bios: Proto.VmFirmware.BIOS,
  uefi: Proto.VmFirmware.UEFI
} as const satisfies Record<VmSpec["firmware"], Proto.VmFirmware>

const reboots = {
  reset: Proto.VmReboot.RESET,
  end: Proto.VmReboot.END
} as const satisfies Record<VmSpec["onReboot"], Proto.VmReboot>

const formats = {
  raw: Proto.VmDiskFormat.RAW,
  qcow2: Proto.VmDiskFormat.QCOW2
} as const satisfies Record<VmSpec["disks"][number]["format"], Proto.VmDiskFormat>

/** A machine's spec as it goes over the wire. */
export const specToProto = (spec: VmSpec) =>
  ({
    name: spec.name,
    hypervisor: hypervisors[spec.hypervisor],
    chipset: chipsets[spec.chipset],
    cpus: spec.cpus,
    memoryBytes: BigInt(spec.memoryBytes),
    hostMemoryBytes: spec.hostMemoryBytes === undefined ? undefined : BigInt(spec.hostMemoryBytes),
    kernel: spec.kernel ?? "",
    initrd: spec.initrd ?? "",
    commandLine: spec.commandLine,
    firmware: firmwares[spec.firmware],
    secureBoot: spec.secureBoot,
    firmwareVariables: spec.firmwareVariables ?? "",
    disks: spec.disks.map((disk) => ({
      path: disk.path,
      image: disk.image ?? "",
      volume: disk.volume ?? "",
      format: formats[disk.format],
      readOnly: disk.readOnly,
      serial: disk.serial ?? "",
      ...diskShapeToProto(disk)
    })),
    nics: spec.nics.map(({ forwards, hostAccess }, index) => ({
      mac: macAt(spec, index),
      hostAccess,
      forwards: forwards.map((forward) => ({ ...forward }))
    })),
    watchdog: spec.watchdog,
    balloon: spec.balloon,
    ...shapeToProto(spec),
    onReboot: reboots[spec.onReboot],
    stopGracePeriod: wireDuration(spec.stopGracePeriod),
    restart: Policy.toProto(spec.restart),
    labels: { ...spec.labels },
    console: { maxBytes: BigInt(spec.console.maxBytes), maxFiles: spec.console.maxFiles }
  }) satisfies MessageInitShape<typeof Proto.VmSpecSchema>

const exitToProto = (exit: ExitView): MessageInitShape<typeof Proto.VmExitSchema> => ({
  time: timestamp(exit.at),
  tag: exit.class === "normal" ? "" : exit.tag,
  message: exit.class === "normal" ? "its guest powered off" : exit.message
})

/** A machine as it goes over the wire. */
export const vmToProto = (vm: Vm): MessageInitShape<typeof Proto.VmSchema> => ({
  spec: specToProto(vm.spec),
  uid: vm.uid,
  generation: BigInt(vm.generation),
  createTime: timestamp(vm.createdAt),
  actorPath: vm.path,
  status: {
    state: states[vm.state],
    desired: vm.desired === "running" ? DesiredState.RUNNING : DesiredState.STOPPED,
    since: timestamp(vm.since),
    pid: vm.pid,
    startTime: vm.pid === undefined ? undefined : timestamp(vm.startedAt),
    incarnation: uint32(vm.incarnation),
    restarts: uint32(vm.restarts),
    reboots: uint32(vm.reboots),
    consecutiveFailures: uint32(vm.consecutiveFailures),
    lastExit: vm.lastExit && exitToProto(vm.lastExit),
    nextAttemptTime: timestamp(vm.nextAttemptAt),
    degraded: vm.node?.annotations["degraded"] ?? "",
    hypervisor: vm.hypervisor ?? ""
  }
})

const decode = decoder("spec", Proto.VmSpecSchema, VmSpec)

const size = (bytes: bigint | undefined) => (bytes === undefined ? undefined : Number(bytes))

export const forwardToDomain = ({ guestPort, hostAddress, hostPort, protocol }: Proto.VmForward) =>
  given({ protocol: protocol || undefined, hostAddress: hostAddress || undefined, hostPort, guestPort })

const encodedDisk = (disk: Proto.VmDisk) =>
  given({
    path: disk.path,
    image: disk.image || undefined,
    volume: disk.volume || undefined,
    format: wordOf(formats, disk.format),
    readOnly: disk.readOnly,
    serial: disk.serial || undefined,
    ...encodedDiskShape(disk)
  })

const encodedNic = ({ forwards, hostAccess, mac }: Proto.VmNic) =>
  given({
    mac: mac || undefined,
    hostAccess,
    forwards: forwards.map(forwardToDomain)
  })

const decodeDisk = decoder("disk", Proto.VmDiskSchema, DiskSpec)
const decodeNic = decoder("nic", Proto.VmNicSchema, NicSpec)

/** The disk in the field `disk` of a request. */
export const diskFromProto = (disk: Proto.VmDisk | undefined) =>
  disk === undefined ? Effect.fail(invalid("disk", "must be set")) : decodeDisk(encodedDisk(disk))

/** The card in the field `nic` of a request; none is one of the plainest kind. */
export const nicFromProto = (nic: Proto.VmNic | undefined) => decodeNic(nic === undefined ? {} : encodedNic(nic))

const encodedOf = (spec: Proto.VmSpec) =>
  given({
    name: spec.name,
    hypervisor: wordOf(hypervisors, spec.hypervisor),
    chipset: wordOf(chipsets, spec.chipset),
    cpus: spec.cpus,
    memoryBytes: size(spec.memoryBytes),
    hostMemoryBytes: size(spec.hostMemoryBytes),
    kernel: spec.kernel || undefined,
    initrd: spec.initrd || undefined,
    commandLine: spec.commandLine,
    firmware: wordOf(firmwares, spec.firmware),
    secureBoot: spec.secureBoot,
    firmwareVariables: spec.firmwareVariables || undefined,
    disks: spec.disks.map(encodedDisk),
    nics: spec.nics.map(encodedNic),
    watchdog: spec.watchdog,
    balloon: spec.balloon,
    ...encodedShape(spec),
    onReboot: wordOf(reboots, spec.onReboot),
    stopGracePeriod: spec.stopGracePeriod && millisOf(spec.stopGracePeriod),
    restart: Policy.encodedOf(spec.restart),
    labels: spec.labels,
    console: given({ maxBytes: size(spec.console?.maxBytes), maxFiles: spec.console?.maxFiles })
  })

/** The machine's spec in the field `spec` of a request. */
export const specFromProto = (spec: Proto.VmSpec | undefined) =>
  spec === undefined
    ? Effect.fail(invalid("spec", "must be set"))
    : Effect.andThen(Policy.checkPreset("spec.restart", spec.restart), decode(encodedOf(spec)))

/** What the domain finds wrong with a spec that could be read, as fields of the request: of `message`, below `prefix`. */
export const invalidSpec = (
  { problems }: VmSpecInvalid,
  prefix = "spec",
  message: DescMessage = Proto.VmSpecSchema
): InvalidRequest =>
  new InvalidRequest({
    violations: problems.map(({ field, problem }) => {
      const path = field.split(/[.[\]]+/).filter((part) => part !== "")
      return { field: fieldPath(prefix, message, path), description: problem }
    })
  })
