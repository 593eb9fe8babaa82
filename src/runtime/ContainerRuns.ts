/**
 * `ContainerRuns`: the lives of containers' processes, one after another, from image to exit. What a container's actor does
 * is here in its parts; the actor (`ContainerActor.ts`) puts them in order. Layer: `ContainerRunsLive.ts`.
 *
 * A run outlives the actor that started it: taproot owns the process, this service (as long as the brain) stores its output
 * and remembers what has been dealt with. An actor that crashed, or a new brain, *finds* the run by the label of its process
 * and goes on with it.
 *
 * Traps:
 * - A run that has ended is judged once (`verdict`) and forgotten behind the scenes: the next run of the container does not
 *   wait for the runtime to delete the old one. A brain that dies within these milliseconds lets the next one judge it again.
 * - Everything is by container name, and a name has one run at a time: `start` waits for whoever of an earlier run still
 *   lives.
 */
import * as Context from "effect/Context"
import type * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Digest } from "../storage/Digest.ts"
import type { ProcessLog } from "../storage/logs/ProcessLog.ts"
import type { ProcessExit } from "../taproot/ProcessExit.ts"
import type { Process } from "../taproot/Processes.ts"
import type { SignalName } from "../taproot/Signals.ts"
import type { ContainerFailure, RuntimeMissing } from "./ContainerExit.ts"
import type { RunRequest, RuntimeFailed } from "./OciRuntime.ts"
import type * as PidNamespaces from "./PidNamespaces.ts"
import type { ContainerRecord, SandboxRecord } from "./Records.ts"
import type * as RuntimePaths from "./RuntimePaths.ts"
import type * as SandboxNamespaces from "./SandboxNamespaces.ts"
import type * as Stages from "./Stages.ts"
import type { System } from "./System.ts"

/** One run of a container. */
export interface ContainerRun extends RunRequest {
  /** Where it runs. */
  readonly system: System
  readonly container: string
  readonly incarnation: number
  readonly process: Process
  /** Done when all its output is in the log. */
  readonly stored: Deferred.Deferred<void>
}

/** How to end a run: this signal, so long to wait, then SIGKILL. */
export interface Ending {
  readonly signal: SignalName
  readonly grace: Duration.Duration
}

export class ContainerRuns extends Context.Service<
  ContainerRuns,
  {
    readonly paths: RuntimePaths.RuntimePaths
    readonly namespaces: SandboxNamespaces.SandboxNamespaces
    readonly pidNamespaces: PidNamespaces.PidNamespaces
    readonly stages: Stages.Stages
    /** The run that nobody has judged yet, if any: made by whichever actor or brain. Older ones beside it are ended. */
    readonly find: (record: ContainerRecord) => Effect.Effect<Option.Option<ContainerRun>>
    /** Whether taproot has anything of it: a process that lives, one whose end nobody has judged, a start that is half-way. */
    readonly isLeft: (record: ContainerRecord) => Effect.Effect<boolean>
    /** What a start of it runs: the image that it has, or the one that is pulled for it. Undefined: there is none. */
    readonly image: (record: ContainerRecord) => Effect.Effect<Digest | undefined, ContainerFailure>
    /** Makes a new run. Interrupted or failed, it leaves nothing. */
    readonly start: (
      record: ContainerRecord,
      sandbox: SandboxRecord,
      incarnation: number
    ) => Effect.Effect<ContainerRun, ContainerFailure>
    /**
     * What the end of a run means; the run is forgotten behind the scenes, once `remember` has seen the verdict. Returns
     * for exit code 0.
     */
    readonly verdict: (
      record: ContainerRecord,
      run: ContainerRun,
      exit: ProcessExit,
      remember: (verdict: Exit.Exit<void, ContainerFailure>) => Effect.Effect<void>,
      /** Why it was made to end, which its exit cannot say. */
      because?: ContainerFailure
    ) => Effect.Effect<void, ContainerFailure>
    /** Ends a run in its own way; it is not forgotten, and its end is for `verdict`. */
    readonly terminate: (run: ContainerRun, ending: Ending) => Effect.Effect<ProcessExit>
    /** How it is to be ended: as whoever stops it, else its spec, else its image wants it. */
    readonly ending: (record: ContainerRecord) => Effect.Effect<Ending>
    /**
     * Ends every run of a container and forgets it; returns when nothing is left, with how the last one ended. Fine when
     * there is none.
     */
    readonly stop: (
      record: ContainerRecord,
      ending: Ending
    ) => Effect.Effect<Option.Option<Exit.Exit<void, ContainerFailure>>>
    /** Waits until every run that has ended is forgotten. */
    readonly quiet: Effect.Effect<void>
    /** Kills what runs, and lets a `stop` that is waiting, or comes later, wait no longer. */
    readonly hurry: (container: string) => Effect.Effect<void>
    /** Freezes a run, or lets it go on. One that is stopped goes on before. */
    readonly setPaused: (run: ContainerRun, paused: boolean) => Effect.Effect<void, RuntimeMissing | RuntimeFailed>
    /** Whether its present run is frozen. */
    readonly isPaused: (container: string) => Effect.Effect<boolean>
    /** Tells in the scope, from now on, whether it is frozen: at once when it is, and whenever that changes. */
    readonly onPause: (container: string, tell: (paused: boolean) => void) => Effect.Effect<void, never, Scope.Scope>
    /** The newest run that still lives. */
    readonly current: (container: string) => Effect.Effect<Option.Option<ContainerRun>>
    /** The same of all containers, by their names. */
    readonly currents: Effect.Effect<ReadonlyMap<string, ContainerRun>>
    readonly log: (record: ContainerRecord) => ProcessLog
    /** Tells in the scope, from now on, in what a run is less than it should be; an empty text when that is over. */
    readonly troubles: (
      record: ContainerRecord,
      run: ContainerRun,
      tell: (why: string) => void
    ) => Effect.Effect<void, never, Scope.Scope>
    /** After `stop`: closes and removes the log, forgets the rest. */
    readonly erase: (record: ContainerRecord) => Effect.Effect<void>
  }
>()("ironwood/runtime/ContainerRuns") {}
