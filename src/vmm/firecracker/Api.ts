/**
 * What of Firecracker's API is used here: bodies of requests and answers, and when each request is allowed.
 *
 * From Firecracker's description of its API (`src/firecracker/swagger/firecracker.yaml`, 1.17.0-dev): each schema names the
 * definition it is. When a request is allowed is from the comments on `VmmAction` in `src/vmm/src/rpc_interface.rs`. Fields that
 * are not sent by this driver are left out: a server that takes nothing else finds a driver that says something that was not
 * meant.
 */
import * as Schema from "effect/Schema"

const mebibytes = Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 2 ** 40 })))

/** `BootSource`. */
export const BootSource = Schema.Struct({
  kernel_image_path: Schema.NonEmptyString,
  initrd_path: Schema.optionalKey(Schema.NonEmptyString),
  boot_args: Schema.optionalKey(Schema.String)
})
export type BootSource = typeof BootSource.Type

/** `MachineConfiguration`; the range of processors is the one of `PUT /machine-config`. */
export const MachineConfiguration = Schema.Struct({
  vcpu_count: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 32 }))),
  mem_size_mib: mebibytes,
  /** Pairs of processors share a core; then their number is 1 or even. */
  smt: Schema.optionalKey(Schema.Boolean),
  /** What its memory is made of (docs/hugepages.md). */
  huge_pages: Schema.optionalKey(Schema.Literals(["None", "2M"]))
})
export type MachineConfiguration = typeof MachineConfiguration.Type

/** Letters, digits and `_`, as `checked_id` in `src/firecracker/src/api_server/parsed_request.rs` has it. */
const Identifier = Schema.String.pipe(Schema.check(Schema.isPattern(/^[A-Za-z0-9_]+$/)))

/** `Drive`, of the kind virtio-block. */
export const Drive = Schema.Struct({
  drive_id: Identifier,
  path_on_host: Schema.NonEmptyString,
  /** Firecracker adds `root=/dev/vda` to the kernel's command line for it: never set here. */
  is_root_device: Schema.Boolean,
  is_read_only: Schema.Boolean,
  /** `Writeback`: a flush of the guest's is one of the host's. */
  cache_type: Schema.Literals(["Unsafe", "Writeback"])
})
export type Drive = typeof Drive.Type

/** `PartialDrive`: the file is opened anew, and its guest told how long it is now. */
export const PartialDrive = Schema.Struct({ drive_id: Identifier, path_on_host: Schema.NonEmptyString })

/** `EntropyDevice`, without its rate limiter. */
export const EntropyDevice = Schema.Struct({})

/** `Balloon`. */
export const Balloon = Schema.Struct({
  amount_mib: Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(0))),
  deflate_on_oom: Schema.Boolean
})
export type Balloon = typeof Balloon.Type

/** `BalloonUpdate`. */
export const BalloonUpdate = Schema.Struct({
  amount_mib: Schema.Int.pipe(Schema.check(Schema.isGreaterThanOrEqualTo(0)))
})

/** `SnapshotCreateParams`: of a machine that stands still; the files must not be there, or are written over. */
export const SnapshotCreate = Schema.Struct({
  snapshot_type: Schema.Literal("Full"),
  snapshot_path: Schema.NonEmptyString,
  mem_file_path: Schema.NonEmptyString
})

/** `SnapshotLoadParams`: before anything else is asked; afterwards the machine stands still. */
export const SnapshotLoad = Schema.Struct({
  snapshot_path: Schema.NonEmptyString,
  mem_backend: Schema.Struct({ backend_path: Schema.NonEmptyString, backend_type: Schema.Literal("File") }),
  resume_vm: Schema.Boolean
})

/** `InstanceActionInfo`. */
export const InstanceAction = Schema.Struct({
  action_type: Schema.Literals(["InstanceStart", "SendCtrlAltDel"])
})

/** `Vm`. */
export const VmStateChange = Schema.Struct({ state: Schema.Literals(["Paused", "Resumed"]) })

/** `InstanceInfo`. */
export const InstanceInfo = Schema.Struct({
  app_name: Schema.String,
  id: Schema.String,
  state: Schema.Literals(["Not started", "Running", "Paused"]),
  vmm_version: Schema.String
})
export type InstanceInfo = typeof InstanceInfo.Type

/** `Error`. */
export const Fault = Schema.Struct({ fault_message: Schema.String })

/** The file of `--config-file`: `FullVmConfiguration`, of which a machine for a trial needs no more. */
export const ConfigFile = Schema.Struct({
  "boot-source": BootSource,
  "machine-config": MachineConfiguration,
  drives: Schema.Array(Drive)
})

/** A request that changes something: all of them answer 204 and no body. */
export interface Request {
  readonly method: "PUT" | "PATCH"
  readonly path: string
  readonly body: unknown
}

/** Every such request with what its body is and when it is allowed: before the machine was started, before anything of it was said, or after. */
export const requests = [
  { method: "PUT", path: /^\/boot-source$/, body: BootSource, when: "before" },
  { method: "PUT", path: /^\/machine-config$/, body: MachineConfiguration, when: "before" },
  { method: "PUT", path: /^\/drives\/([A-Za-z0-9_]+)$/, body: Drive, when: "before" },
  { method: "PUT", path: /^\/entropy$/, body: EntropyDevice, when: "before" },
  { method: "PUT", path: /^\/balloon$/, body: Balloon, when: "before" },
  { method: "PUT", path: /^\/actions$/, body: InstanceAction, when: "by its action" },
  { method: "PUT", path: /^\/snapshot\/load$/, body: SnapshotLoad, when: "first" },
  { method: "PUT", path: /^\/snapshot\/create$/, body: SnapshotCreate, when: "after" },
  { method: "PATCH", path: /^\/drives\/([A-Za-z0-9_]+)$/, body: PartialDrive, when: "after" },
  { method: "PATCH", path: /^\/balloon$/, body: BalloonUpdate, when: "after" },
  { method: "PATCH", path: /^\/vm$/, body: VmStateChange, when: "after" }
] as const
