/**
 * Gives memory back when the brain has nothing to do: use it once, in `main`.
 *
 * V8 collects when the program allocates. After a burst (a hundred starts) the brain allocates next to nothing, so garbage
 * and half-empty pages would stay for hours. This looks every few seconds; when the event loop was idle and the heap has
 * grown since the last time, it starts an *incremental* collection that compacts; and at the next look a second one, when the
 * first has left many holes: V8 empties pages that were sparse when it began, which they are not before the garbage is gone.
 *
 * Traps: `gc()` as Node exposes it is one long pause and hardly compacts, so marking is started by V8's own trigger: for a
 * moment it is set to its lowest, together with the memory saver mode, and a collection of the young generation (1 ms) makes
 * V8 look at it, and find that the heap has grown: by a mebibyte that is garbage the next moment. Both are off again before a next burst would feel them. A V8 that no longer knows one of the flags
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
  /** Bytes of the heap's pages that no object has. */
  readonly holes: number
  /** At the look before, a collection was begun because the heap had grown. */
  readonly collected: boolean
}

const worthwhile = 3 * 1024 * 1024

/** Why a collection is worth its pauses, of an idle brain: the heap is larger than the last one left it, or it left holes. */
export const worthCollecting = ({
  collected,
  floor,
  holes,
  used,
  utilization
}: Look): "grown" | "holes" | undefined => {
  if (utilization >= 0.05) return undefined
  if (used - floor > worthwhile) return "grown"
  return collected && holes > worthwhile ? "holes" : undefined
}

const used = (): number => {
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

/** Makes V8 look at how much the heap has grown. */
const attract = (): void => {
  const growth = Array.from({ length: 131_072 }, () => 0)
  // what is so large becomes old as soon as it has survived one
  collectYoung()
  growth.length = 0
}

const collect = Effect.acquireUseRelease(
  Effect.sync(() => {
    setFlagsFromString("--memory-saver-mode")
    setFlagsFromString("--incremental-marking-soft-trigger=1")
  }),
  () => Effect.andThen(Effect.sync(attract), Effect.sleep(startMilliseconds)),
  () =>
    Effect.sync(() => {
      setFlagsFromString("--incremental-marking-soft-trigger=0")
      setFlagsFromString("--no-memory-saver-mode")
    })
)

/** Looks for ever; fork it. */
export const collectWhenIdle: Effect.Effect<never> = Effect.gen(function* () {
  let floor = 0
  let why: ReturnType<typeof worthCollecting>
  let seen: EventLoopUtilization = performance.eventLoopUtilization()
  for (;;) {
    yield* Effect.sleep(pause)
    const { utilization } = performance.eventLoopUtilization(seen)
    seen = performance.eventLoopUtilization()
    if (why !== undefined) floor = used()
    const { heapTotal, heapUsed } = process.memoryUsage()
    const holes = heapTotal - heapUsed
    why = worthCollecting({ utilization, used: used(), floor, holes, collected: why === "grown" })
    if (why !== undefined) yield* collect
  }
})
