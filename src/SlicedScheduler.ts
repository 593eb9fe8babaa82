/**
 * The scheduler of the brain's fibers: those that give way (`Effect.yieldNow`, and every fiber after 2,048 steps) go on in
 * slices of at most {@link SLICE} milliseconds, and between two slices the event loop has its turn: taproot's heartbeat,
 * timers, other calls.
 *
 * Effect's own goes on with all of them at once. A hundred calls that arrive together, or a hundred transactions that
 * became durable in one commit, would then hold up everything else for as long as they all take together.
 *
 * Trap: what waits for an answer (a `Deferred`, a callback) goes on inside whoever gives the answer, unscheduled. Whoever
 * answers many at a time has them give way: see `StateConnection`, `Requests` and `EffectGrpc`.
 */
import * as Scheduler from "effect/Scheduler"

/** Milliseconds; a task that was begun is carried out whole. */
export const SLICE = 2

/** A queue of its own. One per program: two would take turns with two slices each. */
export const make = (): Scheduler.Scheduler => {
  let waiting: Array<{ task: () => void }> = []
  /** Place of the next task. */
  let next = 0
  let asked = false

  const ask = (): void => {
    if (asked) return
    asked = true
    setImmediate(run)
  }

  const run = (): void => {
    asked = false
    const end = performance.now() + SLICE
    try {
      do waiting[next++]?.task()
      while (next < waiting.length && performance.now() < end)
    } finally {
      // Tasks done are dropped when they are the larger part: O(1) per task, and no memory.
      if (next > waiting.length / 2) {
        waiting = waiting.slice(next)
        next = 0
      }
      if (waiting.length > 0) ask()
    }
  }

  return new Scheduler.MixedScheduler("async", (task) => {
    const entry = { task }
    waiting.push(entry)
    ask()
    return () => {
      entry.task = () => {}
    }
  })
}
