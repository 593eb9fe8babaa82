/**
 * Restart policies on the command line: the one word of `run --restart`, and the parts that `policy set` changes.
 *
 * Rules are not among the flags: they need a spec file, or `policy get -o yaml` and `apply`. A preset is asked for at the
 * server and then changed like any other policy, so that flags beside it hold.
 *
 * Both OTP's words (`permanent`, `transient`, `temporary`) and docker's (`always`, `unless-stopped`, `on-failure[:N]`, `no`) are
 * understood. docker's N has no time to it; here it is a budget of N restarts in an hour, and then the container is parked.
 */
import { clone, create } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as CliError from "effect/cli/CliError"
import * as Flag from "effect/cli/Flag"
import {
  BackoffCurve,
  BackoffSchema,
  BudgetSchema,
  type RestartPolicy,
  RestartPolicySchema,
  RestartType,
  RuleAction,
  WhenSpent
} from "../../proto/generated/ironwood/v1/policy_pb.ts"
import { type Checked, checked, type FlagProblem } from "./FlagProblems.ts"
import { parseDuration, type Seconds } from "./Quantity.ts"
import { toProto } from "./QuantityFlags.ts"
import { DurationSchema } from "@bufbuild/protobuf/wkt"

/** What `--restart` said: the type and, for `on-failure:N`, how many restarts. */
export interface RestartWord {
  readonly type: RestartType
  readonly restarts?: number
}

const words: ReadonlyMap<string, RestartType> = new Map([
  ["permanent", RestartType.PERMANENT],
  ["always", RestartType.PERMANENT],
  ["unless-stopped", RestartType.PERMANENT],
  ["transient", RestartType.TRANSIENT],
  ["on-failure", RestartType.TRANSIENT],
  ["temporary", RestartType.TEMPORARY],
  ["no", RestartType.TEMPORARY],
  ["on-success", RestartType.ON_SUCCESS]
])

/** Reads the word of `--restart`; the failure is what would have been right. */
export const parseRestart = (text: string): Result.Result<RestartWord, string> => {
  const match = /^([a-z-]+)(?::(\d{1,6}))?$/.exec(text)
  const type = words.get(match?.[1] ?? "")
  if (type === undefined || (match?.[2] !== undefined && type !== RestartType.TRANSIENT)) {
    return Result.fail(
      "permanent (always, unless-stopped), transient (on-failure, on-failure:N), temporary (no) or on-success"
    )
  }
  return Result.succeed(match?.[2] === undefined ? { type } : { type, restarts: Number(match[2]) })
}

const anHour: Seconds = { seconds: 3600n, nanos: 0 }

/** Puts the word into a policy; the other parts stay. */
export const withRestart = (policy: RestartPolicy, { restarts, type }: RestartWord): RestartPolicy => {
  const next = clone(RestartPolicySchema, policy)
  next.restart = type
  if (restarts !== undefined) {
    next.budget = create(BudgetSchema, { restarts, within: toProto(anHour) })
    next.whenSpent = WhenSpent.PARK
  }
  return next
}

/** What `--budget` said. */
export type BudgetWord = { readonly restarts: number; readonly within: Seconds } | "none"

/** `N/DURATION`, e.g. `5/10m`. */
const parseBudget = (text: string): Result.Result<{ readonly restarts: number; readonly within: Seconds }, string> => {
  const match = /^(\d{1,9})\/(.+)$/.exec(text)
  const within = parseDuration(match?.[2] ?? "")
  return match === null || Result.isFailure(within)
    ? Result.fail('restarts and a time, such as 5/10m, or "none"')
    : Result.succeed({ restarts: Number(match[1]), within: within.success })
}

const spentWords = {
  park: WhenSpent.PARK,
  escalate: WhenSpent.ESCALATE,
  "keep-trying": WhenSpent.KEEP_TRYING,
  fallback: WhenSpent.FALLBACK,
  "restart-group": WhenSpent.RESTART_GROUP,
  "reboot-host": WhenSpent.REBOOT_HOST
} as const
type SpentWord = keyof typeof spentWords

const curveWords = {
  exponential: BackoffCurve.EXPONENTIAL,
  linear: BackoffCurve.LINEAR,
  fibonacci: BackoffCurve.FIBONACCI
} as const
type CurveWord = keyof typeof curveWords

