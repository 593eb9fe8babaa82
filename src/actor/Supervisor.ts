/**
 * Static supervisors: an ordered list of children under one strategy.
 *
 * Children start one after another, each when the one before has acknowledged, and end in reverse order. If one fails
 * its first start, those before it are released and the supervisor fails with `StartFailed`. A child that ends later is
 * treated by its own `RestartPolicy` and the strategy; a child whose policy says `whenSpent: "escalate"` also counts
 * against `intensity` within `period`, and over it the supervisor fails with `RestartIntensityReached`.
 *
 * **Auto-shutdown** (OTP's EEP 56): with `autoShutdown`, the own end for good of a `significant` child, of any or of the
 * last one, ends the supervisor: it *stops* the others and ends normally. Here a temporary significant child that ends as
 * the bystander of a sibling's end (by the strategy, or because it is bound to it) counts too; in OTP the shutdown that it
 * should have caused never comes. What a person ends, and what ends with it, counts never.
 *
 * Traps: siblings ended by `one_for_all` and `rest_for_one` are *released* by default (no stop hooks), so that a crash of
 * the storage does not kill containers; say `bystanders: "stop"` when starting anew means killing what they manage.
 * Children that a person stopped, or that are parked, stay as they are when a sibling's crash restarts the group. A static
 * list that is to change while it runs is made with {@link managed}.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dependenciesOf, shutdownMillis, type Shutdown } from "./Actor.ts"
import type { Attach, AutoShutdown, BystanderEnding, ChildSpec, Dependencies, Services } from "./ChildSpec.ts"
import type { RestartIntensityReached, StartFailed } from "./Errors.ts"
import * as Management from "./Management.ts"
import * as RestartPolicy from "./RestartPolicy.ts"
import type { Strategy } from "./Strategy.ts"

export { Strategy } from "./Strategy.ts"

/** What a static supervisor can fail with. */
export type SupervisorFailure = RestartIntensityReached | StartFailed

export interface Options<Children extends ReadonlyArray<ChildSpec<unknown, unknown>>> {
  readonly strategy?: Strategy
  /** Restart events allowed within `period`; default 5. Zero: the first one is too many. */
  readonly intensity?: number
  /** Default 30 seconds; exact to the millisecond. */
  readonly period?: Duration.Input
  readonly children: Children
  /** How its own supervisor treats it; default {@link RestartPolicy.infrastructure}. */
  readonly policy?: RestartPolicy.RestartPolicy
  /** Default `infinity`: the children have deadlines of their own. */
  readonly shutdown?: Shutdown
  /** See the traps above; default `release`. */
  readonly bystanders?: BystanderEnding
  /** See the module header; default `never`. */
  readonly autoShutdown?: AutoShutdown
  /** Default true; see `Actor.Options`. */
  readonly autoStart?: boolean
  /** See `Actor.Options`. */
  readonly significant?: boolean
  readonly dependencies?: Partial<Dependencies>
  readonly kind?: string
  readonly description?: string
}

/** The spec of a static supervisor. */
export function make<const Children extends ReadonlyArray<ChildSpec<unknown, unknown>>>(
  id: string,
  options: Options<Children>
): ChildSpec<SupervisorFailure, Services<Children[number]>>
export function make<R>(
  id: string,
  options: Options<ReadonlyArray<ChildSpec<unknown, R>>>
): ChildSpec<SupervisorFailure, R> {
  return specOf(id, options, undefined)
}

/** A static supervisor with a handle for the management calls. */
export interface Managed<in out R> extends Management.Management<R> {
  readonly spec: ChildSpec<SupervisorFailure, R>
}

/** As {@link make}, with the management calls. `R` are the services that its children may need, also those added later. */
export const managed = <R>(
  id: string,
  options: Options<ReadonlyArray<ChildSpec<unknown, R>>>
): Effect.Effect<Managed<R>> =>
  Effect.sync(() => {
    const { attach, management } = Management.make<R>(id)
    return { spec: specOf(id, options, attach), ...management }
  })

const specOf = <R>(
  id: string,
  options: Options<ReadonlyArray<ChildSpec<unknown, R>>>,
  attach: Attach<R> | undefined
): ChildSpec<SupervisorFailure, R> => ({
  id,
  kind: options.kind ?? "supervisor",
  description: options.description ?? "",
  policy: options.policy ?? RestartPolicy.infrastructure,
  shutdown: shutdownMillis(options.shutdown ?? "infinity"),
  startDeadline: Number.POSITIVE_INFINITY,
  autoStart: options.autoStart ?? true,
  resume: false,
  keep: false,
  significant: options.significant ?? false,
  dependencies: dependenciesOf(options.dependencies),
  behaviour: {
    _tag: "Static",
    strategy: options.strategy ?? "one_for_one",
    intensity: {
      restarts: options.intensity ?? 5,
      within: Duration.toMillis(options.period ?? Duration.seconds(30))
    },
    bystanders: options.bystanders ?? "release",
    autoShutdown: options.autoShutdown ?? "never",
    children: options.children,
    attach
  }
})
