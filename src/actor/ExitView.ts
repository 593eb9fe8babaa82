/**
 * How an actor ended, as data that people and programs can read: what the tree, the history and the journal hold.
 *
 * The tag of a typed failure is its `_tag`, of a defect the error's class name. `detail` (the pretty cause, with stacks
 * where there is a defect: a typed failure is foreseen, and where in our code it was made helps nobody) is written only
 * when somebody asks for it: rendering stacks costs more than the whole restart.
 *
 * A failure that knows more says so in a property `exitFacts`, of the shape of {@link ExitFacts}: the exit code, the signal,
 * that memory was out, the probe that failed. Restart policies match on these, whoever's failure it is.
 *
 * A failure that comes of another actor's end says so in a property `causedBy` ({@link CausedBy}); any other may have a
 * `cause`, as errors have. Followed to the end they are `causes`: who or what began it is the last of them.
 *
 * Traps: `message` and `detail` are cut at 1,000 and 8,000 characters, since they come from anywhere. Facts that are not
 * of the right shape are left out, one by one. Of the causes there are at most {@link CAUSES_LIMIT}.
 */
import * as Cause from "effect/Cause"
import type * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { ActorPath } from "./ActorPath.ts"

/**
 * `normal`: returned; `failure`: typed failure; `defect`: a bug; `interrupted`: its fiber was interrupted by somebody
 * else than its supervisor; `not-started`: it never came up (start deadline passed, start ignored).
 */
export const ExitClass = Schema.Literals(["normal", "failure", "defect", "interrupted", "not-started"])
export type ExitClass = typeof ExitClass.Type

/** What is known of the end of a process, where that was the end. */
export const ExitFacts = Schema.Struct({
  exitCode: Schema.optional(Schema.Int),
  /** By its name: `SIGKILL`. */
  signal: Schema.optional(Schema.String),
  outOfMemory: Schema.optional(Schema.Boolean),
  /** Name of the probe that failed. */
  probe: Schema.optional(Schema.String)
})
export interface ExitFacts {
  readonly exitCode?: number | undefined
  readonly signal?: string | undefined
  readonly outOfMemory?: boolean | undefined
  readonly probe?: string | undefined
}

/** One step of what led to an exit. */
export const ExitCause = Schema.Struct({
  /** Whose end it was, when it was another actor's. */
  path: Schema.optional(ActorPath),
  tag: Schema.String,
  message: Schema.String
})
export interface ExitCause {
  readonly path?: ActorPath | undefined
  readonly tag: string
  readonly message: string
}

/** Whose end a failure comes of. */
export interface CausedBy {
  readonly path: ActorPath
  readonly exit: ExitView
}

/** The stored form, and the shape of every exit view. `at` is milliseconds since 1970. */
export const ExitView = Schema.Struct({
  at: Schema.Finite,
  class: ExitClass,
  /** `_tag` of the failure, name of the defect, or `Normal`, `Interrupted`, `StartTimeout`, `Ignored`. */
  tag: Schema.String,
  message: Schema.String,
  detail: Schema.String,
  /** True when it ended before it had acknowledged its start. */
  beforeReady: Schema.Boolean,
  facts: Schema.optional(ExitFacts),
  causes: Schema.optional(Schema.Array(ExitCause))
})
export interface ExitView {
  readonly at: number
  readonly class: ExitClass
  readonly tag: string
  readonly message: string
  readonly detail: string
  readonly beforeReady: boolean
  readonly facts?: ExitFacts | undefined
  /** What led to it, the nearest first; nothing when it came of itself. */
  readonly causes?: ReadonlyArray<ExitCause> | undefined
}

/** Causes kept of an exit. */
export const CAUSES_LIMIT = 16

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

/** Where `error` tells facts. */
const factsOf = (error: unknown): ExitFacts | undefined => {
  if (!Predicate.hasProperty(error, "exitFacts")) return undefined
  const given = error.exitFacts
  if (!Predicate.isObject(given)) return undefined
  const exitCode = Predicate.hasProperty(given, "exitCode") ? given.exitCode : undefined
  const signal = Predicate.hasProperty(given, "signal") ? given.signal : undefined
  const probe = Predicate.hasProperty(given, "probe") ? given.probe : undefined
  const facts = {
    ...(typeof exitCode === "number" && Number.isInteger(exitCode) && exitCode >= 0 && exitCode <= 255
      ? { exitCode }
      : {}),
    ...(typeof signal === "string" && signal !== "" ? { signal: cut(signal, 32) } : {}),
    ...(Predicate.hasProperty(given, "outOfMemory") && given.outOfMemory === true ? { outOfMemory: true } : {}),
    ...(typeof probe === "string" && probe !== "" ? { probe: cut(probe, 200) } : {})
  }
  return Object.keys(facts).length === 0 ? undefined : facts
}

const isCausedBy = Schema.is(Schema.Struct({ path: ActorPath, exit: ExitView }))

/** What led to `error`, the nearest first. */
const causesOf = (error: unknown): ReadonlyArray<ExitCause> | undefined => {
  let causes: Array<ExitCause> | undefined
  for (let at = error; causes === undefined || causes.length < CAUSES_LIMIT;) {
    if (Predicate.hasProperty(at, "causedBy") && isCausedBy(at.causedBy)) {
      const { exit, path } = at.causedBy
      causes = [...(causes ?? []), { path, tag: exit.tag, message: exit.message }, ...(exit.causes ?? [])]
      break
    }
    if (!Predicate.hasProperty(at, "cause") || at.cause === undefined || at.cause === null) break
    at = at.cause
    causes ??= []
    causes.push({ tag: cut(tagOf(at), 200), message: cut(messageOf(at), 500) })
  }
  return causes?.slice(0, CAUSES_LIMIT)
}

const stackLine = /\n *at .+/g

class FromCause implements ExitView {
  readonly at: number
  readonly class: ExitClass
  readonly tag: string
  readonly message: string
  readonly beforeReady: boolean
  readonly facts: ExitFacts | undefined
  readonly causes: ReadonlyArray<ExitCause> | undefined
  /** What the detail is written of. Of a lone failure the error alone: thousands are kept, and a cause is four objects. */
  #source: unknown
  #detail: string | undefined
  constructor(at: number, beforeReady: boolean, cause: Cause.Cause<unknown>) {
    this.at = at
    this.beforeReady = beforeReady
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
      this.facts = undefined
      this.causes = undefined
    } else {
      const error = failure._tag === "Die" ? failure.defect : failure.error
      this.class = failure._tag === "Die" ? "defect" : "failure"
      this.tag = cut(tagOf(error), 200)
      this.message = cut(messageOf(error), 1_000)
      this.facts = factsOf(error)
      this.causes = causesOf(error)
    }
    this.#source = failure?._tag === "Fail" && cause.reasons.length === 1 ? failure.error : cause
  }
  get detail(): string {
    if (this.#detail === undefined) {
      const source = this.#source
      const pretty = Cause.pretty(Cause.isCause(source) ? source : Cause.fail(source))
      this.#detail = cut(this.class === "defect" ? pretty : pretty.replaceAll(stackLine, ""), 8_000)
      this.#source = undefined
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
