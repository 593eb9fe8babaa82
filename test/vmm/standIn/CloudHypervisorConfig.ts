/** What Cloud Hypervisor says to the configuration of a machine besides its shape (`validate` in `vmm/src/config.rs`). */
import * as Schema from "effect/Schema"
import { MEMORY_REGION, MemoryConfig, VmConfig } from "../../../src/vmm/cloud-hypervisor/Api.ts"

/** The configuration in a snapshot: besides, how much memory was plugged in. */
export const Restored = Schema.fromJsonString(
  Schema.Struct({
    ...VmConfig.fields,
    memory: Schema.Struct({ ...MemoryConfig.fields, hotplugged_size: Schema.optionalKey(Schema.Int) })
  })
)

const isPowerOfTwo = (value: number): boolean => value > 0 && Number.isInteger(Math.log2(value))

/** What is wrong with it. */
export const problemOf = ({ cpus, disks = [], memory, payload }: VmConfig): string | undefined => {
  const ids = disks.map(({ id }) => id)
  const twice = ids.find((id, index) => ids.indexOf(id) !== index)
  const { topology } = cpus
  const places =
    topology === undefined
      ? cpus.max_vcpus
      : topology.threads_per_core * topology.cores_per_die * topology.dies_per_package * topology.packages
  const { hotplug_size = 0, hugepage_size, hugepages = false } = memory
  const wrong: ReadonlyArray<readonly [boolean, string]> = [
    [cpus.boot_vcpus > cpus.max_vcpus, "Max CPUs less than boot CPUs"],
    [places !== cpus.max_vcpus, "Product of CPU topology parts does not match maximum vCPUs"],
    [payload.kernel === undefined && payload.firmware === undefined, "Payload configuration is not bootable"],
    [twice !== undefined, `Identifier ${twice ?? ""} is not unique`],
    [hotplug_size % MEMORY_REGION !== 0, "Invalid size of the virtio-mem region"],
    [hugepage_size !== undefined && !hugepages, "Huge page size specified but huge pages not enabled"],
    [hugepage_size !== undefined && !isPowerOfTwo(hugepage_size), "Huge page size is not power of 2"],
    [
      hugepages && memory.size % (hugepage_size ?? 2 * 1024 ** 2) !== 0,
      "The size of the memory is no multiple of its pages"
    ]
  ]
  return wrong.find(([isWrong]) => isWrong)?.[1]
}

/** The files that it opens, and whether to write to them. */
export const ofMachine = ({
  disks = [],
  payload
}: VmConfig): ReadonlyArray<readonly [path: string, writes: boolean]> => [
  ...[payload.kernel, payload.initramfs, payload.firmware].flatMap((path) =>
    path === undefined ? [] : [[path, false] as const]
  ),
  ...disks.map(({ path, readonly }) => [path, !readonly] as const)
]
