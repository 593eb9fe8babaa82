/**
 * `VmRuns`: the lives of virtual machines, one after another, from their files to their end. What a machine's actor does is here
 * in its parts; the actor (`VmActor.ts`) puts them in order. Layer: `VmRunsLive.ts`.
 *
 * A life outlasts the actor that began it: taproot owns the process, this service (as long as the brain) stores what its console
 * prints, holds its control socket and remembers what has been dealt with. An actor that crashed, or a new brain, *finds* the
 * life by the label of its process and goes on with it.
 *
 * Traps:
 * - A guest that has come to an end leaves its hypervisor standing there until the end was judged (`verdict`), so that no brain
 *   can miss which end it was.
 * - While no brain takes what a console prints, some 128 KiB of it wait; then the guest waits too, as at a slow serial line.
 */
import * as Context from "effect/Context"
import type * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import type * as Semaphore from "effect/Semaphore"
import type { ProcessLog } from "../storage/logs/ProcessLog.ts"
import type { Process } from "../taproot/Processes.ts"
import type * as Hold from "./Hold.ts"
import type { DriverName, Model } from "./Hypervisor.ts"
import type { VmRecord } from "./Records.ts"
import type * as VmExit from "./VmExit.ts"
import type * as VmPaths from "./VmPaths.ts"

/** One life of a machine. */
export interface VmRun {
  readonly name: string
  readonly life: VmPaths.Life
  /** Where its sockets are. */
  readonly directory: string
  readonly cgroup: string
  readonly process: Process
  /** What made it. */
  readonly hypervisor: DriverName
  /** The hold on it: one for all who need it, taken again when it was lost. */
  readonly hold: Hold.Hold
  /** Whoever plugs its disks and cards in and out takes turns. */
  readonly devices: Semaphore.Semaphore
  /** Done when all that it has printed is stored. */
  readonly stored: Deferred.Deferred<void>
}

export class VmRuns extends Context.Service<
  VmRuns,
  {
    readonly paths: VmPaths.VmPaths
    /** The life that nobody has judged yet, if any: begun by whichever actor or brain. Older ones beside it are ended. */
    readonly find: (record: VmRecord) => Effect.Effect<Option.Option<VmRun>>
    /** Whether taproot has anything of it. */
    readonly isLeft: (name: string) => Effect.Effect<boolean>
    /**
     * Begins a new life; its guest runs. Interrupted or failed, it leaves nothing. Where a restore is decided (`Work`), its disks are
     * put in place and it begins with the memory; `arrived` commits that this is so, before the guest goes on.
     */
    readonly start: (
      record: VmRecord,
      incarnation: number,
      arrived: (label: string) => Effect.Effect<void, VmExit.VmFailure>
    ) => Effect.Effect<VmRun, VmExit.VmFailure>
    /** A life that waits for the memory of another one (`Memory.send`). It does not count before `succeed`. */
    readonly await: (
      record: VmRecord,
      of: VmRun,
      life: VmPaths.Life,
      model: Model
    ) => Effect.Effect<VmRun, VmExit.VmFailure>
    /** The other life counts from now on; the first one is ended. */
    readonly succeed: (record: VmRecord, from: VmRun, to: VmRun) => Effect.Effect<void>
    /** The life that this one's memory has gone to. */
    readonly successor: (run: VmRun) => VmRun | undefined
    /** Ends a life and clears it away; its guest is not asked. */
    readonly end: (record: VmRecord, run: VmRun) => Effect.Effect<void>
    /**
     * What an end means; what is left of that life is cleared away behind the scenes, once `remember` has seen the verdict.
     * Returns for a guest that powered off.
     */
    readonly verdict: (
      record: VmRecord,
      run: VmRun,
      ended: Hold.Ended,
      remember: (verdict: Exit.Exit<void, VmExit.VmFailure>) => Effect.Effect<void>
    ) => Effect.Effect<void, VmExit.VmFailure>
    /**
     * Ends every life of a machine: the power button, so long to wait, then its hypervisor. Returns when nothing is left, with
     * how the last one ended. Fine when there is none.
     */
    readonly stop: (
      record: VmRecord,
      grace: Duration.Duration
    ) => Effect.Effect<Option.Option<Exit.Exit<void, VmExit.VmFailure>>>
    /** Kills what runs, and lets a `stop` that is waiting, or comes later, wait no longer. */
    readonly hurry: (name: string) => Effect.Effect<void>
    /** Waits until everything that has ended is cleared away. */
    readonly quiet: Effect.Effect<void>
    /** The newest life that still goes on. */
    readonly current: (name: string) => Effect.Effect<Option.Option<VmRun>>
    /** What its console has printed (`stdout`) and what its hypervisor has said (`stderr`). */
    readonly console: (record: VmRecord) => ProcessLog
    /** After `stop`: its console, its directory and all that is remembered. */
    readonly erase: (record: VmRecord) => Effect.Effect<void>
  }
>()("ironwood/vmm/VmRuns") {}
