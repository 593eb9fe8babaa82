/**
 * One lock per key, made when it is wanted and forgotten when nobody wants it any more: for "do this work once, however many
 * ask for it". Waiters are served in order; an interrupted or failed holder lets the next one try.
 *
 * Trap: not re-entrant. A holder that asks for its own key waits for ever.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

export interface KeyedLock {
  /** Runs the effect while nobody else runs one under the same key. */
  readonly withLock: (key: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

export const make = (): KeyedLock => {
  const locks = new Map<string, { readonly semaphore: Semaphore.Semaphore; users: number }>()
  return {
    withLock: (key) => (effect) =>
      Effect.suspend(() => {
        const lock = locks.get(key) ?? { semaphore: Semaphore.makeUnsafe(1), users: 0 }
        locks.set(key, lock)
        lock.users++
        return lock.semaphore.withPermit(effect).pipe(
          Effect.ensuring(
            Effect.sync(() => {
              lock.users--
              if (lock.users === 0) locks.delete(key)
            })
          )
        )
      })
  }
}
