/**
 * What a running actor knows about itself: one value per incarnation, in the context of its effect.
 *
 * Actors use it through the functions of `Actor.ts` (`ready`, `annotate`, `onStop` …); `yield* Self` gives path and
 * incarnation, e.g. to label a process so that the next incarnation finds it again.
 */
import * as Context from "effect/Context"
import type { ActorPath } from "./ActorPath.ts"
import type { ExitView } from "./ExitView.ts"

/** Short facts shown with an actor in the tree, e.g. `{ pid: "4711" }`. */
export type Annotations = Readonly<Record<string, string>>

export class Self extends Context.Service<
  Self,
  {
    readonly path: ActorPath
    /** 1 for the first life, one more with every start; goes on over restarts of the brain. */
    readonly incarnation: number
    /** How the previous incarnation ended, when it did so by itself. */
    readonly previousExit: ExitView | undefined
    /**
     * Acknowledges the start of something that has run for `runningFor` milliseconds already, or that it was taken over
     * (`adopted`). Idempotent; use `Actor.ready` and `Actor.adopted`.
     */
    readonly acknowledge: (annotations: Annotations, runningFor: number, adopted: boolean) => void
    /** Adds annotations (an empty string removes one). Use `Actor.annotate`. */
    readonly annotate: (annotations: Annotations) => void
    /** Marks the start as ignored; the actor must end right after. Use `Actor.ignore`. */
    readonly ignore: () => void
    /** True once the supervisor has asked for an end of the kind `stop` whose hooks are still allowed to run. */
    readonly hooksWanted: () => boolean
    /** Tells how what it looked after ended, while it is being ended itself. Use `Actor.stopped`. */
    readonly stopped: (exit: ExitView) => void
    /** Registers the cancellation of the stop hook that runs now (undefined: none). Used by `Actor.onStop`. */
    readonly hookRuns: (cancel: (() => void) | undefined) => void
    /** Tells the history that a stop hook failed. Used by `Actor.onStop`. */
    readonly hookFailed: (message: string) => void
  }
>()("ironwood/actor/Self") {}
