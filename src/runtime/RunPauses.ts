/**
 * Which runs of containers are frozen, and who wants to hear of it: the part of `ContainerRuns` that freezes them and lets them go on.
 */
import * as Effect from "effect/Effect"
import type { ContainerRun } from "./ContainerRuns.ts"
import type { KnownRuns } from "./KnownRuns.ts"

export const make = (lives: KnownRuns) => {
  /** By container. */
  const listeners = new Map<string, Set<(paused: boolean) => void>>()

  const isFrozen = (run: ContainerRun): boolean => lives.of(run)?.isFrozen === true
  const hasFrozen = (container: string): boolean => lives.those(container).some((life) => life.isFrozen)

  const setPaused = (run: ContainerRun, paused: boolean) =>
    Effect.gen(function* () {
      yield* run.system.runtime.control(paused ? "pause" : "resume", run.id)
      lives.note(run, { isFrozen: paused })
      listeners.get(run.container)?.forEach((tell) => tell(paused))
    }).pipe(Effect.uninterruptible)

  /** Before it is ended: a frozen process takes no signal; on cgroup v1 not even the last one. */
  const thaw = (run: ContainerRun) => (isFrozen(run) ? Effect.ignore(setPaused(run, false)) : Effect.void)

  const onPause = (container: string, tell: (paused: boolean) => void) =>
    Effect.asVoid(
      Effect.acquireRelease(
        Effect.sync(() => {
          const those = listeners.get(container) ?? new Set()
          listeners.set(container, those.add(tell))
          if (hasFrozen(container)) tell(true)
        }),
        () =>
          Effect.sync(() => {
            const those = listeners.get(container)
            those?.delete(tell)
            if (those?.size === 0) listeners.delete(container)
          })
      )
    )

  return { setPaused, thaw, onPause, isPaused: (container: string) => Effect.sync(() => hasFrozen(container)) }
}
export type RunPauses = ReturnType<typeof make>
