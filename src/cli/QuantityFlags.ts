/**
 * Flags that take durations as people write them (see Quantity.ts).
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import type { DurationSchema } from "@bufbuild/protobuf/wkt"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as CliError from "effect/cli/CliError"
import * as Flag from "effect/cli/Flag"
import { parseDuration, type Seconds } from "./Quantity.ts"

/** A duration where a bare number means seconds, as docker has it. */
export const secondsOrDuration = (text: string): Result.Result<Seconds, string> =>
  parseDuration(/^\d+$/.test(text) ? `${text}s` : text)

const check = <A>(name: string, parse: (text: string) => Result.Result<A, string>) =>
  Flag.mapEffect((text: string) =>
    Result.match(parse(text), {
      onSuccess: (value) => Effect.succeed(value),
      onFailure: (expected) =>
        Effect.fail(new CliError.InvalidValue({ option: name, value: text, expected, kind: "flag" }))
    })
  )

/** A flag that takes a duration. */
export const durationFlag = (name: string, parse: (text: string) => Result.Result<Seconds, string> = parseDuration) =>
  Flag.String(name).pipe(Flag.withMetavar("DURATION"), check(name, parse))

/** The duration as the API has it. */
export const toProto = ({ nanos, seconds }: Seconds): MessageInitShape<typeof DurationSchema> => ({ seconds, nanos })
