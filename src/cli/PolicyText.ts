/**
 * A restart policy in words, for `inspect`, `policy get` and `policy set`.
 *
 * Responses have every field filled in; what is missing nevertheless is left out instead of guessed.
 */
import { type RestartPolicy, RestartType, WhenSpent } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"

const types: ReadonlyMap<RestartType, string> = new Map([
  [RestartType.PERMANENT, "permanent (restarted however it ends)"],
  [RestartType.TRANSIENT, "transient (restarted when it fails)"],
  [RestartType.TEMPORARY, "temporary (never restarted)"]
])

const spents: ReadonlyMap<WhenSpent, string> = new Map([
  [WhenSpent.ESCALATE, "then its supervisor fails (escalate)"],
  [WhenSpent.PARK, "then parked until a person starts it"],
  [WhenSpent.KEEP_TRYING, "then on at the longest delay (keep-trying)"]
])

/** A number without a tail of zeros. */
const short = (value: number): string => String(Math.round(value * 100) / 100)

/** The policy as lines of `name, value`. */
export const lines = (policy: RestartPolicy): ReadonlyArray<readonly [string, string]> => {
  const { backoff, budget } = policy
  const result: Array<readonly [string, string]> = [["restart", types.get(policy.restart) ?? "not said"]]
  if (policy.restart === RestartType.TEMPORARY) return result
  if (backoff !== undefined) {
    const curve = [
      ...(backoff.first === undefined
        ? []
        : [`first ${HumanText.shortSpan(ActorText.millisecondsOf(backoff.first))}, then`]),
      HumanText.shortSpan(ActorText.millisecondsOf(backoff.initial)),
      ...(backoff.factor === undefined || backoff.factor === 1 ? [] : [`× ${short(backoff.factor)} each time`]),
      ...(backoff.max === undefined ? [] : [`up to ${HumanText.shortSpan(ActorText.millisecondsOf(backoff.max))}`]),
      ...(backoff.jitter === undefined || backoff.jitter === 0 ? [] : [`± ${short(backoff.jitter * 100)} %`])
    ]
    result.push(["back-off", curve.join(" ")])
    if (backoff.resetAfter !== undefined) {
      result.push(["healthy", `after ${HumanText.shortSpan(ActorText.millisecondsOf(backoff.resetAfter))} up`])
    }
  }
  result.push([
    "budget",
    budget === undefined
      ? "none: as many restarts as it takes"
      : `${HumanText.count(budget.restarts, "restart")} in ${HumanText.shortSpan(ActorText.millisecondsOf(budget.within))}, ${spents.get(policy.whenSpent) ?? ""}`
  ])
  return result
}
