/**
 * Gives memory back when the brain has nothing to do: use it once, in `main`.
 *
 * V8 collects when the program allocates. After a burst (a hundred starts) the brain allocates next to nothing, so garbage
 * and half-empty pages would stay for hours. This looks every few seconds; when the event loop was idle and the heap has
 * grown since the last time, it starts an *incremental* collection that compacts.
 *
 * Traps: `gc()` as Node exposes it is one long pause and hardly compacts, so marking is started by V8's own trigger: for a
 * moment it is set to its lowest, together with the memory saver mode, and a collection of the young generation (1 ms) makes
 * V8 look at it. Both are off again before a next burst would feel them. A V8 that no longer knows one of the flags
 * ignores it: then nothing is given back early, and nothing breaks. The flags are process-wide, the heap is this thread's.
 */
import * as Effect from "effect/Effect"
import { performance, type EventLoopUtilization } from "node:perf_hooks"
import { setFlagsFromString } from "node:v8"
import { collectYoung } from "./storage/YoungCollection.ts"

/** Between two looks. */
const pause = "3 seconds"

/** How long V8 has to start marking. */
const startMilliseconds = 150

/** What one look sees. */
export interface Look {
  /** Share of the time since the last look that the event loop had something to do, 0 to 1. */
  readonly utilization: number
  /** Bytes of the heap and of buffers outside of it. */
  readonly used: number
  /** The same after the last collection; 0 when there was none. */
  readonly floor: number
}

/** Whether a collection is worth its pauses: idle, and at least 3 MiB more than the last one left. */
export const worthCollecting = ({ floor, used, utilization }: Look): boolean =>
  utilization < 0.05 && used - floor > 3 * 1024 * 1024

const used = (): number => {
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const collect = Effect.acquireUseRelease(
  Effect.sync(() => {
    setFlagsFromString("--memory-saver-mode")
    setFlagsFromString("--incremental-marking-soft-trigger=1")
  }),
  () => Effect.andThen(Effect.sync(collectYoung), Effect.sleep(startMilliseconds)),
  () =>
    Effect.sync(() => {
      setFlagsFromString("--incremental-marking-soft-trigger=0")
      setFlagsFromString("--no-memory-saver-mode")
    })
)

/** Looks for ever; fork it. */
export const collectWhenIdle: Effect.Effect<never> = Effect.gen(function* () {
  let floor = 0
  let collected = false
  let seen: EventLoopUtilization = performance.eventLoopUtilization()
  for (;;) {
    yield* Effect.sleep(pause)
    const { utilization } = performance.eventLoopUtilization(seen)
    seen = performance.eventLoopUtilization()
    if (collected) floor = used()
    collected = worthCollecting({ utilization, used: used(), floor })
    if (collected) yield* collect
  }
})
