/**
 * `VmSnapshots`: what can be done with the memory and disks of a machine that runs or is paused: snapshots, restores, clones, live
 * migration. The gateway's second door to this folder, beside `Vms`.
 *
 * Each is committed before it begins and ended or undone by whoever finds it (`Work.ts`): afterwards there is one machine, whole,
 * and one snapshot, whole, or none. Layers: `VmSnapshotsLive.ts`, `VmRestores.ts`, `VmMoves.ts`.
 *
 * Traps:
 * - A guest that is restored or cloned does not notice: its clock goes on from then, its connections are gone, and a clone has the
 *   addresses and identities that the first one has inside.
 * - A snapshot belongs to this host, this accelerator, and this hypervisor or a newer one.
 * - Kernel, initramfs and disks that the guest cannot write to are not in it: they are those of the spec.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { HypervisorMissing } from "./Hypervisor.ts"
import type {
  SnapshotAlreadyExists,
  SnapshotFailed,
  SnapshotNoRoom,
  SnapshotNotFound,
  SnapshotUnusable,
  VmCannot
} from "./SnapshotError.ts"
import type { SnapshotManifest } from "./SnapshotManifest.ts"
import type { VmAlreadyExists, VmNotFound, VmSpecInvalid, VmWrongState } from "./VmError.ts"
import type { VmSpec } from "./VmSpec.ts"
import type { StateError, Vm } from "./Vms.ts"

type NotFound = VmNotFound | StateError
type Failed = SnapshotFailed | SnapshotNoRoom | VmCannot

export class VmSnapshots extends Context.Service<
  VmSnapshots,
  {
    /** Its guest goes on while its memory is written, then stands still while its disks are copied. One that is paused stays so. */
    readonly create: (
      name: string,
      snapshot: string
    ) => Effect.Effect<SnapshotManifest, NotFound | VmWrongState | SnapshotAlreadyExists | Failed>
    /** Those of one machine, or of all; by name. Of one that cannot be read: why. */
    readonly list: (
      name?: string
    ) => Effect.Effect<ReadonlyArray<SnapshotManifest | SnapshotUnusable>, NotFound | SnapshotFailed>
    readonly get: (
      name: string,
      snapshot: string
    ) => Effect.Effect<SnapshotManifest, NotFound | SnapshotNotFound | SnapshotUnusable>
    readonly remove: (
      name: string,
      snapshot: string
    ) => Effect.Effect<void, NotFound | SnapshotNotFound | SnapshotUnusable | SnapshotFailed>
  }
>()("ironwood/vmm/VmSnapshots") {}

export type RestoreError = NotFound | VmWrongState | SnapshotNotFound | SnapshotUnusable | HypervisorMissing | Failed

export interface CloneOptions {
  /** It boots from its disks, with other addresses, instead of going on with the memory. Default false. */
  readonly cold?: boolean
  /** Ports that lead to its first card; those of the first machine are taken. Default: none. */
  readonly forwards?: VmSpec["nics"][number]["forwards"]
}

export class VmRestores extends Context.Service<
  VmRestores,
  {
    /**
     * As it was then, its disks too: what it is now is ended, and what is on its disks is gone. Answers when it runs (or is paused,
     * as it was), or its start has failed (see `state`); if that fails, it boots from the disks of then.
     */
    readonly restore: (name: string, snapshot: string) => Effect.Effect<Vm, RestoreError>
    /** Another machine, with disks of its own beside those of the first, called `<clone>-<their name>`. */
    readonly clone: (
      name: string,
      snapshot: string,
      clone: string,
      options?: CloneOptions
    ) => Effect.Effect<Vm, RestoreError | VmAlreadyExists | VmSpecInvalid>
  }
>()("ironwood/vmm/VmRestores") {}

export class VmMoves extends Context.Service<
  VmMoves,
  {
    /**
     * To a new process of its hypervisor on this host, as the program is now: its guest goes on, and stands still for a moment.
     * On any failure it goes on where it is.
     */
    readonly migrate: (
      name: string
    ) => Effect.Effect<
      { readonly vm: Vm; /** Milliseconds. */ readonly stoodStill: number },
      NotFound | VmWrongState | HypervisorMissing | Failed
    >
  }
>()("ironwood/vmm/VmMoves") {}
