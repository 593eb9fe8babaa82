/**
 * What of Cloud Hypervisor's API is used here: bodies of requests and answers, and what it says by itself.
 *
 * From its description (`vmm/src/api/openapi/cloud-hypervisor.yaml`, version 0.3.0): each schema names the component it is.
 * Events are those of `docs/event-monitor.md`. Fields that are not sent by this driver are left out, as in `firecracker/Api.ts`.
 */
import * as Schema from "effect/Schema"

/** Below which all paths are (`servers`). */
export const ROOT = "/api/v1"

const atLeast = (minimum: number) => Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(minimum)))

/** `PayloadConfig`: a kernel, or firmware. */
export const PayloadConfig = Schema.Struct({
  firmware: Schema.optionalKey(Schema.NonEmptyString),
  kernel: Schema.optionalKey(Schema.NonEmptyString),
  cmdline: Schema.optionalKey(Schema.String),
  initramfs: Schema.optionalKey(Schema.NonEmptyString)
})
export type PayloadConfig = typeof PayloadConfig.Type

/** A number of processors: a `u8` in `vmm/src/vm_config.rs`. */
const processors = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 255 })))

/** `CpuTopology`; the product is the most processors that there can be. */
export const CpuTopology = Schema.Struct({
  threads_per_core: processors,
  cores_per_die: processors,
  dies_per_package: processors,
  packages: processors
})

/** `CpusConfig`. */
export const CpusConfig = Schema.Struct({
  boot_vcpus: processors,
  max_vcpus: processors,
  topology: Schema.optionalKey(CpuTopology)
})

/** `MemoryConfig`; bytes. */
export const MemoryConfig = Schema.Struct({
  size: atLeast(1),
  /** How much more it can get while it runs, in steps of {@link MEMORY_BLOCK} bytes. */
  hotplug_size: Schema.optionalKey(atLeast(0)),
  /** `HotplugMethod`, of which the one is used that also gives memory back. */
  hotplug_method: Schema.optionalKey(Schema.Literal("VirtioMem")),
  hugepages: Schema.optionalKey(Schema.Boolean),
  hugepage_size: Schema.optionalKey(atLeast(1))
})

/** Of these sizes is the region that memory is plugged into (docs/memory.md), and what is plugged there. */
export const MEMORY_REGION = 128 * 1024 ** 2
export const MEMORY_BLOCK = 2 * 1024 ** 2

/** `DiskConfig`. */
export const DiskConfig = Schema.Struct({
  path: Schema.NonEmptyString,
  readonly: Schema.Boolean,
  id: Schema.NonEmptyString,
  serial: Schema.optionalKey(Schema.String),
  /** `ImageType`: said, so that nothing is made of what a guest writes at the start of its disk. */
  image_type: Schema.Literals(["Raw", "Qcow2"]),
  backing_files: Schema.Boolean
})
export type DiskConfig = typeof DiskConfig.Type

/** `RngConfig`. */
export const RngConfig = Schema.Struct({ src: Schema.NonEmptyString })

/** `BalloonConfig`; bytes. */
export const BalloonConfig = Schema.Struct({
  size: atLeast(0),
  deflate_on_oom: Schema.Boolean,
  free_page_reporting: Schema.Boolean
})

/** `SerialConfig` and `ConsoleConfig`, of the two `ConsoleMode`s that are used. */
export const ConsoleConfig = Schema.Struct({ mode: Schema.Literals(["Off", "Tty"]) })

/** `LandlockConfig`: what it may open although it had no name of it when the machine was made. */
export const LandlockConfig = Schema.Struct({ path: Schema.NonEmptyString, access: Schema.Literal("rw") })

/** `VmConfig`. */
export const VmConfig = Schema.Struct({
  cpus: CpusConfig,
  memory: MemoryConfig,
  payload: PayloadConfig,
  disks: Schema.optionalKey(Schema.Array(DiskConfig)),
  rng: RngConfig,
  balloon: Schema.optionalKey(BalloonConfig),
  serial: ConsoleConfig,
  console: ConsoleConfig,
  pvpanic: Schema.Boolean,
  landlock_enable: Schema.optionalKey(Schema.Literal(true)),
  landlock_rules: Schema.optionalKey(Schema.Array(LandlockConfig))
})
export type VmConfig = typeof VmConfig.Type

/** A field that it leaves out, or has nothing in. */
const maybe = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

/** `VmInfo`, of which only this is looked at. `Created`: not booted yet, or not any more. */
export const VmInfo = Schema.Struct({
  state: Schema.Literals(["Created", "Running", "Shutdown", "Paused", "BreakPoint"]),
  config: Schema.Struct({
    cpus: Schema.Struct({ boot_vcpus: Schema.Int, max_vcpus: Schema.Int }),
    memory: Schema.Struct({ size: Schema.Int, hotplug_size: maybe(Schema.Int), hotplugged_size: maybe(Schema.Int) }),
    disks: maybe(Schema.Array(Schema.Struct({ id: maybe(Schema.String) }))),
    balloon: maybe(Schema.Struct({ size: Schema.Int }))
  }),
  /** What it has, by its name, until the guest has let go of it. */
  device_tree: maybe(Schema.Record(Schema.String, Schema.Unknown))
})
export type VmInfo = typeof VmInfo.Type

/** `VmRemoveDevice`. */
export const VmRemoveDevice = Schema.Struct({ id: Schema.NonEmptyString })

/** `VmResize`: what is said changes; bytes. */
export const VmResize = Schema.Struct({
  desired_vcpus: Schema.optionalKey(processors),
  desired_ram: Schema.optionalKey(atLeast(1)),
  desired_balloon: Schema.optionalKey(atLeast(0))
})

/** `VmSnapshotConfig`, and `RestoreConfig` of a machine that stands still afterwards: `file://` and a directory. */
export const VmSnapshotConfig = Schema.Struct({ destination_url: Schema.NonEmptyString })
export const RestoreConfig = Schema.Struct({ source_url: Schema.NonEmptyString })

/** The files in such a directory (docs/snapshot_restore.md). */
export const snapshotFiles = { config: "config.json", state: "state.json", memory: "memory-ranges" } as const

/** `VmResizeDisk`. */
export const VmResizeDisk = Schema.Struct({ id: Schema.NonEmptyString, desired_size: atLeast(1) })

/** `VmmPingResponse`. */
export const VmmPing = Schema.Struct({ version: Schema.String })

/** The body of an answer that says no: the chain of errors, the outermost first (`error_response` in `vmm/src/api/http/mod.rs`). */
export const Faults = Schema.Array(Schema.String)

/** One record of the event monitor. */
export const MonitorEvent = Schema.Struct({
  source: Schema.String,
  event: Schema.String,
  properties: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.String)))
})
export type MonitorEvent = typeof MonitorEvent.Type
