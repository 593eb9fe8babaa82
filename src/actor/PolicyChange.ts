/** What of a restart policy was changed, in words, for the history of an actor: `max 1 min → 30 s, budget none → 5 in 10 min`. */
import * as Duration from "effect/Duration"
import * as Equal from "effect/Equal"
import type { RestartPolicy } from "./RestartPolicy.ts"
import { count, span } from "./WhyStory.ts"

const time = (duration: Duration.Duration | undefined): string =>
  duration === undefined ? "none" : span(Duration.toMillis(duration))

/** The parts of a policy by the names that a spec file has for them. */
const parts = ({ backoff, budget, ...policy }: RestartPolicy): ReadonlyMap<string, string> =>
  new Map([
    ["restart", policy.restart],
    ["first", time(backoff.first)],
    ["initial", time(backoff.initial)],
    ["curve", backoff.curve],
    ["factor", String(backoff.factor)],
    ["max", time(backoff.max)],
    ["jitter", String(backoff.jitter)],
    ["resetAfter", time(backoff.resetAfter)],
    ["budget", budget === undefined ? "none" : `${budget.restarts} in ${time(budget.within)}`],
    ["window", budget?.window ?? "none"],
    ["maxConsecutive", String(policy.maxConsecutive ?? "none")],
    ["whenSpent", policy.whenSpent],
    ["fallback", policy.fallback ?? "none"],
    ["rememberStop", String(policy.rememberStop)],
    ["rules", count(policy.rules.length, "rule")]
  ])

/** The parts in which the policies differ; that nothing was changed is said too. */
export const policyChange = (before: RestartPolicy, after: RestartPolicy): string => {
  const [old, present] = [parts(before), parts(after)]
  const changes = [...present].flatMap(([name, value]) => {
    const was = old.get(name)
    if (name === "window" && (was === "none" || value === "none")) return []
    return was === value ? [] : [`${name} ${was} → ${value}`]
  })
  if (changes.length === 0)
    return Equal.equals(before.rules, after.rules) ? "nothing in it is different" : "other rules"
  return changes.join(", ")
}