/** `--max-consecutive`: a number, or none. */
const parseConsecutive = (text: string): Result.Result<number | "none", string> =>
  text === "none"
    ? Result.succeed(text)
    : /^[1-9]\d{0,5}$/.test(text)
      ? Result.succeed(Number(text))
      : Result.fail('a number from 1 to 100000, or "none"')

/** `--intensity`: the supervisor's limit, for a dry run. */
export const intensityFlag = Flag.String("intensity").pipe(
  Flag.withMetavar("N/DURATION"),
  Flag.withDescription(
    "Its supervisor gives up over so many restarts in so long, when the policy escalates; e.g. 1/5s"
  ),
  Flag.mapEffect((text) =>
    Result.match(parseBudget(text), {
      onSuccess: (value) => Effect.succeed(value),
      onFailure: (expected) =>
        Effect.fail(new CliError.InvalidValue({ option: "intensity", value: text, expected, kind: "flag" }))
    })
  ),
  Flag.optional
)

/** `--preset`. */
export const presetFlag = Flag.String("preset").pipe(
  Flag.withMetavar("NAME"),
  Flag.withDescription("What another system does: kubernetes, systemd, docker …; `ironwood policy presets` shows all"),
  Flag.optional
)

const numberWithin =
  (least: number, most: number, expected: string) =>
  (text: string): Result.Result<number, string> =>
    /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) && Number(text) >= least && Number(text) <= most
      ? Result.succeed(Number(text))
      : Result.fail(expected)

/** One of some words. */
const oneOf =
  <const Word extends string>(...words: ReadonlyArray<Word>) =>
  (text: string): Result.Result<Word, string> =>
    Result.fromOption(
      Option.fromUndefinedOr(words.find((word) => word === text)),
      () => `${words.slice(0, -1).join(", ")} or ${words.at(-1) ?? ""}`
    )

const part = <A>(
  name: string,
  metavar: string,
  parse: (text: string) => Result.Result<A, string>,
  description: string
) => checked(name, metavar, parse).pipe(Flag.withDescription(description), Flag.optional)

const duration = (name: string, description: string) => part(name, "DURATION", parseDuration, description)

/** The parts of a policy that can be changed one by one. What cannot be read is told by {@link read}, all of it at once. */
export const policyFlags = {
  preset: presetFlag,
  restart: part(
    "restart",
    "POLICY",
    parseRestart,
    "permanent, transient, temporary or on-success; docker's words are understood too"
  ),
  first: duration(
    "first",
    "Delay before the first restart after a healthy run, when it is to differ: 0 restarts at once"
  ),
  initial: duration("initial", "Delay at which the back-off begins"),
  curve: part(
    "curve",
    "exponential|linear|fibonacci",
    oneOf("exponential", "linear", "fibonacci"),
    "How the delay grows: multiplied each time, by the same step each time, or 1, 1, 2, 3, 5 …"
  ),
  factor: part(
    "factor",
    "NUMBER",
    numberWithin(1, 1000, "a number from 1 to 1000"),
    "What the delay is multiplied by each time; 1 keeps it constant"
  ),
  max: duration("max", "The longest delay"),
  jitter: part(
    "jitter",
    "SHARE",
    numberWithin(0, 1, "a share from 0 to 1"),
    "How far delays are spread at random, as a share: 0.2 makes 10s anything from 8s to 12s"
  ),
  resetAfter: duration("reset-after", "A run that lasted so long counts as healthy: the back-off starts anew"),
  budget: part(
    "budget",
    "N/DURATION|none",
    (text): Result.Result<BudgetWord, string> => (text === "none" ? Result.succeed("none") : parseBudget(text)),
    "At most so many restarts in so long, e.g. 5/10m; none: as many as it takes"
  ),
  maxConsecutive: part(
    "max-consecutive",
    "N|none",
    parseConsecutive,
    "So many ends in a row without a healthy run are as bad as a spent budget"
  ),
  whenSpent: part(
    "when-spent",
    "ACTION",
    oneOf("park", "escalate", "keep-trying", "fallback", "restart-group", "reboot-host"),
    "When that is spent: wait for a person (park), fail the supervisor (escalate), go on at the longest delay (keep-trying), start the fallback, restart the siblings too (restart-group), or reboot-host"
  ),
  fallback: Flag.String("fallback").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("The sibling that is started in its place, with --when-spent fallback"),
    Flag.optional
  ),
  rememberStop: part(
    "remember-stop",
    "true|false",
    oneOf("true", "false"),
    "Whether a person's stop is remembered over restarts of Ironwood"
  )
}

