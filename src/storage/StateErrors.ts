/**
 * Everything that can go wrong with the desired state, as data: one tagged error per kind, each with a message that a
 * person can act on.
 *
 * `StateFailure` (unavailable, corrupt, foreign) is about the database and may meet any operation that touches it; nothing
 * of the operation was done. `StateConflict`, `StateValueInvalid` and `StateRequestReused` are about one request. That a
 * record does not exist is no error: reads answer with an `Option`.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/** Why the database cannot serve now. Each of them can pass without anybody touching the database itself. */
export const UnavailableReason = Schema.Literals([
  "DiskFull",
  "InputOutput",
  "ReadOnly",
  "CannotOpen",
  "Locked",
  "OutOfMemory",
  "WorkerDied",
  "Closed",
  "Other"
])
export type UnavailableReason = typeof UnavailableReason.Type

const advice: Readonly<Record<UnavailableReason, string>> = {
  DiskFull: "the disk is full; make room, the next attempt will work again",
  InputOutput: "the disk reports errors; see the kernel log (dmesg) and check the disk",
  ReadOnly: "the file or its filesystem is read-only; remount it writable or move the state directory",
  CannotOpen: "the file cannot be opened or created; check that its directory exists and may be written",
  Locked: "another process has it open; stop that process",
  OutOfMemory: "there was no memory left for it; free some",
  WorkerDied: "the thread that writes it died; it is started again with the next operation",
  Closed: "the program is ending and has closed it",
  Other: "the database refused"
}

/**
 * The database cannot be read or written now. The operation was not done, with one exception: after `WorkerDied` it may
 * have been done or not (never in part). Worth a retry.
 */
export class StateUnavailable extends Schema.TaggedError<StateUnavailable>()("StateUnavailable", {
  path: Schema.String,
  reason: UnavailableReason,
  /** What SQLite or the kernel said. */
  detail: Schema.String
}) {
  override get message(): string {
    return `state ${this.path} is unavailable: ${advice[this.reason]} (${this.detail})`
  }
}

/** The file is damaged or no database at all. It is left as it is; a retry does not help. */
export class StateCorrupt extends Schema.TaggedError<StateCorrupt>()("StateCorrupt", {
  path: Schema.String,
  /** What the check found. */
  detail: Schema.String
}) {
  override get message(): string {
    return (
      `state ${this.path} is damaged: ${this.detail}. Nothing was changed. ` +
      `Restore it, with its -wal file, from a backup; or save what is readable (sqlite3 ${this.path} .recover); ` +
      `or move ${this.path}* away to start with an empty state`
    )
  }
}

/** A database of another program, or of a newer version of this one. It is left as it is. */
export class StateForeign extends Schema.TaggedError<StateForeign>()("StateForeign", {
  path: Schema.String,
  /** What about it is foreign, in words. */
  detail: Schema.String
}) {
  override get message(): string {
    return `state ${this.path} is not ours to open: ${this.detail}. Nothing was changed; use that program, or another state directory`
  }
}

/** What may meet any operation that touches the database. */
export const StateFailure = Schema.Union([StateUnavailable, StateCorrupt, StateForeign])
export type StateFailure = typeof StateFailure.Type

/** The record is not in the version that the writer expected: somebody else changed it in between. Read it again, decide again. */
export class StateConflict extends Schema.TaggedError<StateConflict>()("StateConflict", {
  kind: Schema.String,
  name: Schema.String,
  /** What the writer expected, in words. */
  expected: Schema.String,
  /** The generation that is there; none when there is no such record. */
  found: Schema.Option(Schema.Int)
}) {
  override get message(): string {
    const found = Option.match(this.found, {
      onNone: () => "it does not exist",
      onSome: (generation) => `it is at generation ${generation}`
    })
    return `${this.kind} ${this.name} was changed by somebody else: expected ${this.expected}, but ${found}; read it again`
  }
}

/** One thing that is wrong in a value: where (`resources.memoryBytes`, empty for the value as a whole) and what. */
export const FieldProblem = Schema.Struct({ field: Schema.String, problem: Schema.String })
export type FieldProblem = typeof FieldProblem.Type

/**
 * A value does not fit its schema: one to be stored (a fault of the caller), or a stored one (written by another version
 * or changed from outside). A stored one stays as it is; other records are not affected.
 */
export class StateValueInvalid extends Schema.TaggedError<StateValueInvalid>()("StateValueInvalid", {
  kind: Schema.String,
  name: Schema.String,
  /** Whether it is a value in the database (true) or one that was to be put there. */
  stored: Schema.Boolean,
  problems: Schema.Array(FieldProblem)
}) {
  override get message(): string {
    const problems = this.problems.map(({ field, problem }) => (field === "" ? problem : `${field}: ${problem}`))
    return `the ${this.stored ? "stored" : "given"} value of ${this.kind} ${this.name} is not valid: ${problems.join("; ")}`
  }
}

/** A request id came a second time with another request. A client that makes a new request must make a new id. */
export class StateRequestReused extends Schema.TaggedError<StateRequestReused>()("StateRequestReused", {
  requestId: Schema.String
}) {
  override get message(): string {
    return `request id ${this.requestId} was already used for another request; use a new id for a new request`
  }
}
