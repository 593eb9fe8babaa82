/**
 * When an actor is started again after it ended, how long to wait before, and what to do when that did not help.
 *
 * The same class serves an infrastructure actor, a container and, stored as JSON, the desired state: durations are
 * `Duration` in memory and whole or broken milliseconds when encoded, every field has a default on decoding.
 * Ready-made ones, also those of other systems, are in `RestartPreset`; what a policy makes of given exits tells `Explain`.
 *
 * Traps:
 * - `budget` limits restarts in a window of exact milliseconds; without one only `maxConsecutive` and the supervisor's
 *   intensity count, and the latter counts only children with `whenSpent: "escalate"`. A child that shall not escalate
 *   never takes its siblings down.
 * - `attempt` (consecutive ends) and with it the delay go back to the beginning after a run of `resetAfter`, counted from
 *   the acknowledgement of the start to the end.
 * - `maxConsecutive` counts ends, not restarts: with 3 there are two restarts, and the third end in a row spends it.
 * - A `temporary` actor is never restarted, not even as the bystander of a sibling's crash; only a rule restarts it.
 * - An interruption from outside counts as any failure. In our tree nobody interrupts an actor but a bug (a person's stop
 *   comes through its supervisor), and one that interrupts itself must not spin for ever. Who knows better writes a rule:
 *   `{ on: { classes: ["interrupted"] }, counts: false }`.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"
import { Backoff, type Curve, Milliseconds } from "./Backoff.ts"
import { type Match, Rule, type Then, WhenSpent } from "./RestartRule.ts"

/**
 * `permanent`: always; `transient`: unless it ended normally; `temporary`: never (these are OTP's); `on-success`: only
 * after a normal end, a failure is the end.
 */
export const RestartType = Schema.Literals(["permanent", "transient", "temporary", "on-success"])
export type RestartType = typeof RestartType.Type

/**
 * How a budget's restarts are counted. `sliding`: those in the last `within`. `tumbling`: a window opens with a start and
 * lasts `within`, the next start after it opens another; all starts in it count, also the one that opens it (systemd's
 * StartLimitBurst and StartLimitIntervalSec).
 */
export const Window = Schema.Literals(["sliding", "tumbling"])
export type Window = typeof Window.Type

/** At most `restarts` restarts within `within`; 0 means that the first end spends it. */
export class Budget extends Schema.Class<Budget>("ironwood/Budget")({
  restarts: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }))),
  within: Milliseconds,
  window: Window.pipe(
    Schema.withConstructorDefault(Effect.succeed("sliding" as const)),
    Schema.withDecodingDefaultKey(Effect.succeed("sliding" as const))
  )
}) {}

/** Most rules in a policy. */
export const MAX_RULES = 32

/** Who says that the fallback is to be started: the policy, or a rule. */
const fallsBack = (rules: ReadonlyArray<Rule>, whenSpent: WhenSpent): boolean =>
  whenSpent === "fallback" || rules.some((rule) => rule.then === "fallback" || rule.whenSpent === "fallback")

/** See the module header. The defaults are those of a workload: restarted for ever with back-off. */
export class RestartPolicy extends Schema.Class<RestartPolicy>("ironwood/RestartPolicy")(
  Schema.Struct({
    restart: RestartType.pipe(
      Schema.withConstructorDefault(Effect.succeed("permanent" as const)),
      Schema.withDecodingDefaultKey(Effect.succeed("permanent" as const))
    ),
    /** The first that matches an exit decides about it; see `RestartRule`. */
    rules: Schema.Array(Rule).pipe(
      Schema.check(Schema.isMaxLength(MAX_RULES, { expected: `at most ${MAX_RULES} rules` })),
      Schema.withConstructorDefault(Effect.succeed([])),
      Schema.withDecodingDefaultKey(Effect.succeed([]))
    ),
    backoff: Backoff.pipe(
      Schema.withConstructorDefault(Effect.sync(() => new Backoff({}))),
      Schema.withDecodingDefaultKey(Effect.succeed({}))
    ),
    budget: Schema.optionalKey(Budget),
    /** So many ends in a row without a healthy run between are as bad as a spent budget: catches slow crash loops. */
    maxConsecutive: Schema.optionalKey(
      Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 100_000 }, { expected: "1 to 100000" })))
    ),
    whenSpent: WhenSpent.pipe(
      Schema.withConstructorDefault(Effect.succeed("keep-trying" as const)),
      Schema.withDecodingDefaultKey(Effect.succeed("keep-trying" as const))
    ),
    /** Id of the sibling that is started in its place; there exactly when something says `fallback`. */
    fallback: Schema.optionalKey(
      Schema.String.pipe(
        Schema.check(Schema.isPattern(/^[^/]{1,255}$/, { expected: "the id of a sibling: 1 to 255 characters, no /" }))
      )
    ),
    /** A person's stop is remembered over restarts of Ironwood. False: it starts again then (docker's `always`). */
    rememberStop: Schema.Boolean.pipe(
      Schema.withConstructorDefault(Effect.succeed(true)),
      Schema.withDecodingDefaultKey(Effect.succeed(true))
    )
  }).check(
    Schema.makeFilter(({ fallback, rules, whenSpent }) =>
      fallsBack(rules, whenSpent)
        ? fallback === undefined
          ? { path: ["fallback"], issue: "must be set: the id of the sibling to start" }
          : undefined
        : fallback === undefined
          ? undefined
          : { path: ["fallback"], issue: "is started by nothing: neither the policy nor a rule says fallback" }
    )
  )
) {}

