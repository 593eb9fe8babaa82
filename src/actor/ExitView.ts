/**
 * How an actor ended, as data that people and programs can read: what the tree, the history and the journal hold.
 *
 * The tag of a typed failure is its `_tag`, of a defect the error's class name. `detail` (the pretty cause, with stacks
 * where there is a defect: a typed failure is foreseen, and where in our code it was made helps nobody) is written only
 * when somebody asks for it: rendering stacks costs more than the whole restart.
 *
 * Trap: `message` and `detail` are cut at 1,000 and 8,000 characters, since they come from anywhere.
 */
import * as Cause from "effect/Cause"
import type * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

/**
 * `normal`: returned; `failure`: typed failure; `defect`: a bug; `interrupted`: its fiber was interrupted by somebody
 * else than its supervisor; `not-started`: it never came up (start deadline passed, start ignored).
 */
export const ExitClass = Schema.Literals(["normal", "failure", "defect", "interrupted", "not-started"])
export type ExitClass = typeof ExitClass.Type

/** The stored form, and the shape of every exit view. `at` is milliseconds since 1970. */
export const ExitView = Schema.Struct({
  at: Schema.Finite,
  class: ExitClass,
  /** `_tag` of the failure, name of the defect, or `Normal`, `Interrupted`, `StartTimeout`, `Ignored`. */
  tag: Schema.String,
  message: Schema.String,
  detail: Schema.String,
  /** True when it ended before it had acknowledged its start. */
  beforeReady: Schema.Boolean
})
export interface ExitView {
  readonly at: number
  readonly class: ExitClass
  readonly tag: string
  readonly message: string
  readonly detail: string
  readonly beforeReady: boolean
}

const cut = (text: string, limit: number): string => (text.length <= limit ? text : `${text.slice(0, limit - 1)}…`)

const tagOf = (error: unknown): string => {
  if (Predicate.hasProperty(error, "_tag") && typeof error._tag === "string") return error._tag
  if (error instanceof Error) return error.name
  return typeof error
}

const messageOf = (error: unknown): string => {
  if (Predicate.hasProperty(error, "message") && typeof error.message === "string") return error.message
  return typeof error === "string" ? error : String(error)
}

const stackLine = /\n *at .+/g

class FromCause implements ExitView {
  readonly at: number
  readonly class: ExitClass
  readonly tag: string
  readonly message: string
  readonly beforeReady: boolean
  #cause: Cause.Cause<unknown> | undefined
  #detail = ""
  constructor(at: number, beforeReady: boolean, cause: Cause.Cause<unknown>) {
    this.at = at
    this.beforeReady = beforeReady
    this.#cause = cause
    let failure: Cause.Reason<unknown> | undefined
    for (const reason of cause.reasons) {
      // A defect outranks a failure, and both an interruption: the worst news is the news.
      if (failure === undefined || reason._tag === "Die" || (reason._tag === "Fail" && failure._tag === "Interrupt")) {
        failure = reason
        if (reason._tag === "Die") break
      }
    }
    if (failure === undefined || failure._tag === "Interrupt") {
      this.class = "interrupted"
      this.tag = "Interrupted"
      this.message = "interrupted from outside its supervisor"
    } else {
      const error = failure._tag === "Die" ? failure.defect : failure.error
      this.class = failure._tag === "Die" ? "defect" : "failure"
      this.tag = cut(tagOf(error), 200)
      this.message = cut(messageOf(error), 1_000)
    }
  }
  get detail(): string {
    if (this.#cause !== undefined) {
      const pretty = Cause.pretty(this.#cause)
      this.#detail = cut(this.class === "defect" ? pretty : pretty.replaceAll(stackLine, ""), 8_000)
      this.#cause = undefined
    }
    return this.#detail
  }
}

/** The view of a fiber's exit at `at` (milliseconds since 1970). */
export const fromExit = (at: number, exit: Exit.Exit<unknown, unknown>, beforeReady: boolean): ExitView =>
  exit._tag === "Failure"
    ? new FromCause(at, beforeReady, exit.cause)
    : { at, class: "normal", tag: "Normal", message: "ended normally", detail: "", beforeReady }

/** The view of a supervisor that ended because its significant children had: normal, and told apart. */
export const autoShutdown = (at: number, why: string): ExitView => ({
  at,
  class: "normal",
  tag: "AutoShutdown",
  message: `ended normally: ${why}`,
  detail: "",
  beforeReady: false
})

/** The view of an actor whose start did not come to an acknowledgement. */
export const notStarted = (at: number, tag: "StartTimeout" | "Ignored", message: string): ExitView => ({
  at,
  class: "not-started",
  tag,
  message,
  detail: "",
  beforeReady: true
})
