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

/** `CpusConfig`; a `u8` in `vmm/src/vm_config.rs`. */
export const CpusConfig = Schema.Struct({
  boot_vcpus: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 255 }))),
  max_vcpus: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 255 })))
})

/** `MemoryConfig`; bytes. */
export const MemoryConfig = Schema.Struct({ size: atLeast(1) })

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
  landlock_enable: Schema.optionalKey(Schema.Literal(true))
})
export type VmConfig = typeof VmConfig.Type

/** `VmInfo`, of which only the state is looked at. `Created`: not booted yet, or not any more. */
export const VmInfo = Schema.Struct({
  state: Schema.Literals(["Created", "Running", "Shutdown", "Paused", "BreakPoint"])
})
export type VmInfo = typeof VmInfo.Type

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
