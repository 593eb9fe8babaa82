/**
 * Kills the brain at steps of one command, as the tests `KillEveryStep` do: at a few, spread over all of them, or with
 * `IRONWOOD_BOOT=all` at every one.
 */
import * as Effect from "effect/Effect"

/** Every step is wanted. */
export const all = process.env["IRONWOOD_BOOT"] === "all"

/** Brains that one taproot has killed: it waits longer and longer before it starts the next. */
const BRAINS = 4

/** What is made for a step: a name that no other run of the tests has on this host. */
export const nameAt = (step: number): string => `step-${process.pid}-${step}`

/** The steps from 1 on: all of them, or so many from the first to the last. */
export const chosen = (steps: number, sample: number): ReadonlyArray<number> =>
  all
    ? Array.from({ length: steps }, (_, index) => index + 1)
    : Array.from({ length: sample }, (_, index) => Math.max(1, Math.ceil(((index + 0.6) * steps) / sample)))

/** Every chosen step, a few to a world: `withWorld` makes one with a living brain, `choose` says the steps in the first one. */
export const killEverywhere = <World>(
  withWorld: <A>(use: (world: World) => Effect.Effect<A, unknown>) => Effect.Effect<A, unknown>,
  choose: (world: World) => Effect.Effect<ReadonlyArray<number>, unknown>,
  killAt: (world: World, step: number) => Effect.Effect<void, unknown>
): Effect.Effect<void, unknown> =>
  Effect.gen(function* () {
    let open: ReadonlyArray<number> | undefined
    do {
      open = yield* withWorld((world) =>
        Effect.gen(function* () {
          const steps: ReadonlyArray<number> = open ?? (yield* choose(world))
          for (const step of steps.slice(0, BRAINS)) yield* killAt(world, step)
          return steps.slice(BRAINS)
        })
      )
    } while (open.length > 0)
  })
