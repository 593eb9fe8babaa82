/**
 * A restart policy in words, for `inspect`, `policy get`, `policy set` and `policy explain`.
 *
 * Responses have every field filled in; what is missing nevertheless is left out instead of guessed.
 */
import { ExitClass } from "../../proto/generated/ironwood/v1/exit_pb.ts"
import {
  type Backoff,
  BackoffCurve,
  BudgetWindow,
  type ExitMatch,
  type RestartPolicy,
  type RestartRule,
  RestartType,
  RuleAction,
  WhenSpent
} from "../../proto/generated/ironwood/v1/policy_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import * as Text from "./Text.ts"

const types: ReadonlyMap<RestartType, string> = new Map([
  [RestartType.PERMANENT, "permanent (restarted however it ends)"],
  [RestartType.TRANSIENT, "transient (restarted when it fails)"],
  [RestartType.TEMPORARY, "temporary (never restarted)"],
  [RestartType.ON_SUCCESS, "on-success (restarted when it ends normally; a failure is the end)"]
])

const spent = ({ fallback }: RestartPolicy, whenSpent: WhenSpent): string => {
  switch (whenSpent) {
    case WhenSpent.ESCALATE:
      return "then its supervisor fails (escalate)"
    case WhenSpent.PARK:
      return "then parked until a person starts it"
    case WhenSpent.KEEP_TRYING:
      return "then on at the longest delay (keep-trying)"
    case WhenSpent.FALLBACK:
      return `then parked, and ${Text.clean(fallback)} started in its place (fallback)`
    case WhenSpent.RESTART_GROUP:
      return "then its siblings start anew with it (restart-group)"
    case WhenSpent.REBOOT_HOST:
      return "then the host reboots (reboot-host)"
    default:
      return ""
  }
}

const actions = ({ fallback }: RestartPolicy, action: RuleAction): string => {
  switch (action) {
    case RuleAction.FINISH:
      return "it is over, as after a normal end"
    case RuleAction.PARK:
      return "parked until a person starts it"
    case RuleAction.ESCALATE:
      return "its supervisor fails"
    case RuleAction.FALLBACK:
      return `parked, and ${Text.clean(fallback)} started in its place`
    case RuleAction.RESTART_GROUP:
      return "its siblings start anew with it"
    case RuleAction.REBOOT_HOST:
      return "the host reboots"
    default:
      return "restarted"
  }
}

const classes: ReadonlyMap<ExitClass, string> = new Map([
  [ExitClass.NORMAL, "a normal end"],
  [ExitClass.FAILURE, "a failure"],
  [ExitClass.DEFECT, "a bug (defect)"],
  [ExitClass.INTERRUPTED, "interrupted from outside"],
  [ExitClass.NOT_STARTED, "not started"]
])

/** A number without a tail of zeros. */
const short = (value: number): string => String(Math.round(value * 100) / 100)

const span = (duration: Backoff["initial"]): string => HumanText.shortSpan(ActorText.millisecondsOf(duration))

const growth = ({ curve, factor, initial }: Backoff): ReadonlyArray<string> => {
  if (curve === BackoffCurve.FIBONACCI) return ["× 1, 1, 2, 3, 5 …"]
  if (factor === undefined || factor === 1) return []
  return curve === BackoffCurve.LINEAR
    ? [`+ ${HumanText.shortSpan(ActorText.millisecondsOf(initial) * (factor - 1))} each time`]
    : [`× ${short(factor)} each time`]
}

/** `first 0s, then 500ms × 2 each time up to 30s ± 20 %`. */
const curve = (backoff: Backoff): string =>
  [
    ...(backoff.first === undefined ? [] : [`first ${span(backoff.first)}, then`]),
    span(backoff.initial),
    ...growth(backoff),
    ...(backoff.max === undefined ? [] : [`up to ${span(backoff.max)}`]),
    ...(backoff.jitter === undefined || backoff.jitter === 0 ? [] : [`± ${short(backoff.jitter * 100)} %`])
  ].join(" ")

const either = (words: ReadonlyArray<string | number>): string =>
  words.map((word) => Text.clean(String(word))).join(" or ")

const match = (on: ExitMatch): string =>
  [
    ...(on.tags.length === 0 ? [] : [either(on.tags)]),
    ...(on.classes.length === 0 ? [] : [either(on.classes.map((of) => classes.get(of) ?? "?"))]),
    ...(on.exitCodes.length === 0 ? [] : [`exit code ${either(on.exitCodes)}`]),
    ...(on.signals.length === 0 ? [] : [either(on.signals)]),
    ...(on.outOfMemory === undefined ? [] : [on.outOfMemory ? "out of memory" : "not out of memory"]),
    ...(on.probeFailed === undefined ? [] : [on.probeFailed ? "a failed probe" : "no failed probe"])
  ].join(", ")

const rule = (policy: RestartPolicy, { backoff, consecutive, counts, on, then, whenSpent }: RestartRule): string =>
  [
    `${on === undefined ? "?" : match(on)}: ${actions(policy, then)}`,
    ...(backoff === undefined ? [] : [curve(backoff)]),
    ...(counts === false ? ["which does not count"] : []),
    ...(consecutive === undefined
      ? []
      : [`at most ${HumanText.count(consecutive, "time")} in a row, ${spent(policy, whenSpent ?? policy.whenSpent)}`])
  ].join(", ")

/** The policy as lines of `name, value`. */
export const lines = (policy: RestartPolicy): ReadonlyArray<readonly [string, string]> => {
  const { backoff, budget, maxConsecutive } = policy
  const result: Array<readonly [string, string]> = [["restart", types.get(policy.restart) ?? "not said"]]
  for (const [index, one] of policy.rules.entries()) result.push([`rule ${index + 1}`, rule(policy, one)])
  if (policy.restart === RestartType.TEMPORARY && policy.rules.length === 0) return result
  if (backoff !== undefined) {
    result.push(["back-off", curve(backoff)])
    if (backoff.resetAfter !== undefined) result.push(["healthy", `after ${span(backoff.resetAfter)} up`])
  }
  const starts = budget?.window === BudgetWindow.TUMBLING
  result.push([
    "budget",
    budget === undefined
      ? "none: as many restarts as it takes"
      : `${HumanText.count(budget.restarts, starts ? "start" : "restart")} in ${starts ? "each " : ""}${span(budget.within)}, ${spent(policy, policy.whenSpent)}`
  ])
  if (maxConsecutive !== undefined) {
    result.push([
      "in a row",
      `${HumanText.count(maxConsecutive, "end")} without a healthy run, ${spent(policy, policy.whenSpent)}`
    ])
  }
  if (policy.rememberStop === false) result.push(["stop", "a person's is forgotten when Ironwood restarts"])
  return result
}
