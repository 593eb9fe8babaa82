/**
 * Dynamic supervisors: any number of children that come and go, under `one_for_one`.
 *
 * `children` is an effect evaluated at every start and restart of the supervisor: the desired state. So children are
 * not lost when the supervisor itself is restarted (they are in OTP). It runs as the supervisor's own body: what it
 * acquires (its scope lasts as long as the supervisor runs) and registers with `Actor.onStop` is given back after the
 * children have ended. A sandbox is such a supervisor: it makes its namespace and cgroup, then answers its containers.
 *
 * All children start at once and none can hold up or take down another, unless it says so by its `dependencies`: a failing
 * first start is handled by that child's own policy. The supervisor is ready as soon as its children are registered. They
 * are stopped in parallel, each with its own deadline. There is no intensity unless given.
 *
 * Traps: see `Management`. `startChild` by default answers when the child has acknowledged; if its first start fails the
 * answer is `StartFailed`, while the child stays and follows its policy. A dependency on a sibling that is not there waits
 * for it to come.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dependenciesOf, shutdownMillis, type Shutdown } from "./Actor.ts"
import type { ChildSpec, Dependencies, Provided } from "./ChildSpec.ts"
import type * as Errors from "./Errors.ts"
import * as Management from "./Management.ts"
import * as RestartPolicy from "./RestartPolicy.ts"

export type { StartOptions } from "./Management.ts"

export interface Options<E, RChildren, RDesired> {
  /** The desired children; see the module header. */
  readonly children: Effect.Effect<ReadonlyArray<ChildSpec<unknown, RChildren>>, E, RDesired>
  /** Default: no limit. */
  readonly maxChildren?: number
  /** Restart events allowed within `period`; default: no such limit. Counts children that escalate only. */
  readonly intensity?: number
  /** Default 30 seconds. */
  readonly period?: Duration.Input
  /** How its own supervisor treats it; default {@link RestartPolicy.infrastructure}. */
  readonly policy?: RestartPolicy.RestartPolicy
  /** Default `infinity`: the children have deadlines of their own. */
  readonly shutdown?: Shutdown
  /** Time for `children` to answer; default 90 s. */
  readonly startDeadline?: Duration.Input | "infinity"
  /** Default true; see `Actor.Options`. */
  readonly autoStart?: boolean
  /** See `Actor.Options`. */
  readonly significant?: boolean
  readonly dependencies?: Partial<Dependencies>
  readonly kind?: string
  readonly description?: string
}

/** The handle: put `spec` into a parent, then call the rest while it runs. */
export interface DynamicSupervisor<out E, in out R> extends Management.Management<R> {
  readonly spec: ChildSpec<E | Errors.RestartIntensityReached | Errors.SpecInvalid, R>
}

/**
 * A dynamic supervisor: its spec and its handle. One handle belongs to one place in the tree.
 * `RChildren` are the services its children may need, also those started later.
 */
export function make<E, RChildren = never, RDesired = never>(
  id: string,
  options: Options<E, RChildren, RDesired>
): Effect.Effect<DynamicSupervisor<E, RChildren | Exclude<RDesired, Provided>>>
export function make<E, R>(id: string, options: Options<E, R, R | Provided>): Effect.Effect<DynamicSupervisor<E, R>> {
  return Effect.sync(() => {
    const { attach, management } = Management.make<R>(id)
    return {
      spec: {
        id,
        kind: options.kind ?? "supervisor",
        description: options.description ?? "",
        policy: options.policy ?? RestartPolicy.infrastructure,
        shutdown: shutdownMillis(options.shutdown ?? "infinity"),
        startDeadline: options.startDeadline === undefined ? 90_000 : shutdownMillis(options.startDeadline),
        autoStart: options.autoStart ?? true,
        resume: false,
        keep: false,
        significant: options.significant ?? false,
        dependencies: dependenciesOf(options.dependencies),
        behaviour: {
          _tag: "Dynamic",
          intensity:
            options.intensity === undefined
              ? undefined
              : { restarts: options.intensity, within: Duration.toMillis(options.period ?? Duration.seconds(30)) },
          maxChildren: options.maxChildren ?? Number.POSITIVE_INFINITY,
          children: options.children,
          attach
        }
      },
      ...management
    }
  })
}
