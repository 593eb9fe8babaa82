/**
 * `Vms`: what can be asked for and said about virtual machines. The gateway's only door to this folder.
 *
 * Every call that changes something commits the desired state first (`State`), then asks the supervision tree; after a crash at any
 * point the actors follow what is committed. All calls are idempotent by name. Layer: `VmsLive.ts`.
 *
 * Traps:
 * - What is wrong with the *request* is told at once and nothing is touched: fields, files that are not what they should be, a disk
 *   that another machine writes to, what the hypervisor cannot do, a host without hypervisor. What goes wrong later follows the
 *   restart policy and shows in the tree.
 * - A machine's `state` is that of its actor; `desired` is what a person wants. They differ while one follows the other.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type { ActorPath } from "../actor/ActorPath.ts"
import type { ExitView } from "../actor/ExitView.ts"
import type { RestartPolicy } from "../actor/RestartPolicy.ts"
import type { TreeNode } from "../actor/Tree.ts"
import type { LogEntry } from "../storage/logs/LogEntry.ts"
import type { LogOptions } from "../storage/logs/LogRetention.ts"
import type { StateFailure, StateValueInvalid } from "../storage/StateErrors.ts"
import type { Process } from "../taproot/Processes.ts"
import type { HypervisorMissing } from "./Hypervisor.ts"
import type { Desired, VmState } from "./Lifecycle.ts"
import type {
  ConsoleUnreadable,
  VmAlreadyExists,
  VmControlFailed,
  VmDeviceKept,
  VmDeviceMissing,
  VmNotFound,
  VmSpecInvalid,
  VmWrongState
} from "./VmError.ts"
import type { Measure } from "./VmResize.ts"
import type { VmHasSnapshots } from "./SnapshotError.ts"
import type { DiskSpec, NicSpec, VmSpec } from "./VmSpec.ts"

/** A virtual machine as it is wanted and as it is. Times are milliseconds since 1970. */
export interface Vm {
  readonly name: string
  /** Made at creation; a machine removed and created again under its name has another. */
  readonly uid: string
  /** Of the desired state: 1 at creation, one more with every change. */
  readonly generation: number
  readonly createdAt: number
  /** As created, with later changes of policy. */
  readonly spec: VmSpec
  /** Its actor's place in the tree. */
  readonly path: ActorPath
  readonly desired: Desired
  readonly state: VmState
  /** In this state since, as far as this brain has seen it. */
  readonly since: number | undefined
  /** Its hypervisor's process, while it runs. */
  readonly pid: number | undefined
  /** What made its current or last life, as far as this brain has seen it. */
  readonly hypervisor: string | undefined
  /** Number of its current or last life, from 1. */
  readonly incarnation: number
  readonly restarts: number
  /** Reboots of the guest in this life that this brain has seen. */
  readonly reboots: number
  readonly consecutiveFailures: number
  readonly startedAt: number | undefined
  readonly lastExit: ExitView | undefined
  readonly nextAttemptAt: number | undefined
  /** All that the tree knows; undefined while `state` is `unregistered`. */
  readonly node: TreeNode | undefined
}

export interface CreateOptions {
  /** False: only make it known, as if stopped by a person. Default true. */
  readonly start?: boolean
  /** Answer once its hypervisor runs or its first start has failed (see `state`). Default false. */
  readonly wait?: boolean
}

/** What any call that reads or writes the desired state can fail with. */
export type StateError = StateFailure | StateValueInvalid

export type CreateError = VmAlreadyExists | VmSpecInvalid | HypervisorMissing | StateError

/** What a call that changes the disks or cards of a machine can fail with. */
export type DeviceError =
  | VmNotFound
  | VmWrongState
  | VmSpecInvalid
  | VmControlFailed
  | VmDeviceMissing
  | VmDeviceKept
  | StateError

export class Vms extends Context.Service<
  Vms,
  {
    /** Idempotent: the same spec again answers with the machine that is there. */
    readonly create: (spec: VmSpec, options?: CreateOptions) => Effect.Effect<Vm, CreateError>
    /** What `create` would say, without doing it: the machine that is there, or none. */
    readonly validate: (spec: VmSpec) => Effect.Effect<Option.Option<Vm>, CreateError>
    /** By name. */
    readonly list: Effect.Effect<ReadonlyArray<Vm>, StateError>
    readonly get: (name: string) => Effect.Effect<Vm, VmNotFound | StateError>
    /** Wanted: running. Answers when its hypervisor runs or a start has failed (see `state`); starting what runs is fine. */
    readonly start: (name: string) => Effect.Effect<Vm, VmNotFound | StateError>
    /** Wanted: stopped. Power button, so long to wait (default: as its spec says), the end of its hypervisor; answers when it has ended. */
    readonly stop: (name: string, grace?: Duration.Duration) => Effect.Effect<Vm, VmNotFound | StateError>
    readonly reset: (name: string) => Effect.Effect<Vm, VmNotFound | VmWrongState | VmControlFailed | StateError>
    /** Fine when it is paused. */
    readonly pause: (name: string) => Effect.Effect<Vm, VmNotFound | VmWrongState | VmControlFailed | StateError>
    /** Fine when it runs. */
    readonly resume: (name: string) => Effect.Effect<Vm, VmNotFound | VmWrongState | VmControlFailed | StateError>
    /**
     * Forgets it and its console; its disks stay. One that runs, or has snapshots, only with `force`: it is killed without grace, and
     * they go with it.
     */
    readonly remove: (
      name: string,
      options?: { readonly force?: boolean }
    ) => Effect.Effect<void, VmNotFound | VmWrongState | VmHasSnapshots | StateError>
    /** Effective from its next end on; remembered. */
    readonly setPolicy: (name: string, policy: RestartPolicy) => Effect.Effect<Vm, VmNotFound | StateError>
    /** Plugs a disk in, and remembers it; into one that is down at its next start. The same again is fine. */
    readonly attachDisk: (name: string, disk: DiskSpec) => Effect.Effect<Vm, DeviceError>
    /**
     * Takes a disk out, once its guest has let go of it: within 20 seconds, or it stays (`VmDeviceKept`). `disk`: its path; or the
     * name of its volume, or its serial, where one disk alone has it.
     */
    readonly detachDisk: (name: string, disk: string) => Effect.Effect<Vm, DeviceError>
    readonly attachNic: (name: string, nic: NicSpec) => Effect.Effect<Vm, DeviceError>
    /** As `detachDisk`, by the card's address. */
    readonly detachNic: (name: string, mac: string) => Effect.Effect<Vm, DeviceError>
    /** Gives it another measure, and remembers it. */
    readonly resize: (name: string, measure: Measure) => Effect.Effect<Vm, DeviceError>
    /** What its serial console has printed (`stdout`) and what its hypervisor has said (`stderr`), oldest first. */
    readonly console: (
      name: string,
      options?: LogOptions
    ) => Stream.Stream<LogEntry, VmNotFound | ConsoleUnreadable | StateError>
    /** The process of its present life, whose standard input is its serial console's. */
    readonly attach: (name: string) => Effect.Effect<Process, VmNotFound | VmWrongState | StateError>
  }
>()("ironwood/vmm/Vms") {}
