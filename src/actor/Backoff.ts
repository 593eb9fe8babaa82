/**
 * How long to wait before the next restart: a curve over the consecutive ends, its cap, and the spread of each delay.
 *
 * The `n`th delay since the last healthy run, before cap and jitter:
 *
 * | curve | delay | 100 ms, factor 2 |
 * |---|---|---|
 * | `exponential` | `initial` × `factor`^(n−1) | 100, 200, 400, 800 ms |
 * | `linear` | `initial` × (1 + (n−1) × (`factor`−1)) | 100, 200, 300, 400 ms |
 * | `fibonacci` | `initial` × 1, 1, 2, 3, 5, 8 … (`factor` says nothing here) | 100, 100, 200, 300 ms |
 *
 * A `factor` of 1 is a constant delay. With `first`, the first delay after a healthy run is that, and the curve begins
 * with the second.
 *
 * Trap: the jitter is applied after the cap, so that a delay can be up to `max` × (1 + `jitter`).
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

/** A duration stored as milliseconds, from 0 to about 31 years. */
export const Milliseconds = Schema.Finite.pipe(
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

/** How delays grow; see the module header. */
export const Curve = Schema.Literals(["exponential", "linear", "fibonacci"])
export type Curve = typeof Curve.Type

/** See the module header. The defaults: 100 ms doubling to 60 s, ± 20 %, from the beginning after 10 s of health. */
export class Backoff extends Schema.Class<Backoff>("ironwood/Backoff")({
  first: Schema.optionalKey(Milliseconds),
  initial: milliseconds(100),
  curve: Curve.pipe(
    Schema.withConstructorDefault(Effect.succeed("exponential" as const)),
    Schema.withDecodingDefaultKey(Effect.succeed("exponential" as const))
  ),
  factor: bounded(2, 1, 1_000),
  max: milliseconds(60_000),
  /** A share from 0 to 1. */
  jitter: bounded(0.2, 0, 1),
  resetAfter: milliseconds(10_000)
}) {}

const goldenRatio = (1 + Math.sqrt(5)) / 2

/** The number by which `initial` is multiplied at `step`, from 0. May be infinite. */
const growth = ({ curve, factor }: Backoff, step: number): number => {
  switch (curve) {
    case "exponential":
      return factor ** step
    case "linear":
      return 1 + step * (factor - 1)
    case "fibonacci":
      return Math.round(goldenRatio ** (step + 1) / Math.sqrt(5))
  }
}

/** A delay within its spread, in whole milliseconds. `random` is from 0 to 1. */
export const spread = ({ jitter }: Backoff, delay: number, random: number): number =>
  Math.round(delay * (1 + jitter * (2 * random - 1)))

/** The longest delay, spread. */
export const longest = (backoff: Backoff, random: number): number =>
  spread(backoff, Duration.toMillis(backoff.max), random)

/** Whole milliseconds to wait before restart number `n` (from 1) since the last healthy run. `random` is from 0 to 1. */
export const delayOf = (backoff: Backoff, n: number, random: number): number => {
  if (backoff.first !== undefined && n === 1) return spread(backoff, Duration.toMillis(backoff.first), random)
  const step = n - (backoff.first === undefined ? 1 : 2)
  const initial = Duration.toMillis(backoff.initial)
  const delay = initial === 0 ? 0 : Math.min(Duration.toMillis(backoff.max), initial * growth(backoff, step))
  return spread(backoff, delay, random)
}