/** What {@link policyFlags} read, but for the preset: that must be asked for. */
export interface PolicyChange {
  readonly restart: Option.Option<RestartWord>
  readonly first: Option.Option<Seconds>
  readonly initial: Option.Option<Seconds>
  readonly factor: Option.Option<number>
  readonly max: Option.Option<Seconds>
  readonly jitter: Option.Option<number>
  readonly resetAfter: Option.Option<Seconds>
  readonly curve: Option.Option<CurveWord>
  readonly budget: Option.Option<BudgetWord>
  readonly maxConsecutive: Option.Option<number | "none">
  readonly whenSpent: Option.Option<SpentWord>
  readonly fallback: Option.Option<string>
  readonly rememberStop: Option.Option<"true" | "false">
}

/** What can be wrong in what {@link policyFlags} read. */
type Read<A> = { readonly [Key in keyof A]: A[Key] extends Option.Option<infer B> ? Option.Option<Checked<B>> : never }

/** The flags that could be read, or what is wrong with each of the others. */
export const read = (
  flags: Read<Omit<PolicyChange, "fallback">> & Pick<PolicyChange, "fallback">
): Result.Result<PolicyChange, ReadonlyArray<FlagProblem>> => {
  const problems: Array<FlagProblem> = []
  const value = <A>(flag: Option.Option<Checked<A>>): Option.Option<A> =>
    Option.flatMap(flag, (checked) => {
      if (Result.isFailure(checked)) problems.push(checked.failure)
      return Result.getSuccess(checked)
    })
  const change: PolicyChange = {
    restart: value(flags.restart),
    first: value(flags.first),
    initial: value(flags.initial),
    curve: value(flags.curve),
    factor: value(flags.factor),
    max: value(flags.max),
    jitter: value(flags.jitter),
    resetAfter: value(flags.resetAfter),
    budget: value(flags.budget),
    maxConsecutive: value(flags.maxConsecutive),
    whenSpent: value(flags.whenSpent),
    fallback: flags.fallback,
    rememberStop: value(flags.rememberStop)
  }
  return problems.length === 0 ? Result.succeed(change) : Result.fail(problems)
}

const fallsBack = ({ rules, whenSpent }: RestartPolicy): boolean =>
  whenSpent === WhenSpent.FALLBACK ||
  rules.some((rule) => rule.then === RuleAction.FALLBACK || rule.whenSpent === WhenSpent.FALLBACK)

/** The policy with what was said changed, and the rest as it is. */
export const change = (policy: RestartPolicy, flags: PolicyChange): RestartPolicy => {
  const next = Option.match(flags.restart, {
    onNone: () => clone(RestartPolicySchema, policy),
    onSome: (word) => withRestart(policy, word)
  })
  const backoff = next.backoff ?? create(BackoffSchema)
  if (Option.isSome(flags.first)) backoff.first = create(DurationSchema, toProto(flags.first.value))
  if (Option.isSome(flags.initial)) backoff.initial = create(DurationSchema, toProto(flags.initial.value))
  if (Option.isSome(flags.factor)) backoff.factor = flags.factor.value
  if (Option.isSome(flags.curve)) backoff.curve = curveWords[flags.curve.value]
  if (Option.isSome(flags.max)) backoff.max = create(DurationSchema, toProto(flags.max.value))
  if (Option.isSome(flags.jitter)) backoff.jitter = flags.jitter.value
  if (Option.isSome(flags.resetAfter)) backoff.resetAfter = create(DurationSchema, toProto(flags.resetAfter.value))
  next.backoff = backoff
  if (Option.isSome(flags.budget)) {
    const budget = flags.budget.value
    next.budget =
      budget === "none"
        ? undefined
        : create(BudgetSchema, { restarts: budget.restarts, within: toProto(budget.within) })
  }
  if (Option.isSome(flags.maxConsecutive)) {
    const most = flags.maxConsecutive.value
    next.maxConsecutive = most === "none" ? undefined : most
  }
  if (Option.isSome(flags.whenSpent)) {
    next.whenSpent = spentWords[flags.whenSpent.value]
    // A fallback that nothing starts any more would be refused.
    if (!fallsBack(next)) next.fallback = ""
  }
  if (Option.isSome(flags.fallback)) next.fallback = flags.fallback.value
  if (Option.isSome(flags.rememberStop)) next.rememberStop = flags.rememberStop.value === "true"
  return next
}
