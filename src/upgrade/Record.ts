/**
 * Which brain is to run, in `brains/record.json` of the state directory: the only thing that is read before it is known which
 * brain reads it, so it is a file of its own and not in the database. It is replaced as a whole, synced to the disk; a power cut
 * finds the one before or the one after.
 *
 * Trap: an older brain reads it, too. A record that it does not understand makes the image's own brain run, and say so.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { writeDurably } from "../host/RebootGuard.ts"

/** The brain of the image, or of the program that was started: what taproot starts when nobody has asked for another. */
export const builtIn = "built-in"

/** A brain: {@link builtIn}, or the sha256 of its bundle. */
export const BrainId = Schema.String.pipe(Schema.check(Schema.isPattern(/^(?:built-in|[0-9a-f]{64})$/)))

/** Why a brain was left for the one before it. */
export const reasons = {
  ended: "it ended too often before it had proved itself",
  unhealthy: "it was not healthy in time",
  protocol: "it speaks another version of taproot's protocol",
  unstable: "it had proved itself, and then could not keep itself up",
  interrupted: "Ironwood started anew, or the brain before it died, before it had proved itself",
  damaged: "its files are not what was installed",
  requested: "somebody asked for it"
} as const
export const Reason = Schema.Literals([
  "ended",
  "unhealthy",
  "protocol",
  "unstable",
  "interrupted",
  "damaged",
  "requested"
])
export type Reason = typeof Reason.Type

export const Fault = Schema.Struct({
  reason: Reason,
  /** What was seen, in words. */
  detail: Schema.String,
  /** Milliseconds since 1970. */
  at: Schema.Finite
})
export type Fault = typeof Fault.Type

/** The last time that another brain was to run. */
export const Attempt = Schema.Struct({
  brain: BrainId,
  version: Schema.String,
  /** The one before it. */
  before: BrainId,
  at: Schema.Finite,
  fate: Schema.Literals(["trying", "confirmed", "fell-back"]),
  fault: Schema.optionalKey(Fault)
})
export type Attempt = typeof Attempt.Type

export const BuiltIn = Schema.Struct({ digest: Schema.String, version: Schema.String, stateLayout: Schema.Int })
export type BuiltIn = typeof BuiltIn.Type

export const Record = Schema.Struct({
  format: Schema.Literal(1),
  /** The built-in brain that all of this was decided over. */
  builtIn: BuiltIn,
  /** The brain that is to run; while there is a trial, the one to go back to. */
  current: BrainId,
  /** The one before it. */
  previous: Schema.optionalKey(BrainId),
  trial: Schema.optionalKey(
    Schema.Struct({
      brain: BrainId,
      /** The run of taproot that it belongs to. */
      instance: Schema.String,
      patienceMillis: Schema.Int
    })
  ),
  attempt: Schema.optionalKey(Attempt),
  /** Those that were left, which are not started again unless somebody asks for them. */
  bad: Schema.Record(BrainId, Fault),
  /** The end of a successor that taproot gave up and that has been dealt with: nanoseconds since 1970. */
  handled: Schema.optionalKey(Schema.String),
  /** The state as it was before a trial is being put back. */
  restoring: Schema.optionalKey(Schema.Boolean)
})
export type Record = typeof Record.Type

const Text = Schema.fromJsonString(Record)
const decode = Schema.decodeUnknownResult(Text)
const encode = Schema.encodeSync(Text)

export const fileOf = (directory: string): string => join(directory, "record.json")

export const exists = (directory: string): boolean => existsSync(fileOf(directory))

/** The record; undefined where there is none; a text says why it cannot be read. */
export const load = (directory: string): Record | string | undefined => {
  if (!exists(directory)) return undefined
  try {
    return Result.match(decode(readFileSync(fileOf(directory), "utf8")), {
      onSuccess: (record) => record,
      onFailure: ({ message }) => message.replaceAll(/\s*\n\s*/g, " ")
    })
  } catch (error) {
    return String(error)
  }
}

/** Throws what the kernel says. */
export const save = (directory: string, record: Record): void => writeDurably(fileOf(directory), encode(record))

/** Where nothing was ever installed. */
export const initial = (own: BuiltIn): Record => ({ format: 1, builtIn: own, current: builtIn, bad: {} })
