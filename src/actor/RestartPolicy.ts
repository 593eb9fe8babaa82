/**
 * When an actor is started again after it ended, how long to wait before, and what to do when that did not help.
 *
 * The same class serves an infrastructure actor, a container and, stored as JSON, the desired state: durations are
 * `Duration` in memory and whole or broken milliseconds when encoded, every field has a default on decoding.
 *
 * Traps:
 * - `budget` limits restarts in a sliding window of exact milliseconds; without one only the supervisor's intensity
 *   counts, and that counts only children with `whenSpent: "escalate"`. A child that shall not escalate never takes
 *   its siblings down.
 * - `attempt` (consecutive failures) and with it the delay go back to the beginning after a run of `resetAfter`,
 *   counted from the acknowledgement of the start to the end.
 * - A `temporary` actor is never restarted, not even as the bystander of a sibling's crash.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

/** OTP's restart types. `permanent`: always; `transient`: unless it ended normally; `temporary`: never. */
export const RestartType = Schema.Literals(["permanent", "transient", "temporary"])
export type RestartType = typeof RestartType.Type

/**
 * What happens when a budget is spent. `escalate`: the supervisor gives up with a typed failure; `park`: the spec is
 * kept and waits for a person; `keep-trying`: on and on at the longest delay.
 */
export const WhenSpent = Schema.Literals(["escalate", "park", "keep-trying"])
export type WhenSpent = typeof WhenSpent.Type

/** A duration stored as milliseconds, from 0 to about 31 years. */
const Milliseconds = Schema.Finite.pipe(
  Schema.check(Schema.isBetween({ minimum: 0, maximum: 1e12 })),
  Schema.decodeTo(Schema.Duration, SchemaTransformation.durationFromMillis)
)

const milliseconds = (byDefault: number) =>
  Milliseconds.pipe(
    Schema.withConstructorDefault(Effect.succeed(Duration.millis(byDefault))),
    Schema.withDecodingDefaultKey(Effect.succeed(byDefault))
  )

const bounded = (byDefault: number, minimum: number, maximum: number) =>
  Schema.Finite.pipe(
    Schema.check(Schema.isBetween({ minimum, maximum })),
    Schema.withConstructorDefault(Effect.succeed(byDefault)),
    Schema.withDecodingDefaultKey(Effect.succeed(byDefault))
  )

/**
 * The delay before the next restart: `initial` × `factor`^(attempt − 1), at most `max`, spread by ± `jitter` (a share
 * from 0 to 1). With `first`, the first restart after a healthy run waits that long and the curve begins at the second.
 */
export class Backoff extends Schema.Class<Backoff>("ironwood/Backoff")({
  first: Schema.optionalKey(Milliseconds),
  initial: milliseconds(100),
  factor: bounded(2, 1, 1_000),
  max: milliseconds(60_000),
  jitter: bounded(0.2, 0, 1),
  resetAfter: milliseconds(10_000)
}) {}

/** At most `restarts` restarts within the last `within`; 0 means that the first end spends it. */
export class Budget extends Schema.Class<Budget>("ironwood/Budget")({
  restarts: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }))),
  within: Milliseconds
}) {}

/** See the module header. The defaults are those of a workload: restarted for ever with back-off. */
export class RestartPolicy extends Schema.Class<RestartPolicy>("ironwood/RestartPolicy")({
  restart: RestartType.pipe(
    Schema.withConstructorDefault(Effect.succeed("permanent" as const)),
    Schema.withDecodingDefaultKey(Effect.succeed("permanent" as const))
  ),
  backoff: Backoff.pipe(
    Schema.withConstructorDefault(Effect.sync(() => new Backoff({}))),
    Schema.withDecodingDefaultKey(Effect.succeed({}))
  ),
  budget: Schema.optionalKey(Budget),
  whenSpent: WhenSpent.pipe(
    Schema.withConstructorDefault(Effect.succeed("keep-trying" as const)),
    Schema.withDecodingDefaultKey(Effect.succeed("keep-trying" as const))
  )
}) {}

/** What {@link make} takes: every part may be left out, durations as Effect writes them (`"2 seconds"`, `500`). */
export interface Options {
  readonly restart?: RestartType
  readonly backoff?: {
    readonly first?: Duration.Input
    readonly initial?: Duration.Input
    readonly factor?: number
    readonly max?: Duration.Input
    readonly jitter?: number
    readonly resetAfter?: Duration.Input
  }
  readonly budget?: { readonly restarts: number; readonly within: Duration.Input }
  readonly whenSpent?: WhenSpent
}

/**
 * A policy from a few words; what is left out comes from `base` (a workload's defaults unless told otherwise).
 *
 * ```ts
 * RestartPolicy.make({ restart: "transient", backoff: { max: "10 seconds" }, budget: { restarts: 5, within: "1 minute" }, whenSpent: "park" })
 * ```
 */
export const make = (options: Options, base: RestartPolicy = workload): RestartPolicy => {
  const backoff = options.backoff ?? {}
  const duration = (given: Duration.Input | undefined, otherwise: Duration.Duration) =>
    given === undefined ? otherwise : Duration.fromInputUnsafe(given)
  const first = backoff.first === undefined ? base.backoff.first : Duration.fromInputUnsafe(backoff.first)
  const budget =
    options.budget === undefined
      ? base.budget
      : new Budget({ restarts: options.budget.restarts, within: Duration.fromInputUnsafe(options.budget.within) })
  return new RestartPolicy({
    restart: options.restart ?? base.restart,
    backoff: new Backoff({
      ...(first === undefined ? {} : { first }),
      initial: duration(backoff.initial, base.backoff.initial),
      factor: backoff.factor ?? base.backoff.factor,
      max: duration(backoff.max, base.backoff.max),
      jitter: backoff.jitter ?? base.backoff.jitter,
      resetAfter: duration(backoff.resetAfter, base.backoff.resetAfter)
    }),
    ...(budget === undefined ? {} : { budget }),
    whenSpent: options.whenSpent ?? base.whenSpent
  })
}

/** For containers and virtual machines: always again, 100 ms doubling to 60 s, ± 20 %, fresh after 10 s of health. */
export const workload: RestartPolicy = new RestartPolicy({})

/** For our own parts: again at once, then 100 ms doubling to 5 s; counts against the supervisor's intensity and escalates. */
export const infrastructure: RestartPolicy = new RestartPolicy({
  backoff: new Backoff({ first: Duration.zero, max: Duration.seconds(5) }),
  whenSpent: "escalate"
})

/** OTP's `permanent`: always again, without any delay; over the supervisor's intensity it escalates. */
export const permanent: RestartPolicy = new RestartPolicy({
  backoff: new Backoff({ initial: Duration.zero, jitter: 0 }),
  whenSpent: "escalate"
})

/** OTP's `transient`: as {@link permanent}, but a normal end is the end. */
export const transient: RestartPolicy = make({ restart: "transient" }, permanent)

/** OTP's `temporary`: runs once. */
export const temporary: RestartPolicy = make({ restart: "temporary" }, permanent)
