/**
 * The keys that leave a container's terminal without ending anything, in docker's words: `ctrl-p,ctrl-q`, `ctrl-x,x`. Any
 * number of keys, each a character or `ctrl-` and one of a to z, @, [, \, ], ^, _.
 */
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Flag from "effect/cli/Flag"
import { type Checked, checked } from "./FlagProblems.ts"

const byte = (key: string): ReadonlyArray<number> => {
  const controlled = /^ctrl-([a-z@[\\\]^_])$/.exec(key)?.[1]
  if (controlled !== undefined) return [controlled.toUpperCase().charCodeAt(0) & 0x1f]
  return /^[\x20-\x7e]$/.test(key) ? [key.charCodeAt(0)] : []
}

/** The bytes that the keys send. */
export const parseDetachKeys = (text: string): Result.Result<ReadonlyArray<number>, string> => {
  const keys = text.split(",")
  const bytes = keys.flatMap(byte)
  return bytes.length === keys.length ? Result.succeed(bytes) : Result.fail("keys like ctrl-p,ctrl-q or ctrl-x,x")
}

/** Ctrl-P Ctrl-Q. */
export const usualKeys: ReadonlyArray<number> = [16, 17]

/** `--detach-keys`. */
export const detachKeys = checked("detach-keys", "KEYS", parseDetachKeys).pipe(
  Flag.withDescription("The keys that leave its terminal and let it run (default: ctrl-p,ctrl-q)"),
  Flag.optional
)

/** The keys that were asked for, where they could be read; else the usual ones. */
export const keysOf = (given: Option.Option<Checked<ReadonlyArray<number>>>): ReadonlyArray<number> =>
  Option.getOrElse(Option.flatMap(given, Result.getSuccess), () => usualKeys)
