/**
 * A child spec: everything a supervisor must know to start, restart and stop one child. Plain data plus the effect.
 *
 * Made by `Actor.make`, `Supervisor.make` and `DynamicSupervisor.make`; put into a supervisor's list of children.
 * `E` is what the child can fail with, `R` the services it needs: they add up to the `R` of the root.
 */
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as ActorPath from "./ActorPath.ts"
import type { StartChildError } from "./Errors.ts"
import type { RestartPolicy } from "./RestartPolicy.ts"
import type { Self } from "./Self.ts"
import type { Strategy } from "./Strategy.ts"
import type { Tree } from "./Tree.ts"

/** What every actor is given: itself, a scope as long as this incarnation, and the tree it is part of. */
export type Provided = Self | Scope.Scope | Tree

/** How siblings ended by a strategy end: `release` (their stop hooks do not run) or `stop` (they do). */
export type BystanderEnding = "release" | "stop"

/** At most `restarts` restart events in `within` milliseconds. */
export interface Intensity {
  readonly restarts: number
  readonly within: number
}

/** What a running dynamic supervisor offers to its handle. */
export interface DynamicControl<in R> {
  readonly path: ActorPath.ActorPath
  readonly tree: Tree["Service"]
  readonly startChild: (
    spec: ChildSpec<unknown, R>,
    wait: boolean
  ) => Effect.Effect<ActorPath.ActorPath, StartChildError>
  readonly count: () => Count
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
      readonly children: ReadonlyArray<ChildSpec<unknown, R>>
    }
  | {
      readonly _tag: "Dynamic"
      readonly intensity: Intensity | undefined
      readonly maxChildren: number
      readonly children: Effect.Effect<ReadonlyArray<ChildSpec<unknown, R>>, E, R | Provided>
      /** Called with the control when the supervisor runs, and with `undefined` when it does not any more. */
      readonly attach: (control: DynamicControl<R> | undefined) => void
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
  readonly behaviour: Behaviour<E, R>
}

/** The services that a child spec needs. */
export type Services<Spec> = Spec extends ChildSpec<unknown, infer R> ? R : never

/** Dies when the id cannot be part of a path: a spec is code, so a wrong one is a bug of its author. */
export const checkId = (id: string): string => {
  if (ActorPath.isId(id)) return id
  throw new TypeError(`actor id ${JSON.stringify(id)} must be a non-empty string without "/"`)
}
