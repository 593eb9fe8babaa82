/**
 * What a status other than success means. Registries explain themselves in JSON (`{"errors":[{"code","message"}]}`,
 * distribution specification, "error codes"); their words are shown, cut and without control characters.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Answer } from "./Http.ts"
import { RegistryAnswerInvalid, RegistryBusy, RegistryUnavailable } from "./RegistryError.ts"

const Explained = Schema.fromJsonString(
  Schema.Struct({
    errors: Schema.NonEmptyArray(
      Schema.Struct({ code: Schema.optionalKey(Schema.String), message: Schema.optionalKey(Schema.String) })
    )
  })
)
const decode = Schema.decodeUnknownOption(Explained)

/** How much of an explanation is read. */
export const maximumExplanation = 64 * 1024

/** The registry's own words behind a colon; empty when it has none. */
export const words = (bytes: Uint8Array): string =>
  Option.match(decode(new TextDecoder().decode(bytes.subarray(0, maximumExplanation))), {
    onNone: () => "",
    onSome: ({ errors: [{ code, message }] }) => {
      const said = (message ?? code ?? "").replace(/[\p{Cc}\p{Cf}]+/gu, " ").trim()
      return said === "" ? "" : `: ${said.slice(0, 200)}`
    }
  })

/** How long to wait where it does not say. */
const usualWait = 1

/** `Retry-After`, in seconds: a number, or a date. */
export const retryAfter = (value: string | undefined, now: number): number => {
  if (value === undefined) return usualWait
  const seconds = /^\d{1,9}$/.test(value)
    ? Number(value)
    : /^[A-Z][a-z]{2}/.test(value)
      ? Math.ceil((Date.parse(value) - now) / 1000)
      : Number.NaN
  return Number.isFinite(seconds) ? Math.max(seconds, 0) : usualWait
}

/** The error of a status that means the same whatever was asked for. */
export const ofStatus = (registry: string, answer: Answer, bytes: Uint8Array, what: string) => {
  const { header, status } = answer
  if (status === 429) {
    return new RegistryBusy({ registry, retryAfterSeconds: retryAfter(header("retry-after"), Date.now()) })
  }
  const said = `it answers ${status} when asked for ${what}${words(bytes)}`
  return status >= 500 || status === 408
    ? new RegistryUnavailable({ registry, problem: said })
    : new RegistryAnswerInvalid({ registry, problem: said })
}
