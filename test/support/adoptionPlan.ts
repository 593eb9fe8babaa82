/** What a crash test tells `adoptingBrain.ts`, and what that tells about itself. */
import * as Schema from "effect/Schema"

/** Where the n-th brain dies, and how. `never`: when somebody else kills it, or not at all. */
export const Fault = Schema.Struct({
  at: Schema.Literals(["hello", "spawned", "received", "stored", "exit-stored", "never"]),
  /** After so many times there. */
  after: Schema.Int,
  by: Schema.Literals(["kill", "exit", "hang"])
})
export type Fault = typeof Fault.Type

export const Plan = Schema.Struct({
  /** Shell scripts; each prints what it likes to stdout. */
  workers: Schema.Array(Schema.String),
  /** The first brain gets the first fault; brains behind the last get none. */
  faults: Schema.Array(Fault)
})
export type Plan = typeof Plan.Type

/** One line of `brains`. */
export const BrainLine = Schema.Struct({
  starts: Schema.Int,
  instance: Schema.String,
  last: Schema.String,
  adoptable: Schema.Array(Schema.String)
})
