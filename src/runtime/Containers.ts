/**
 * `Containers`: what can be asked for and said about containers and sandboxes. The gateway's only door to this folder.
 *
 * Every call that changes something commits the desired state first (`State`), then asks the supervision tree; after a
 * crash at any point the actors follow what is committed. All calls are idempotent by name: asking again for what is so
 * already succeeds and changes nothing. Layer: `ContainersLive.ts`.
 *
 * Traps:
 * - `create` answers when the container is registered, not when it runs (unless told to wait): pulling it up is its
 *   actor's business, failures follow its restart policy and show in the tree. What is wrong with the *request* (unknown
 *   image, unknown sandbox, name taken) is told at once, and nothing is made.
 * - A container's `state` is that of its actor; `desired` is what a person wants. They differ while one follows the other.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { ActorPath } from "../actor/ActorPath.ts"
import type { ExitView } from "../actor/ExitView.ts"
import type { RestartPolicy } from "../actor/RestartPolicy.ts"
import type { TreeNode } from "../actor/Tree.ts"
import type { ImageNotFound, StorageFailed } from "../storage/ContentError.ts"
import type { Digest } from "../storage/Digest.ts"
import type { LogEntry } from "../storage/logs/LogEntry.ts"
import type { LogOptions } from "../storage/logs/LogRetention.ts"
import type { StateFailure, StateValueInvalid } from "../storage/StateErrors.ts"
import type { ProcessGone, SignalRefused } from "../taproot/Processes.ts"
import type { SignalName } from "../taproot/Signals.ts"
import type {
  CleanupFailed,
  ContainerAlreadyExists,
  ContainerNotFound,
  ControlFailed,
  LogUnreadable,
  SandboxAlreadyExists,
  SandboxInUse,
  SandboxNotFound,
  SecretInUse,
  SecretNotFound,
  SpecInvalid,
  WrongState
} from "./ContainerError.ts"
import type { ContainerRun } from "./ContainerRuns.ts"
import type { CgroupStats } from "../host/CgroupStats.ts"
import type { Above, Beneath, Which } from "./ProcessesBeneath.ts"
import type { ListedProcess } from "./ProcessList.ts"
import type { ContainerSpec, Resources } from "./ContainerSpec.ts"
import type { ExecSpec } from "./ExecSpec.ts"
import type { ExecError, Execution } from "./Executions.ts"
import type { ContainerState, Desired } from "./Lifecycle.ts"
import type { Assumed, References, Unresolved } from "./References.ts"
import type { StopOptions } from "./StopOptions.ts"
import type { Secret, SecretNotKept } from "./Secrets.ts"
import type { PublishedPort, SandboxSpec } from "./SandboxSpec.ts"

/** A container as it is wanted and as it is. Times are milliseconds since 1970. */
export interface Container {
  readonly name: string
  /** Made at creation; a container removed and created again under its name has another. */
  readonly uid: string
  /** Of the desired state: 1 at creation, one more with every change. */
  readonly generation: number
  readonly createdAt: number
  readonly updatedAt: number
  /** As created, with later changes of policy. */
  readonly spec: ContainerSpec
  readonly sandbox: string
  /** Of its sandbox. */
  readonly ports: ReadonlyArray<PublishedPort>
  /** Of the image's manifest, found at creation or when it was pulled. Undefined: it has not been pulled yet. */
  readonly image: Digest | undefined
  /** Its actor's place in the tree. */
  readonly path: ActorPath
  readonly desired: Desired
  readonly state: ContainerState
  /** Its main process, while it runs; as the host numbers it. */
  readonly pid: number | undefined
  /** Of one that has a readiness probe, while it runs: `yes`, or `no: ` and why. */
  readonly ready: string | undefined
  /** Number of its current or last run, from 1. */
  readonly incarnation: number
  readonly restarts: number
  /** Lives in a row that failed, since the last healthy run. */
  readonly consecutiveFailures: number
  readonly startedAt: number | undefined
  readonly lastExit: ExitView | undefined
  readonly nextAttemptAt: number | undefined
  /** All that the tree knows; undefined while `state` is `unregistered`. */
  readonly node: TreeNode | undefined
}

