/** How much of the output of one workload is kept, and what of it somebody wants to read. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** How much of a workload's output is kept: `maxFiles` files of about `maxBytes` each, the current one included. */
export const LogRetention = Schema.Struct({
  maxBytes: Schema.Int.pipe(
    Schema.check(Schema.isBetween({ minimum: 65_536, maximum: 2 ** 40 }, { expected: "a number of bytes from 65536" })),
    Schema.withDecodingDefaultKey(Effect.succeed(10 * 1024 * 1024))
  ),
  maxFiles: Schema.Int.pipe(
    Schema.check(Schema.isBetween({ minimum: 1, maximum: 100 }, { expected: "a number from 1 to 100" })),
    Schema.withDecodingDefaultKey(Effect.succeed(3))
  )
})
export type LogRetention = typeof LogRetention.Type

export interface LogOptions {
  /** Go on with what is written later, until the reader stops or the workload is removed. Default false. */
  readonly follow?: boolean
  /** Begin with the last so many entries. Default: all. */
  readonly tail?: number
  /** Begin with the last so many whole lines, however many entries they are in, instead. */
  readonly lines?: number
  /** Leave out entries older than this: nanoseconds since the Unix epoch. */
  readonly since?: bigint
  /** Default: both. */
  readonly streams?: ReadonlyArray<"stdout" | "stderr">
}
