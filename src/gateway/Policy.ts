/**
 * Restart policies between the domain and the wire. Going out everything is filled in; coming in, what is left out takes
 * the preset's values or the domain's defaults, and what is wrong is told field by field (see `Request`).
 *
 * Trap: a preset is only a way of writing a request. It is expanded here, in {@link encodedOf}, and never comes back; one
 * that does not exist must be refused first ({@link checkPreset}), since expanding can only leave it out.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Proto from "../../proto/generated/ironwood/v1/policy_pb.ts"
import type { Backoff, Curve } from "../actor/Backoff.ts"
import * as RestartPolicy from "../actor/RestartPolicy.ts"
import * as RestartPreset from "../actor/RestartPreset.ts"
import type { Match, Rule, Then, WhenSpent } from "../actor/RestartRule.ts"
import { exitClasses } from "./ExitMessages.ts"
import { decoder, given, invalid, wordOf } from "./Request.ts"
import type { InvalidRequest } from "./Request.ts"
import { millisOf, wireDuration } from "./Time.ts"

const restartTypes = {
  permanent: Proto.RestartType.PERMANENT,
  transient: Proto.RestartType.TRANSIENT,
  temporary: Proto.RestartType.TEMPORARY,
  "on-success": Proto.RestartType.ON_SUCCESS
} as const satisfies Record<RestartPolicy.RestartType, Proto.RestartType>

const whenSpents = {
  escalate: Proto.WhenSpent.ESCALATE,
  park: Proto.WhenSpent.PARK,
  "keep-trying": Proto.WhenSpent.KEEP_TRYING,
  fallback: Proto.WhenSpent.FALLBACK,
  "restart-group": Proto.WhenSpent.RESTART_GROUP,
  "reboot-host": Proto.WhenSpent.REBOOT_HOST
} as const satisfies Record<WhenSpent, Proto.WhenSpent>

const actions = {
  restart: Proto.RuleAction.RESTART,
  finish: Proto.RuleAction.FINISH,
  park: Proto.RuleAction.PARK,
  escalate: Proto.RuleAction.ESCALATE,
  fallback: Proto.RuleAction.FALLBACK,
  "restart-group": Proto.RuleAction.RESTART_GROUP,
  "reboot-host": Proto.RuleAction.REBOOT_HOST
} as const satisfies Record<Then, Proto.RuleAction>

const curves = {
  exponential: Proto.BackoffCurve.EXPONENTIAL,
  linear: Proto.BackoffCurve.LINEAR,
  fibonacci: Proto.BackoffCurve.FIBONACCI
} as const satisfies Record<Curve, Proto.BackoffCurve>

const windows = {
  sliding: Proto.BudgetWindow.SLIDING,
  tumbling: Proto.BudgetWindow.TUMBLING
} as const satisfies Record<RestartPolicy.Window, Proto.BudgetWindow>

// --- out ---

const backoffToProto = (backoff: Backoff): MessageInitShape<typeof Proto.BackoffSchema> => ({
  ...(backoff.first === undefined ? {} : { first: wireDuration(backoff.first) }),
  initial: wireDuration(backoff.initial),
  curve: curves[backoff.curve],
  factor: backoff.factor,
  max: wireDuration(backoff.max),
  jitter: backoff.jitter,
  resetAfter: wireDuration(backoff.resetAfter)
})

const matchToProto = (match: Match): MessageInitShape<typeof Proto.ExitMatchSchema> => ({
  tags: [...(match.tags ?? [])],
  classes: match.classes?.map((name) => exitClasses[name]) ?? [],
  exitCodes: [...(match.exitCodes ?? [])],
  signals: [...(match.signals ?? [])],
  outOfMemory: match.outOfMemory,
  probeFailed: match.probeFailed
})

const ruleToProto = (rule: Rule): MessageInitShape<typeof Proto.RestartRuleSchema> => ({
  on: matchToProto(rule.on),
  then: actions[rule.then],
  counts: rule.counts,
  backoff: rule.backoff && backoffToProto(rule.backoff),
  consecutive: rule.consecutive,
  whenSpent: rule.whenSpent && whenSpents[rule.whenSpent]
})

/** A policy as it goes over the wire. */
export const toProto = (policy: RestartPolicy.RestartPolicy): MessageInitShape<typeof Proto.RestartPolicySchema> => ({
  restart: restartTypes[policy.restart],
  backoff: backoffToProto(policy.backoff),
  budget: policy.budget && {
    restarts: policy.budget.restarts,
    within: wireDuration(policy.budget.within),
    window: windows[policy.budget.window]
  },
  whenSpent: whenSpents[policy.whenSpent],
  rules: policy.rules.map(ruleToProto),
  maxConsecutive: policy.maxConsecutive,
  fallback: policy.fallback ?? "",
  rememberStop: policy.rememberStop
})