/** What a container has used, and may. */
export interface Stats extends CgroupStats {
  readonly name: string
  /** When it was read: nanoseconds since the Unix epoch. */
  readonly time: bigint
}

/** A sandbox with the names of its containers. */
export interface Sandbox {
  readonly name: string
  readonly uid: string
  readonly generation: number
  readonly createdAt: number
  readonly updatedAt: number
  readonly spec: SandboxSpec
  /** True: made for one container that named no sandbox, and removed with it. */
  readonly implicit: boolean
  /** Of the host: who its root is there, where it has users of its own. */
  readonly firstUser: number | undefined
  /** As they are published: with the ports of the host that were free. */
  readonly ports: ReadonlyArray<PublishedPort>
  readonly path: ActorPath
  readonly containers: ReadonlyArray<string>
  readonly node: TreeNode | undefined
}

/** A way to keep a sandbox apart that not every host has; `problem`: why this one has not. */
export interface SandboxIsolation {
  readonly name: "private users" | "user network" | "microvm"
  readonly problem: string | undefined
}

export interface CreateOptions {
  /** False: only make it known, as if stopped by a person. Default true. */
  readonly start?: boolean
  /** Answer once it runs or its first start has failed (which is no error of `create`: see `state`). Default false. */
  readonly wait?: boolean
  /** What the caller makes next: a container among it may be the one to fall back to. Default: nothing. */
  readonly assumed?: Assumed
}

/** What any call that reads or writes the desired state can fail with. */
export type StateError = StateFailure | StateValueInvalid

/** What keeps a container from being created. */
export type CreateError =
  | ContainerAlreadyExists
  | SandboxNotFound
  | SpecInvalid
  | ImageNotFound
  | StorageFailed
  | StateError

