/**
 * When a container is asked whether it is well, and what follows: Kubernetes' rules over whatever asks (`ProbeChecks.ts`). Only
 * time and counting is here, so that whole lives of probes run under a test clock.
 *
 * Trap: tries are a period apart from start to start; one that takes longer than the period is followed by the next at once.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { ProbeFailed } from "./ContainerExit.ts"
import type { Probe, ProbesSpec } from "./ProbeSpec.ts"

/** Why a container is not well, in words. */
export class Unwell extends Schema.TaggedError<Unwell>()("Unwell", { why: Schema.String }) {
  override get message(): string {
    return this.why
  }
}

/** Asks once. */
export type Check = (probe: Probe) => Effect.Effect<void, Unwell>

export interface Options {
  readonly name: string
  readonly spec: ProbesSpec
  readonly check: Check
  /** Waits while it makes no sense to ask. */
  readonly awake: Effect.Effect<unknown>
  /** For how many milliseconds it has run when it is met: an adopted one has had its initial delay. */
  readonly age: number
  /** Whether it is ready; with why not. Told at the beginning, and whenever it changes. */
  readonly ready: (ready: boolean, why: string) => Effect.Effect<void>
}

/** Whether there is anything to ask. */
export const isAsked = ({ liveness, readiness, startup }: ProbesSpec): boolean =>
  (startup ?? readiness ?? liveness) !== undefined

/** Tries until `enough` says so, which is told each result with how many of its kind came in a row. */
const tries = <A>(
  probe: Probe,
  check: Check,
  awake: Effect.Effect<unknown>,
  age: number,
  born: number,
  enough: (why: string | undefined, inARow: number) => Effect.Effect<A | undefined>
) =>
  Effect.gen(function* () {
    const wait = Duration.toMillis(probe.initialDelay) - age - ((yield* Clock.currentTimeMillis) - born)
    if (wait > 0) yield* Effect.sleep(Duration.millis(wait))
    let [wells, unwells] = [0, 0]
    while (true) {
      yield* awake
      const begun = yield* Clock.currentTimeMillis
      const why = yield* check(probe).pipe(
        Effect.timeoutOrElse({
          duration: probe.timeout,
          orElse: () => new Unwell({ why: `no answer within ${Duration.format(probe.timeout)}` })
        }),
        Effect.match({ onSuccess: () => undefined, onFailure: (error) => error.why })
      )
      if (why === undefined) [wells, unwells] = [wells + 1, 0]
      else [wells, unwells] = [0, unwells + 1]
      const result = yield* enough(why, why === undefined ? wells : unwells)
      if (result !== undefined) return result
      const rest = Duration.toMillis(probe.period) - ((yield* Clock.currentTimeMillis) - begun)
      yield* rest > 0 ? Effect.sleep(Duration.millis(rest)) : Effect.yieldNow
    }
  })

/** Asks for as long as it runs; fails when it shall end. Never returns. */
export const watch = ({ age, awake, check, name, ready, spec }: Options): Effect.Effect<never, ProbeFailed> =>
  Effect.gen(function* () {
    const { liveness, readiness, startup } = spec
    const born = yield* Clock.currentTimeMillis
    const failed = (kind: "startup" | "liveness", probe: Probe, detail: string) =>
      new ProbeFailed({ name, probe: kind, failures: probe.failureThreshold, detail })
    if (readiness !== undefined) yield* ready(false, startup === undefined ? "not asked yet" : "starting")
    if (startup !== undefined) {
      const why = yield* tries<string>(startup, check, awake, age, born, (why, inARow) =>
        Effect.succeed(why === undefined ? "" : inARow >= startup.failureThreshold ? why : undefined)
      )
      if (why !== "") return yield* failed("startup", startup, why)
    }
    const alive =
      liveness === undefined
        ? Effect.never
        : tries<string>(liveness, check, awake, age, born, (why, inARow) =>
            Effect.succeed(why !== undefined && inARow >= liveness.failureThreshold ? why : undefined)
          ).pipe(Effect.flatMap((why) => failed("liveness", liveness, why)))
    /** Why it is not ready, as told last; empty when it is. */
    let told: string | undefined
    const readying =
      readiness === undefined
        ? Effect.never
        : tries<never>(readiness, check, awake, age, born, (why, inARow) => {
            const counts = inARow >= (why === undefined ? readiness.successThreshold : readiness.failureThreshold)
            if (!counts || told === (why ?? "")) return Effect.undefined
            told = why ?? ""
            return Effect.as(ready(why === undefined, told), undefined)
          })
    return yield* Effect.raceFirst(alive, readying)
  })