// --- in ---

const backoffOf = (backoff: Proto.Backoff) =>
  given({
    first: backoff.first && millisOf(backoff.first),
    initial: backoff.initial && millisOf(backoff.initial),
    curve: wordOf(curves, backoff.curve),
    factor: backoff.factor,
    max: backoff.max && millisOf(backoff.max),
    jitter: backoff.jitter,
    resetAfter: backoff.resetAfter && millisOf(backoff.resetAfter)
  })

const orNone = <A>(list: ReadonlyArray<A>): ReadonlyArray<A> | undefined => (list.length === 0 ? undefined : list)

const matchOf = (match: Proto.ExitMatch) =>
  given({
    tags: orNone(match.tags),
    classes: orNone(match.classes.map((value) => wordOf(exitClasses, value) ?? "unspecified")),
    exitCodes: orNone(match.exitCodes),
    signals: orNone(match.signals),
    outOfMemory: match.outOfMemory,
    probeFailed: match.probeFailed
  })

/** `backoff`: the policy's, but for `first`. */
const ruleOf = (rule: Proto.RestartRule, backoff: Readonly<Record<string, unknown>>) =>
  given({
    on: rule.on && matchOf(rule.on),
    then: wordOf(actions, rule.then),
    counts: rule.counts,
    backoff: rule.backoff && { ...backoff, ...backoffOf(rule.backoff) },
    consecutive: rule.consecutive,
    whenSpent: rule.whenSpent === undefined ? undefined : wordOf(whenSpents, rule.whenSpent)
  })

/** A budget's stored form, for the schema to judge. */
export const budgetOf = ({ restarts, window, within }: Proto.Budget) =>
  given({ restarts, within: within && millisOf(within), window: wordOf(windows, window) })

const recordOf = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null ? { ...value } : {}

/** The stored form of a policy from the wire, its preset expanded, for the domain's schema to judge. */
export const encodedOf = (policy: Proto.RestartPolicy | undefined): Record<string, unknown> => {
  if (policy === undefined) return {}
  const said = given({
    restart: wordOf(restartTypes, policy.restart),
    backoff: policy.backoff && backoffOf(policy.backoff),
    budget: policy.budget && budgetOf(policy.budget),
    whenSpent: wordOf(whenSpents, policy.whenSpent),
    maxConsecutive: policy.maxConsecutive,
    fallback: policy.fallback === "" ? undefined : policy.fallback,
    rememberStop: policy.rememberStop
  })
  const { preset } = policy
  const encoded = RestartPreset.isName(preset) ? RestartPreset.expand(preset, said) : said
  const { first: _, ...backoff } = recordOf(encoded["backoff"])
  return policy.rules.length === 0 ? encoded : { ...encoded, rules: policy.rules.map((rule) => ruleOf(rule, backoff)) }
}

/** Refuses a preset that does not exist, in the policy at `field` of a request. */
export const checkPreset = (
  field: string,
  policy: Proto.RestartPolicy | undefined
): Effect.Effect<void, InvalidRequest> => {
  const preset = policy?.preset ?? ""
  return preset === "" || RestartPreset.isName(preset)
    ? Effect.void
    : Effect.fail(invalid(`${field}.preset`, `must be one of ${RestartPreset.names.join(", ")}`))
}

const decode = decoder("policy", Proto.RestartPolicySchema, RestartPolicy.RestartPolicy)

/** The policy in the field `policy` of a request. */
export const fromProto = (
  policy: Proto.RestartPolicy | undefined
): Effect.Effect<RestartPolicy.RestartPolicy, InvalidRequest> =>
  Effect.andThen(checkPreset("policy", policy), decode(encodedOf(policy)))