export class Containers extends Context.Service<
  Containers,
  {
    /**
     * Idempotent: the same spec again answers with the container that is there. All that it refers to and that is not there
     * is told at once: a sandbox or an image alone by its own error, else as `SpecInvalid`.
     */
    readonly create: (spec: ContainerSpec, options?: CreateOptions) => Effect.Effect<Container, CreateError>
    /**
     * What `create` would say, without doing it: the container that is there, or none. What the spec refers to is looked at
     * first: `ContainerAlreadyExists` means that nothing else is wrong.
     */
    readonly validate: (spec: ContainerSpec, assumed?: Assumed) => Effect.Effect<Option.Option<Container>, CreateError>
    /** What is wrong with what a spec refers to, for one that cannot be read as a whole. */
    readonly unresolved: (
      references: References,
      assumed?: Assumed
    ) => Effect.Effect<ReadonlyArray<Unresolved>, StorageFailed | StateError>
    /** By name. */
    readonly list: Effect.Effect<ReadonlyArray<Container>, StateError>
    readonly get: (name: string) => Effect.Effect<Container, ContainerNotFound | StateError>
    /** Wanted: running. Answers when it runs or a start has failed (see `state`); starting what runs is fine. */
    readonly start: (name: string) => Effect.Effect<Container, ContainerNotFound | StateError>
    /**
     * Wanted: stopped. Stop signal, grace, kill; answers when it has ended. For one that is stopping already, options are
     * a second, impatient word: its signal is sent too, and the shorter of the two graces counts.
     */
    readonly stop: (name: string, options?: StopOptions) => Effect.Effect<Container, ContainerNotFound | StateError>
    /** Wanted: running, anew. Answers as `start` does. */
    readonly restart: (name: string) => Effect.Effect<Container, ContainerNotFound | StateError>
    /** Sends a signal to its main process; changes nothing about what is wanted. */
    readonly kill: (
      name: string,
      signal: SignalName
    ) => Effect.Effect<Container, ContainerNotFound | WrongState | ProcessGone | SignalRefused | StateError>
    /** Freezes all its processes. Fine when they are. */
    readonly pause: (
      name: string
    ) => Effect.Effect<Container, ContainerNotFound | WrongState | ControlFailed | StateError>
    /** Lets them go on. Fine when they do. */
    readonly resume: (
      name: string
    ) => Effect.Effect<Container, ContainerNotFound | WrongState | ControlFailed | StateError>
    /** Other limits, at once and for good. What is not given stays as it is. */
    readonly update: (
      name: string,
      resources: Resources
    ) => Effect.Effect<Container, ContainerNotFound | ControlFailed | StateError>
    /** What its processes are. */
    readonly top: (
      name: string
    ) => Effect.Effect<ReadonlyArray<ListedProcess>, ContainerNotFound | WrongState | StateError>
    /** What runs beneath these actors, by their paths, as far as it can be told soon. See `ProcessesBeneath.ts`. */
    readonly processes: (actors: ReadonlyArray<Above>, which: Which) => Effect.Effect<ReadonlyMap<string, Beneath>>
    /** What those of these names that run have used, and may; no names: all that run. */
    readonly stats: (
      names: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyArray<Stats>, ContainerNotFound | StateError>
    /** Starts a further program in it, which lives as long as the scope, unless it is detached. */
    readonly exec: (
      name: string,
      spec: ExecSpec
    ) => Effect.Effect<Execution, ContainerNotFound | WrongState | ExecError | StateError, Scope.Scope>
    /** Its present life, for those who talk to its first process. What that writes is in the log. */
    readonly attach: (name: string) => Effect.Effect<ContainerRun, ContainerNotFound | WrongState | StateError>
    /** Forgets it, its writable layer and its log. A running one only with `force` (then killed without grace). */
    readonly remove: (
      name: string,
      options?: { readonly force?: boolean }
    ) => Effect.Effect<void, ContainerNotFound | WrongState | CleanupFailed | StateError>
    /** Effective from its next end on; remembered. A sibling that it falls back to must be there. */
    readonly setPolicy: (
      name: string,
      policy: RestartPolicy
    ) => Effect.Effect<Container, ContainerNotFound | SpecInvalid | StateError>
    /** Its log, oldest first. Entries are read from files as the stream is pulled: a slow reader costs nothing, but may lose what was rotated away meanwhile. */
    readonly logs: (
      name: string,
      options?: LogOptions
    ) => Stream.Stream<LogEntry, ContainerNotFound | LogUnreadable | StateError>

    readonly createSandbox: (
      spec: SandboxSpec
    ) => Effect.Effect<Sandbox, SandboxAlreadyExists | SpecInvalid | StateError>
    /** What sandboxes can have here besides namespaces. Tried when it is asked for first, which takes a moment. */
    readonly isolations: Effect.Effect<ReadonlyArray<SandboxIsolation>>
    /** What `createSandbox` would say, without doing it. */
    readonly validateSandbox: (
      spec: SandboxSpec
    ) => Effect.Effect<Option.Option<Sandbox>, SandboxAlreadyExists | SpecInvalid | StateError>
    readonly listSandboxes: Effect.Effect<ReadonlyArray<Sandbox>, StateError>
    readonly getSandbox: (name: string) => Effect.Effect<Sandbox, SandboxNotFound | StateError>
    /**
     * Stops all its containers and remembers it: those that need others first, all together within one time: that given, else
     * the sandbox's own, else the longest that one of them has. Answers when they have ended.
     */
    readonly stopSandbox: (
      name: string,
      options?: Pick<StopOptions, "gracePeriod">
    ) => Effect.Effect<Sandbox, SandboxNotFound | StateError>
    /** Starts those of its containers that are down, in the order of their needs; init containers first when none is up. */
    readonly startSandbox: (name: string) => Effect.Effect<Sandbox, SandboxNotFound | StateError>
    /** Creates or replaces; a container's next start finds it. */
    readonly putSecret: (name: string, value: Uint8Array) => Effect.Effect<Secret, SecretNotKept>
    /** By name. */
    readonly listSecrets: Effect.Effect<ReadonlyArray<Secret>>
    /** Refused while a container needs it. */
    readonly removeSecret: (name: string) => Effect.Effect<void, SecretNotFound | SecretInUse>
    /** Refused while it has containers, unless `force`: then they are removed first, forced too. */
    readonly removeSandbox: (
      name: string,
      options?: { readonly force?: boolean }
    ) => Effect.Effect<void, SandboxNotFound | SandboxInUse | CleanupFailed | StateError>
  }
>()("ironwood/runtime/Containers") {}