/** A back-off in a few words; durations as Effect writes them (`"2 seconds"`, `500`). */
export interface BackoffOptions {
  readonly first?: Duration.Input
  readonly initial?: Duration.Input
  readonly curve?: Curve
  readonly factor?: number
  readonly max?: Duration.Input
  readonly jitter?: number
  readonly resetAfter?: Duration.Input
}

/** A rule in a few words. What is left out of its back-off comes from the policy's, but for `first`. */
export interface RuleOptions {
  readonly on: Match
  readonly then?: Then
  readonly counts?: boolean
  readonly backoff?: BackoffOptions
  readonly consecutive?: number
  readonly whenSpent?: WhenSpent
}

/** What {@link make} takes: every part may be left out. */
export interface Options {
  readonly restart?: RestartType
  readonly rules?: ReadonlyArray<RuleOptions>
  readonly backoff?: BackoffOptions
  readonly budget?: { readonly restarts: number; readonly within: Duration.Input; readonly window?: Window }
  readonly maxConsecutive?: number
  readonly whenSpent?: WhenSpent
  readonly fallback?: string
  readonly rememberStop?: boolean
}

const makeBackoff = (
  options: BackoffOptions,
  base: Omit<Backoff, "first"> & { readonly first?: Duration.Duration }
): Backoff => {
  const duration = (given: Duration.Input | undefined, otherwise: Duration.Duration) =>
    given === undefined ? otherwise : Duration.fromInputUnsafe(given)
  const first = options.first === undefined ? base.first : Duration.fromInputUnsafe(options.first)
  return new Backoff({
    ...(first === undefined ? {} : { first }),
    initial: duration(options.initial, base.initial),
    curve: options.curve ?? base.curve,
    factor: options.factor ?? base.factor,
    max: duration(options.max, base.max),
    jitter: options.jitter ?? base.jitter,
    resetAfter: duration(options.resetAfter, base.resetAfter)
  })
}

const makeBudget = ({ restarts, window = "sliding", within }: NonNullable<Options["budget"]>): Budget =>
  new Budget({ restarts, within: Duration.fromInputUnsafe(within), window })

/**
 * A policy from a few words; what is left out comes from `base` (a workload's defaults unless told otherwise). Throws
 * when it is wrong in itself, e.g. with a `fallback` that nothing starts: a policy in code is its author's.
 *
 * ```ts
 * RestartPolicy.make({ restart: "transient", backoff: { max: "10 seconds" }, budget: { restarts: 5, within: "1 minute" }, whenSpent: "park" })
 * ```
 */
export const make = (options: Options, base: RestartPolicy = workload): RestartPolicy => {
  const backoff = makeBackoff(options.backoff ?? {}, base.backoff)
  const rules =
    options.rules?.map(
      ({ backoff: own, ...rule }) =>
        new Rule(own === undefined ? rule : { ...rule, backoff: makeBackoff(own, Struct.omit(backoff, ["first"])) })
    ) ?? base.rules
  const whenSpent = options.whenSpent ?? base.whenSpent
  const budget = options.budget === undefined ? base.budget : makeBudget(options.budget)
  const maxConsecutive = options.maxConsecutive ?? base.maxConsecutive
  const fallback = options.fallback ?? (fallsBack(rules, whenSpent) ? base.fallback : undefined)
  return complete({
    restart: options.restart ?? base.restart,
    rules,
    backoff,
    budget,
    maxConsecutive,
    whenSpent,
    fallback,
    rememberStop: options.rememberStop ?? base.rememberStop
  })
}

/** Every part of a policy, there or not. */
interface Parts {
  readonly restart: RestartType
  readonly rules: ReadonlyArray<Rule>
  readonly backoff: Backoff
  readonly budget: Budget | undefined
  readonly maxConsecutive: number | undefined
  readonly whenSpent: WhenSpent
  readonly fallback: string | undefined
  readonly rememberStop: boolean
}

const complete = (
  { budget, fallback, maxConsecutive, ...rest }: Parts,
  options?: { readonly disableChecks: boolean }
): RestartPolicy =>
  new RestartPolicy(
    {
      ...rest,
      ...(budget === undefined ? {} : { budget }),
      ...(maxConsecutive === undefined ? {} : { maxConsecutive }),
      ...(fallback === undefined ? {} : { fallback })
    },
    options
  )

/** For containers and virtual machines: always again, 100 ms doubling to 60 s, ± 20 %, fresh after 10 s of health. */
export const workload: RestartPolicy = new RestartPolicy({})

/** For our own parts: again at once, then 100 ms doubling to 5 s; counts against the supervisor's intensity and escalates. */
export const infrastructure: RestartPolicy = new RestartPolicy({
  backoff: new Backoff({ first: Duration.zero, max: Duration.seconds(5) }),
  whenSpent: "escalate"
})

/** OTP's `permanent`: always again, without any delay; over the supervisor's intensity it escalates. */
export const permanent: RestartPolicy = new RestartPolicy({
  backoff: new Backoff({ initial: Duration.zero, jitter: 0 }),
  whenSpent: "escalate"
})

/** OTP's `transient`: as {@link permanent}, but a normal end is the end. */
export const transient: RestartPolicy = make({ restart: "transient" }, permanent)

/** OTP's `temporary`: runs once. */
export const temporary: RestartPolicy = make({ restart: "temporary" }, permanent)
