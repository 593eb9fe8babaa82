/**
 * The registry: names for actors, unique in their tree, that others find them by without knowing where they hang.
 *
 * ```ts
 * // inside an actor, before it says that it is ready
 * yield* Registry.register("storage")
 * // anywhere else
 * const path = yield* Registry.awaitName("storage")     // waits until somebody has it
 * ```
 *
 * A name is held as long as the incarnation that took it, shown in the tree as its annotation `name`, and free again before
 * the actor's supervisor hears of the end: a restart at once finds it free. Also after a start that failed or was given up,
 * and when finalizers hang and the fiber is abandoned. Taking, finding and freeing a name cost O(1); nobody polls.
 *
 * **Traps.**
 * - A name says where its holder is *now*. To act on that, monitor or call the path and expect it to be gone.
 * - Register before `Actor.ready`, or the next sibling may start and not find you.
 * - An actor's own annotation `name` and this one would overwrite each other.
 *
 * **Where this differs from OTP and Elixir**: a taken name is a typed failure of the actor itself, which its policy
 * judges (a misconfiguration is worth no restarts: say so there), where `start_link` answers `already_started` and the
 * caller may take the other one for its own. Before OTP 26 a restart could meet the name of its dying predecessor; Elixir's
 * `Registry` still frees names some time after the end. Here the order is fixed. Names are per tree, not per process of the
 * system, and there are only unique ones: what a duplicate-key registry is for, `PubSub` does.
 */
import * as Effect from "effect/Effect"
import type { ActorPath } from "./ActorPath.ts"
import { NameTaken } from "./Errors.ts"
import { Self } from "./Self.ts"
import { Tree } from "./Tree.ts"

export { NameTaken } from "./Errors.ts"

/**
 * Takes a name for the calling actor, until its incarnation ends. Idempotent. Dies on an empty name. A fiber that has
 * outlived its incarnation is interrupted here.
 */
export const register = Effect.fnUntraced(function* (name: string): Effect.fn.Return<void, NameTaken, Self | Tree> {
  if (name === "") return yield* Effect.die(new TypeError("an actor cannot be registered under an empty name"))
  const { names } = yield* Tree
  const taken = names.take(yield* Self, name)
  if (taken._tag === "Over") return yield* Effect.interrupt
  if (taken._tag === "Taken") return yield* new NameTaken({ name, holder: taken.by })
})

/** Gives a name back before the end; does nothing when it is not the calling actor's. */
export const unregister = Effect.fnUntraced(function* (name: string): Effect.fn.Return<void, never, Self | Tree> {
  const { names } = yield* Tree
  names.give(yield* Self, name)
})

/** Where the holder of a name is, if somebody holds it. */
export const whereis = (name: string): Effect.Effect<ActorPath | undefined, never, Tree> =>
  Effect.map(Tree, ({ names }) => names.holder(name))

/** All names that are held, with their holders. */
export const names: Effect.Effect<ReadonlyMap<string, ActorPath>, never, Tree> = Effect.map(Tree, ({ names }) =>
  names.all()
)

/** Waits until somebody holds the name. Who does may have changed, or be gone, by the time one looks for him. */
export const awaitName = (name: string): Effect.Effect<ActorPath, never, Tree> =>
  Effect.flatMap(Tree, ({ names }) =>
    Effect.callback((resume) => {
      const cancel = names.wait(name, (path) => resume(Effect.succeed(path)))
      return Effect.sync(cancel)
    })
  )
