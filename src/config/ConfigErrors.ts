/** What can be wrong with a request about the machine config. */
import * as Schema from "effect/Schema"
import { describe, Violation } from "./Document.ts"

/** The document is wrong in at least one field. Nothing was changed. */
export class ConfigInvalid extends Schema.TaggedError<ConfigInvalid>()("ConfigInvalid", {
  violations: Schema.Array(Violation)
}) {
  override get message() {
    return `the machine config is wrong: ${describe(this.violations)}`
  }
}

/** A config is being tried, and another one would be lost when the trial ends. */
export class ConfigOnTrial extends Schema.TaggedError<ConfigOnTrial>()("ConfigOnTrial", { revision: Schema.Int }) {
  readonly hint = "confirm it, or revert it, first"
  override get message() {
    return `revision ${this.revision} of the machine config is being tried: ${this.hint}`
  }
}

/** There is nothing to confirm or to take back. */
export class NothingOnTrial extends Schema.TaggedError<NothingOnTrial>()("NothingOnTrial", { current: Schema.Int }) {
  readonly hint = "a trial that nobody confirms in time is taken back by itself; the history tells"
  override get message() {
    return `no machine config is being tried, revision ${this.current} is in force: ${this.hint}`
  }
}

/** There is no such revision, or it is kept no longer. */
export class RevisionNotFound extends Schema.TaggedError<RevisionNotFound>()("RevisionNotFound", {
  revision: Schema.Int
}) {
  override get message() {
    return `there is no revision ${this.revision} of the machine config; the newest ${keptRevisions} are kept`
  }
}

/** Somebody else has changed the config since it was read. */
export class RevisionMoved extends Schema.TaggedError<RevisionMoved>()("RevisionMoved", {
  expected: Schema.Int,
  current: Schema.Int
}) {
  override get message() {
    return `revision ${this.current} of the machine config is in force, not ${this.expected}: somebody else has changed it`
  }
}

/** How many revisions are kept. */
export const keptRevisions = 32

export type ConfigError = ConfigInvalid | ConfigOnTrial | NothingOnTrial | RevisionNotFound | RevisionMoved
