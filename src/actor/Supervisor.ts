/**
 * Static supervisors: a fixed, ordered list of children under one strategy.
 *
 * Children start one after another, each when the one before has acknowledged, and end in reverse order. If one fails
 * its first start, those before it are released and the supervisor fails with `StartFailed`. A child that ends later is
 * treated by its own `RestartPolicy` and the strategy; a child whose policy says `whenSpent: "escalate"` also counts
 * against `intensity` within `period`, and over it the supervisor fails with `RestartIntensityReached`.
 *
 * Traps: siblings ended by `one_for_all` and `rest_for_one` are *released* by default (no stop hooks), so that a crash of
 * the storage does not kill containers; say `bystanders: "stop"` when starting anew means killing what they manage.
 * Children that a person stopped, or that are parked, stay as they are when a sibling's crash restarts the group.
 */
import * as Duration from "effect/Duration"
import { shutdownMillis, type Shutdown } from "./Actor.ts"
import { type BystanderEnding, checkId, type ChildSpec, type Services } from "./ChildSpec.ts"
import type { RestartIntensityReached, StartFailed } from "./Errors.ts"
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
  /** Default true; see `Actor.Options`. */
  readonly autoStart?: boolean
  readonly kind?: string
  readonly description?: string
}

/** The spec of a static supervisor. Dies on an invalid id and on two children of the same id. */
export function make<const Children extends ReadonlyArray<ChildSpec<unknown, unknown>>>(
  id: string,
  options: Options<Children>
): ChildSpec<SupervisorFailure, Services<Children[number]>>
export function make<R>(
  id: string,
  options: Options<ReadonlyArray<ChildSpec<unknown, R>>>
): ChildSpec<SupervisorFailure, R> {
  const seen = new Set<string>()
  for (const child of options.children) {
    if (seen.has(child.id)) throw new TypeError(`supervisor ${id} has two children with the id "${child.id}"`)
    seen.add(child.id)
  }
  return {
    id: checkId(id),
    kind: options.kind ?? "supervisor",
    description: options.description ?? "",
    policy: options.policy ?? RestartPolicy.infrastructure,
    shutdown: shutdownMillis(options.shutdown ?? "infinity"),
    startDeadline: Number.POSITIVE_INFINITY,
    autoStart: options.autoStart ?? true,
    resume: false,
    behaviour: {
      _tag: "Static",
      strategy: options.strategy ?? "one_for_one",
      intensity: {
        restarts: options.intensity ?? 5,
        within: Duration.toMillis(options.period ?? Duration.seconds(30))
      },
      bystanders: options.bystanders ?? "release",
      children: options.children
    }
  }
}
