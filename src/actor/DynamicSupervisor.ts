/**
 * Dynamic supervisors: any number of children that come and go, under `one_for_one`.
 *
 * `children` is an effect evaluated at every start and restart of the supervisor: the desired state. So children are
 * not lost when the supervisor itself is restarted (they are in OTP). It runs as the supervisor's own body: what it
 * acquires (its scope lasts as long as the supervisor runs) and registers with `Actor.onStop` is given back after the
 * children have ended. A sandbox is such a supervisor: it makes its namespace and cgroup, then answers its containers.
 *
 * All children start at once and none can hold up or take down another: a failing first start is handled by that child's
 * own policy. The supervisor is ready as soon as its children are registered. They are stopped in parallel, each with its
 * own deadline. There is no intensity unless given.
 *
 * Traps: calls on a supervisor that is down (or restarting) fail with `SupervisorDown`: commit the desired state first,
 * then treat that answer as "it will start with the supervisor". `startChild` by default answers when the child has
 * acknowledged; if its first start fails the answer is `StartFailed`, while the child stays and follows its policy.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { shutdownMillis, type Shutdown } from "./Actor.ts"
import * as Path from "./ActorPath.ts"
import { checkId, type ChildSpec, type Count, type DynamicControl, type Provided } from "./ChildSpec.ts"
import * as Errors from "./Errors.ts"
import * as RestartPolicy from "./RestartPolicy.ts"
import type { TreeNode } from "./Tree.ts"

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
  readonly kind?: string
  readonly description?: string
}

/** How {@link DynamicSupervisor.startChild} answers: after the acknowledgement (default), or once registered. */
export interface StartOptions {
  readonly wait?: "acknowledged" | "registered"
}

/** The handle: put `spec` into a parent, then call the rest while it runs. */
export interface DynamicSupervisor<out E, in out R> {
  readonly spec: ChildSpec<E | Errors.RestartIntensityReached, R>
  readonly startChild: (
    spec: ChildSpec<unknown, R>,
    options?: StartOptions
  ) => Effect.Effect<Path.ActorPath, Errors.StartChildError>
  /** Ends the child with its stop hooks; the spec stays as `stopped` (a temporary one is deleted). Idempotent. */
  readonly terminateChild: (id: string) => Effect.Effect<void, Errors.NoSuchActor | Errors.SupervisorDown>
  /** Ends the child (`stop`), then starts it at once, whatever its state; waits for the acknowledgement. */
  readonly restartChild: (
    id: string
  ) => Effect.Effect<void, Errors.NoSuchActor | Errors.StartFailed | Errors.SupervisorDown>
  /** Forgets a child that is not running. */
  readonly deleteChild: (
    id: string
  ) => Effect.Effect<void, Errors.NoSuchActor | Errors.StillRunning | Errors.SupervisorDown>
  /** The children as the tree shows them, oldest first. */
  readonly whichChildren: Effect.Effect<ReadonlyArray<TreeNode>, Errors.SupervisorDown>
  readonly count: Effect.Effect<Count, Errors.SupervisorDown>
}

/**
 * A dynamic supervisor: its spec and its handle. One handle belongs to one place in the tree. Dies on an invalid id.
 * `RChildren` are the services its children may need, also those started later.
 */
export function make<E, RChildren = never, RDesired = never>(
  id: string,
  options: Options<E, RChildren, RDesired>
): Effect.Effect<DynamicSupervisor<E, RChildren | Exclude<RDesired, Provided>>>
export function make<E, R>(id: string, options: Options<E, R, R | Provided>): Effect.Effect<DynamicSupervisor<E, R>> {
  return Effect.sync(() => {
    let control: DynamicControl<R> | undefined
    const withControl = <A, E1>(use: (control: DynamicControl<R>) => Effect.Effect<A, E1>) =>
      Effect.suspend((): Effect.Effect<A, E1 | Errors.SupervisorDown> =>
        control === undefined ? Effect.fail(new Errors.SupervisorDown({ id })) : use(control)
      )
    // The handle's supervisor is never the root, and a call on a child that ends with it is a call on one that is down.
    const supervised = <A, E1>(effect: Effect.Effect<A, E1 | Errors.NotSupervised>) =>
      Effect.catchTag(effect, "NotSupervised", () => Effect.fail(new Errors.SupervisorDown({ id })))
    return {
      spec: {
        id: checkId(id),
        kind: options.kind ?? "supervisor",
        description: options.description ?? "",
        policy: options.policy ?? RestartPolicy.infrastructure,
        shutdown: shutdownMillis(options.shutdown ?? "infinity"),
        startDeadline: options.startDeadline === undefined ? 90_000 : shutdownMillis(options.startDeadline),
        autoStart: options.autoStart ?? true,
        resume: false,
        behaviour: {
          _tag: "Dynamic",
          intensity:
            options.intensity === undefined
              ? undefined
              : { restarts: options.intensity, within: Duration.toMillis(options.period ?? Duration.seconds(30)) },
          maxChildren: options.maxChildren ?? Number.POSITIVE_INFINITY,
          children: options.children,
          attach: (attached) => {
            control = attached
          }
        }
      },
      startChild: (spec, options) => withControl((control) => control.startChild(spec, options?.wait !== "registered")),
      terminateChild: (id) => withControl((control) => supervised(control.tree.stop(Path.child(control.path, id)))),
      restartChild: (id) => withControl((control) => supervised(control.tree.restart(Path.child(control.path, id)))),
      deleteChild: (id) => withControl((control) => supervised(control.tree.remove(Path.child(control.path, id)))),
      whichChildren: withControl((control) =>
        Effect.catchTag(control.tree.children(control.path), "NoSuchActor", () =>
          Effect.fail(new Errors.SupervisorDown({ id }))
        )
      ),
      count: withControl((control) => Effect.sync(control.count))
    }
  })
}
