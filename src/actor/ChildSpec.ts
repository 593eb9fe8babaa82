/**
 * A child spec: everything a supervisor must know to start, restart and stop one child. Plain data plus the effect.
 *
 * Made by `Actor.make`, `Supervisor.make` and `DynamicSupervisor.make`; put into a supervisor's list of children.
 * `E` is what the child can fail with, `R` the services it needs: they add up to the `R` of the root.
 */
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as ActorPath from "./ActorPath.ts"
import type { Down } from "./Down.ts"
import type { SpecInvalid, StartChildError } from "./Errors.ts"
import type { RestartPolicy } from "./RestartPolicy.ts"
import type { Self } from "./Self.ts"
import type { Strategy } from "./Strategy.ts"
import type { Load, Tree } from "./Tree.ts"

/** What every actor is given: itself, a scope as long as this incarnation, and the tree it is part of. */
export type Provided = Self | Scope.Scope | Tree

/** How siblings ended by a strategy end: `release` (their stop hooks do not run) or `stop` (they do). */
export type BystanderEnding = "release" | "stop"

/** At most `restarts` restart events in `within` milliseconds. */
export interface Intensity {
  readonly restarts: number
  readonly within: number
}

/**
 * Siblings that a child needs, by their ids; under `one_for_one` only (the other strategies *are* a dependency).
 *
 * - `after`: it starts once these have come up, or have failed to: order, nothing else.
 * - `afterSuccess`: it starts once each of these has finished: has ended with success, and is not started again.
 * - `requires`: it starts only while these run, and ends when a person stops or restarts one. A crash of theirs it
 *   survives, but its own next start waits for them.
 * - `bindsTo`: as `requires`, and it ends whenever one of these ends, for whatever reason; back up, it follows.
 *
 * What waits is `waiting` and tells for whom. Ends go the other way round: who depends on another ends before it.
 */
export interface Dependencies {
  readonly after: ReadonlyArray<string>
  readonly afterSuccess: ReadonlyArray<string>
  readonly requires: ReadonlyArray<string>
  readonly bindsTo: ReadonlyArray<string>
}

export const noDependencies: Dependencies = { after: [], afterSuccess: [], requires: [], bindsTo: [] }

/** Whether the end of significant children ends their supervisor, normally: never, that of any, or that of the last. */
export type AutoShutdown = "never" | "any_significant" | "all_significant"

/** What a running supervisor offers to its handle; see `Management`. */
export interface Control<in R> {
  readonly path: ActorPath.ActorPath
  readonly tree: Tree["Service"]
  readonly startChild: (
    spec: ChildSpec<unknown, R>,
    wait: boolean
  ) => Effect.Effect<ActorPath.ActorPath, StartChildError>
  readonly childSpec: (id: string) => ChildSpecView | undefined
  readonly count: () => Count
  readonly reload: (specs: ReadonlyArray<ChildSpec<unknown, R>>) => Effect.Effect<Reloaded, SpecInvalid>
}

/** What a reload of specs did, by id. */
export interface Reloaded {
  /** Have a new spec from their next start on; those that run go on. */
  readonly replaced: ReadonlyArray<string>
  /** Are there, stopped, until somebody starts them. */
  readonly added: ReadonlyArray<string>
  /** Were not named and stay as they were. */
  readonly kept: ReadonlyArray<string>
}

/** Numbers of a supervisor's children. `specs` counts all of them, `active` those that start, run or stop. */
export interface Count {
  readonly specs: number
  readonly active: number
  readonly supervisors: number
  readonly workers: number
}

/** The body of a child. */
export type Behaviour<E, R> =
  | { readonly _tag: "Worker"; readonly run: Effect.Effect<void, E, R | Provided> }
  | {
      readonly _tag: "Static"
      readonly strategy: Strategy
      readonly intensity: Intensity
      readonly bystanders: BystanderEnding
      readonly autoShutdown: AutoShutdown
      readonly children: ReadonlyArray<ChildSpec<unknown, R>>
      readonly attach: Attach<R> | undefined
    }
  | {
      readonly _tag: "Dynamic"
      readonly intensity: Intensity | undefined
      readonly maxChildren: number
      readonly children: Effect.Effect<ReadonlyArray<ChildSpec<unknown, R>>, E, R | Provided>
      readonly attach: Attach<R> | undefined
    }

/** Called with the control when the supervisor runs, and with `undefined` when it does not any more. */
export type Attach<out R> = (control: Control<R> | undefined) => void

/** What a mailbox is to the actor that it belongs to; see `Mailbox`. */
export interface MailboxControl {
  /** A life begins that takes from it; answers who takes from it already, if somebody does. */
  readonly begin: (path: ActorPath.ActorPath, incarnation: number) => string | undefined
  /** That life is over. */
  readonly end: (down: Down) => void
  /** The actor has been taken out of the tree. */
  readonly removed: (path: ActorPath.ActorPath) => void
  readonly load: () => Load
}

/** See the module header. Times in milliseconds; `Infinity` means no limit. */
export interface ChildSpec<out E, out R> {
  readonly id: string
  /** What it is, shown in the tree: `worker`, `supervisor`, `container`, `sandbox` … */
  readonly kind: string
  readonly description: string
  readonly policy: RestartPolicy
  /** Time for an orderly end; 0 is OTP's brutal kill (no stop hooks). */
  readonly shutdown: number
  /** Time from start to acknowledgement. */
  readonly startDeadline: number
  /** False: registered as `stopped` when its supervisor starts, until somebody starts it. */
  readonly autoStart: boolean
  /** True: an earlier brain's rest (parked, backing off, finished, failed) goes on. False: it starts. */
  readonly resume: boolean
  /** A `temporary` actor that is over stays in the tree. False: it is forgotten, as OTP does. */
  readonly keep: boolean
  /** Its own end may be that of its supervisor; see {@link AutoShutdown}. */
  readonly significant: boolean
  readonly dependencies: Dependencies
  /** Where others leave it messages. */
  readonly mailbox?: MailboxControl | undefined
  readonly behaviour: Behaviour<E, R>
}

/** A spec as it can be looked at: all but what runs. */
export type ChildSpecView = Omit<ChildSpec<unknown, unknown>, "behaviour" | "mailbox">

/** The services that a child spec needs. */
export type Services<Spec> = Spec extends ChildSpec<unknown, infer R> ? R : never
