/**
 * Links: two actors of which neither is to live on when the other has failed.
 *
 * A link joins two incarnations, the caller's and the one that lives at a path now, in both directions. When one of them
 * ends abnormally (failure, defect, interruption from outside, a start that never came) the other is ended with
 * {@link LinkedActorEnded}, within its own `shutdown` time and without stop hooks, and its own supervisor judges that
 * failure by its policy. A supervisor that is linked gives up the same way. Through a chain of links everybody gets the
 * failure of the one that failed first.
 *
 * There is at most one link per pair, whoever made it. {@link link} holds it for life, {@link linkScoped} for as long as a
 * scope; it is gone when nobody holds it, and with either of the two lives: the next incarnation is not linked.
 *
 * **Traps.**
 * - A scope that closes *with a failure* does not unlink: that failure may be on its way to end the actor, and then the
 *   other must hear of it. If you handle it instead, {@link unlink}.
 * - Links are for peers in different places of the tree. Among siblings a strategy says the same and also the order.
 * - To hear of an end and decide for yourself, use a `Monitor`.
 *
 * **Where this differs from OTP**, on purpose:
 * - Being ended by one's supervisor or a person (`stop`, `release`, also a kill for want of time) does not pass along a
 *   link. In OTP `shutdown` does, and stopping one worker takes those linked to it along, as crashes. Here the release of
 *   the brain must end ten thousand actors and let none of them fail; a person who stops one actor has named the one.
 * - Linking to an actor that does not live is a typed failure of {@link link}, not a signal that arrives some time later.
 * - There is no trapping of exits, which is how an OTP process gets its clean-up to run: finalizers run anyway.
 * - Holds are counted. OTP's `unlink` takes the link from under everybody else who had asked for it.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { ActorDown, NoSuchActor } from "./Errors.ts"
import { Self } from "./Self.ts"
import { type LinkHold, Tree } from "./Tree.ts"

export { LinkedActorEnded } from "./Errors.ts"

const hold = (path: string): Effect.Effect<LinkHold, NoSuchActor | ActorDown, Self | Tree> =>
  Effect.flatMap(Tree, (tree) => Effect.flatMap(Self, (self) => tree.link(self, path)))

/** Links the calling actor and the one at `path` until one of them ends. Idempotent; with itself it does nothing. */
export const link = (path: string): Effect.Effect<void, NoSuchActor | ActorDown, Self | Tree> =>
  Effect.asVoid(hold(path))

/** The same until the scope closes; see the traps above. */
export const linkScoped = (path: string): Effect.Effect<void, NoSuchActor | ActorDown, Self | Tree | Scope.Scope> =>
  Effect.asVoid(
    Effect.acquireRelease(hold(path), (held, exit) =>
      Effect.sync(() => {
        if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) held.release()
      })
    )
  )

/** Takes away the link with the actor at `path`, whoever holds it. Idempotent. */
export const unlink = (path: string): Effect.Effect<void, never, Self | Tree> =>
  Effect.flatMap(Tree, (tree) => Effect.flatMap(Self, (self) => tree.unlink(self, path)))
