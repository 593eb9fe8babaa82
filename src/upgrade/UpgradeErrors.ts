/** What can be wrong with a request for another brain. Nothing was done then. */
import * as Schema from "effect/Schema"

/** What was sent is no brain, or not the one that was announced. */
export class BundleInvalid extends Schema.TaggedError<BundleInvalid>()("BundleInvalid", {
  /** Of the request. */
  field: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `this is no brain that can be installed: ${this.field}: ${this.problem}`
  }
}

/** The machine config has keys, and none of them vouches for it. */
export class SignatureRefused extends Schema.TaggedError<SignatureRefused>()("SignatureRefused", {
  problem: Schema.String
}) {
  readonly hint = "sign it with one of the keys of `upgrade.keys` in the machine config (ironwood upgrade sign)"
  override get message() {
    return `the brain is refused: ${this.problem}: ${this.hint}`
  }
}

/** It cannot work here, by what it says of itself. */
export class BrainIncompatible extends Schema.TaggedError<BrainIncompatible>()("BrainIncompatible", {
  version: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `brain ${this.version} cannot run here: ${this.problem}`
  }
}

export class BrainNotInstalled extends Schema.TaggedError<BrainNotInstalled>()("BrainNotInstalled", {
  brain: Schema.String
}) {
  readonly hint = "`ironwood upgrade status` lists those that are"
  override get message() {
    return `no brain ${this.brain} is installed: ${this.hint}`
  }
}

/** Another brain is on trial, or is being sent. */
export class UpgradeInProgress extends Schema.TaggedError<UpgradeInProgress>()("UpgradeInProgress", {
  what: Schema.String
}) {
  readonly hint = "it is over in some minutes at most; `ironwood upgrade status` tells"
  override get message() {
    return `${this.what}: ${this.hint}`
  }
}

export type UpgradeError = BundleInvalid | SignatureRefused | BrainIncompatible | BrainNotInstalled | UpgradeInProgress
