/** What follows from an end by itself, said as plainly as it can be: the model's own reading of restart policies. */
import * as Duration from "effect/Duration"
import type { RestartPolicy } from "../../../src/actor/RestartPolicy.ts"
import { WITHIN } from "../Shape.ts"
import type { Actor } from "./Actor.ts"

export interface Ended {
  readonly normal: boolean
  readonly beforeReady: boolean
}

export type Verdict =
  /** It is over, for good. */
  | { readonly _tag: "Over" }
  | { readonly _tag: "Parked" }
  | { readonly _tag: "GivesUp" }
  | { readonly _tag: "Restarts"; readonly delay: number; readonly everyone: boolean }

/** The delay at this place of the curve. */
const curve = ({ backoff: { factor, first, initial, max } }: RestartPolicy, attempt: number): number => {
  const at = (step: number) => Math.min(Duration.toMillis(max), Duration.toMillis(initial) * factor ** step)
  if (first === undefined) return at(attempt - 1)
  return attempt === 1 ? Duration.toMillis(first) : at(attempt - 2)
}

/** Restarts, or starts, that count against one made at `at`. */
const counted = ({ shape: { policy }, tumbling, window }: Actor, now: number, at: number): number => {
  const { budget } = policy
  if (budget === undefined) return 0
  const within = Duration.toMillis(budget.within)
  if (budget.window === "sliding") return window.filter((before) => now - before < within).length
  return tumbling === undefined || at - tumbling.opened > within ? 0 : tumbling.starts
}

/** A start at `at` opens a tumbling window, or is in the one that is open. */
export const countStart = (actor: Actor, at: number): void => {
  const { budget } = actor.shape.policy
  if (budget?.window !== "tumbling") return
  const { tumbling } = actor
  if (tumbling === undefined || at - tumbling.opened > Duration.toMillis(budget.within)) {
    actor.tumbling = { opened: at, starts: 1 }
  } else tumbling.starts++
}

const lastsOn = ({ restart }: RestartPolicy, { normal }: Ended): boolean =>
  restart === "permanent" || (restart === "transient" && !normal) || (restart === "on-success" && normal)

/** Decides about the end of `actor` and counts what that spends. */
export const judge = (actor: Actor, group: Actor, exit: Ended, now: number): Verdict => {
  const { policy } = actor.shape
  const healthy = !exit.beforeReady && now - actor.readyAt >= Duration.toMillis(policy.backoff.resetAfter)
  if (healthy) actor.ruled = 0
  const [rule] = policy.rules
  if (!lastsOn(policy, exit)) {
    actor.attempt = 0
    return { _tag: "Over" }
  }
  if (rule !== undefined && !exit.normal) {
    // About failures, which do not count; so many in a row, and it parks.
    if (actor.ruled >= (rule.consecutive ?? Number.POSITIVE_INFINITY)) {
      actor.attempt++
      return { _tag: "Parked" }
    }
    actor.ruled++
    if (healthy) actor.attempt = 0
    const delay = rule.backoff === undefined ? 0 : Duration.toMillis(rule.backoff.initial)
    return { _tag: "Restarts", delay, everyone: false }
  }
  actor.attempt = healthy ? 1 : actor.attempt + 1
  const delay = curve(policy, actor.attempt)
  const limit = group.shape.group?.kind === "static" ? group.shape.group.intensity : Number.POSITIVE_INFINITY
  const groupIsSpent = group.spent.filter((at) => now - at < WITHIN).length >= limit
  const budgetIsSpent = policy.budget !== undefined && counted(actor, now, now + delay) >= policy.budget.restarts
  const isSpent = budgetIsSpent || actor.attempt >= (policy.maxConsecutive ?? Number.POSITIVE_INFINITY)
  const restarts = (delay: number): Verdict => {
    actor.window.push(now)
    countStart(actor, now + delay)
    return { _tag: "Restarts", delay, everyone: false }
  }
  if (!isSpent) {
    if (policy.whenSpent !== "escalate") return restarts(delay)
    if (groupIsSpent) return { _tag: "GivesUp" }
    group.spent.push(now)
    return restarts(delay)
  }
  switch (policy.whenSpent) {
    case "keep-trying":
      return restarts(Duration.toMillis(policy.backoff.max))
    case "restart-group":
      if (groupIsSpent) return { _tag: "GivesUp" }
      group.spent.push(now)
      return { _tag: "Restarts", delay, everyone: true }
    case "escalate":
      return { _tag: "GivesUp" }
    default:
      return { _tag: "Parked" }
  }
}
