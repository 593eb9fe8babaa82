/**
 * Numbers, times and durations between the domain (milliseconds since 1970, `Duration`) and the wire (Timestamp, Duration).
 *
 * Trap: a protobuf Duration carries a sign and 10^12 s; what is allowed is for the schema of the field to say, so
 * {@link millisOf} takes everything and judges nothing.
 */
import { create } from "@bufbuild/protobuf"
import { DurationSchema, timestampFromMs, TimestampSchema } from "@bufbuild/protobuf/wkt"
import type { Duration as WireDuration, Timestamp } from "@bufbuild/protobuf/wkt"
import * as Duration from "effect/Duration"

/** Milliseconds since 1970 as a Timestamp; nothing for nothing. */
export const timestamp = (millis: number | undefined): Timestamp | undefined =>
  millis === undefined ? undefined : timestampFromMs(millis)

/** A duration on the wire, exact to the nanosecond. */
export const wireDuration = (duration: Duration.Duration): WireDuration => wireMillis(Duration.toMillis(duration))

/** What a Duration on the wire can hold, about 10,000 years, in milliseconds. */
const longest = 315_576_000_000_000

/** Milliseconds, whole or not, as a Duration on the wire, exact to the nanosecond; infinity is the longest there is. */
export const wireMillis = (value: number): WireDuration => {
  const millis = Math.min(Math.max(value, -longest), longest)
  const seconds = Math.trunc(millis / 1_000)
  const nanos = Math.round((millis - seconds * 1_000) * 1e6)
  return Math.abs(nanos) === 1e9
    ? create(DurationSchema, { seconds: BigInt(seconds + Math.sign(nanos)), nanos: 0 })
    : create(DurationSchema, { seconds: BigInt(seconds), nanos })
}

/** A Duration on the wire in milliseconds, whole or not, of either sign. */
export const millisOf = (duration: WireDuration): number => Number(duration.seconds) * 1_000 + duration.nanos / 1e6

/** Nanoseconds since 1970 as a Timestamp. */
export const timestampOfNanos = (nanos: bigint): Timestamp => {
  const rest = ((nanos % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
  return create(TimestampSchema, { seconds: (nanos - rest) / 1_000_000_000n, nanos: Number(rest) })
}

/** A Timestamp as nanoseconds since 1970. */
export const nanosOf = (time: Timestamp): bigint => time.seconds * 1_000_000_000n + BigInt(time.nanos)

/** A count as the wire can carry it. */
export const uint32 = (count: number): number => Math.min(Math.max(0, count), 0xffff_ffff)
