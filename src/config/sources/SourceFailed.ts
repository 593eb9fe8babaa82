/** Why a source of the machine config could not be read: the one error of this folder. */
import * as Schema from "effect/Schema"

/** A source of the machine config is there, but cannot be read. */
export class SourceFailed extends Schema.TaggedError<SourceFailed>()("SourceFailed", { problem: Schema.String }) {
  override get message(): string {
    return this.problem
  }
}
