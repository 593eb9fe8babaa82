/**
 * Monitors: to be told when another actor's life is over, without being touched by it.
 *
 * One-way, and each call is a monitor of its own: it tells exactly one {@link Down} about the incarnation that lives when
 * it is made, after that one's scope has closed (or was abandoned) and its names are free. An actor that does not live,
 * or is not there, gives its `Down` at once. For actors, and through the `Tree` for everybody else.
 *
 * ```ts
 * const gone = yield* Monitor.make("init/storage")        // from here on nothing is missed
 * yield* use(storage)
 * const { reason, exit } = yield* gone                    // waits
 * ```
 *
 * A monitor ends with its scope (OTP's `demonitor` with `flush`: nothing is told afterwards) and costs O(1) to make, to
 * end and to tell. One that has told leaves nothing behind, not even in a scope that lives on.
 *
 * **Traps.**
 * - The actor may be running again when you hear of it. `incarnation` says which life is meant; a monitor is not renewed.
 * - Ten thousand monitors of one actor are told a batch at a time, so that others get their turn between.
 *
 * **Where this differs from OTP**: there a `DOWN` is a message among others, here a value that one waits for; a stop by
 * the supervisor (`stopped`, `released`) is told apart from an end of its own (`ended`), where OTP has the reason
 * `shutdown` for what may be either; supervisors have monitors as workers do, and are down when their children are.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Down } from "./Down.ts"
import { Tree } from "./Tree.ts"

export { type Down, DownReason } from "./Down.ts"

/** Monitors the actor at `path` as long as the scope is open; the effect that it answers waits for the `Down`. */
export const make = (path: string): Effect.Effect<Effect.Effect<Down>, never, Tree | Scope.Scope> =>
  Effect.flatMap(Tree, (tree) => {
    const heard = Deferred.makeUnsafe<Down>()
    const monitoring = tree.monitor(path, (down) => Deferred.doneUnsafe(heard, Exit.succeed(down)))
    return Effect.as(monitoring, Deferred.await(heard))
  })

/** Waits until the life that the actor at `path` has now is over. */
export const down = (path: string): Effect.Effect<Down, never, Tree> => Effect.scoped(Effect.flatten(make(path)))

/** Monitors several actors at once: one `Down` each, in the order in which they went, then the end. */
export const downs = (paths: Iterable<string>): Stream.Stream<Down, never, Tree> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const tree = yield* Tree
      const all = Array.from(paths)
      const heard = yield* Queue.unbounded<Down>()
      for (const path of all) yield* tree.monitor(path, (down) => Queue.offerUnsafe(heard, down))
      return Stream.take(Stream.fromQueue(heard), all.length)
    })
  )
