/**
 * The management calls on one supervisor: OTP's `supervisor` API, each call with typed answers. `Supervisor.managed` and
 * `DynamicSupervisor.make` give a handle that has them; it belongs to one place in the tree.
 *
 * Traps: on a supervisor that is down, starting or ending every call fails with `SupervisorDown`. Commit the desired state
 * first, then take that answer as "it will start with the supervisor".
 *
 * Where this differs from OTP: a failing first start of an added child does not discard its spec, which follows its own
 * policy; children that were added are there again after a restart of the supervisor; calls have no default time limit, as
 * an Effect can be given one.
 */
import * as Effect from "effect/Effect"
import * as Path from "./ActorPath.ts"
import type { Attach, ChildSpec, ChildSpecView, Control, Count, Reloaded } from "./ChildSpec.ts"
import * as Errors from "./Errors.ts"
import type { TreeNode } from "./Tree.ts"

/** How {@link Management.startChild} answers: after the acknowledgement (default), or once registered. */
export interface StartOptions {
  readonly wait?: "acknowledged" | "registered"
}

export interface Management<in R> {
  /** Adds a child behind the others and starts it. */
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
  /** The spec that its next start takes. */
  readonly getChildSpec: (id: string) => Effect.Effect<ChildSpecView, Errors.NoSuchActor | Errors.SupervisorDown>
  /** The children as the tree shows them, oldest first. */
  readonly whichChildren: Effect.Effect<ReadonlyArray<TreeNode>, Errors.SupervisorDown>
  readonly countChildren: Effect.Effect<Count, Errors.SupervisorDown>
  /**
   * Gives children new specs without ending anybody, as OTP's code change does: known ids have theirs from the next start
   * on (their policy at once), new ids are added and wait to be started, ids that are not named stay as they are.
   */
  readonly reloadSpecs: (
    specs: ReadonlyArray<ChildSpec<unknown, R>>
  ) => Effect.Effect<Reloaded, Errors.SpecInvalid | Errors.SupervisorDown>
}

/** The calls for the supervisor `id`, and what its spec tells them by. */
export const make = <R>(id: string): { readonly management: Management<R>; readonly attach: Attach<R> } => {
  let control: Control<R> | undefined
  const down = Effect.suspend(() => Effect.fail(new Errors.SupervisorDown({ id })))
  const withControl = <A, E>(use: (control: Control<R>) => Effect.Effect<A, E>) =>
    Effect.suspend((): Effect.Effect<A, E | Errors.SupervisorDown> => (control === undefined ? down : use(control)))
  // The handle's supervisor may be the root, its children never are.
  const onChild = <A, E>(
    id: string,
    use: (path: Path.ActorPath, control: Control<R>) => Effect.Effect<A, E | Errors.NotSupervised>
  ) =>
    withControl((control): Effect.Effect<A, E | Errors.NoSuchActor | Errors.SupervisorDown> => {
      const path = Path.child(control.path, id)
      if (!Path.isId(id)) return Effect.fail(new Errors.NoSuchActor({ path }))
      return Effect.catchTag(use(path, control), "NotSupervised", () => down)
    })
  return {
    attach: (attached) => {
      control = attached
    },
    management: {
      startChild: (spec, options) => withControl((control) => control.startChild(spec, options?.wait !== "registered")),
      terminateChild: (id) => onChild(id, (path, { tree }) => tree.stop(path)),
      restartChild: (id) => onChild(id, (path, { tree }) => tree.restart(path)),
      deleteChild: (id) => onChild(id, (path, { tree }) => tree.remove(path)),
      getChildSpec: (id) =>
        withControl((control) =>
          Effect.suspend(() => {
            const spec = control.childSpec(id)
            return spec === undefined
              ? Effect.fail(new Errors.NoSuchActor({ path: Path.child(control.path, id) }))
              : Effect.succeed(spec)
          })
        ),
      whichChildren: withControl((control) =>
        Effect.catchTag(control.tree.children(control.path), "NoSuchActor", () => down)
      ),
      countChildren: withControl((control) => Effect.sync(control.count)),
      reloadSpecs: (specs) => withControl((control) => control.reload(specs))
    }
  }
}
