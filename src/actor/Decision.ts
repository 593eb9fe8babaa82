/**
 * What a supervisor does when a child has ended by itself: a pure function from policy, history and exit to a decision
 * with its reason in plain words. The engine carries decisions out; nothing else takes any.
 *
 * The rules, in order:
 * 1. A `temporary` child is never restarted. A `transient` one is not after a normal end.
 * 2. A spent budget of the child's own: escalate, park, or keep trying at the longest delay, as the policy says.
 * 3. A child that escalates also spends the supervisor's intensity, and escalates when that is spent.
 * 4. Otherwise it is restarted after the delay that its consecutive failures call for.
 */
import * as Duration from "effect/Duration"
import type { Intensity } from "./ChildSpec.ts"
import type { ExitView } from "./ExitView.ts"
import type { Backoff, RestartPolicy } from "./RestartPolicy.ts"

/** All that a decision depends on. */
export interface Situation {
  readonly policy: RestartPolicy
  readonly exit: ExitView
  /** True when the child is a supervisor: its failure must stay visible. */
  readonly supervisor: boolean
  /** Consecutive failures before this end. */
  readonly attempt: number
  /** Milliseconds from the acknowledgement of the start to the end; 0 without acknowledgement. */
  readonly ranFor: number
  /** Restarts within the window of the policy's own budget. */
  readonly restartsOfChild: number
  /** The supervisor's limit, if it has one, and restart events within its window. */
  readonly intensity: Intensity | undefined
  readonly restartsOfSupervisor: number
  /** From 0 to 1, for the jitter. */
  readonly random: number
}

/** The decision. `attempt` is the number of consecutive failures including this one. */
export type Decision =
  | {
      readonly _tag: "Restart"
      readonly attempt: number
      /** Milliseconds, whole. */
      readonly delay: number
      /** Whether this restart spends the supervisor's intensity. */
      readonly spendsIntensity: boolean
      readonly reason: string
    }
  | { readonly _tag: "Park"; readonly attempt: number; readonly reason: string }
  | {
      readonly _tag: "Escalate"
      readonly attempt: number
      readonly budget: "child" | "supervisor"
      readonly restarts: number
      readonly within: number
      readonly reason: string
    }
  /** It is over. `failed`: abnormally; `forget`: the spec goes too. */
  | { readonly _tag: "Finish"; readonly failed: boolean; readonly forget: boolean; readonly reason: string }

/** Milliseconds to wait before restart number `attempt` (from 1) of a failing child. `random` is from 0 to 1. */
export const delayOf = (backoff: Backoff, attempt: number, random: number): number => {
  const max = Duration.toMillis(backoff.max)
  if (backoff.first !== undefined && attempt === 1) return jitter(backoff, Duration.toMillis(backoff.first), random)
  const step = attempt - (backoff.first === undefined ? 1 : 2)
  const initial = Duration.toMillis(backoff.initial)
  const delay = initial === 0 ? 0 : Math.min(max, initial * backoff.factor ** step)
  return jitter(backoff, delay, random)
}

const jitter = (backoff: Backoff, delay: number, random: number): number =>
  Math.round(delay * (1 + backoff.jitter * (2 * random - 1)))

const time = (milliseconds: number): string =>
  milliseconds < 1_000 ? `${milliseconds} ms` : `${Math.round(milliseconds / 100) / 10} s`

/** Decides; see the module header. */
export const decide = (situation: Situation): Decision => {
  const { exit, policy } = situation
  const normal = exit.class === "normal"
  const what =
    exit.beforeReady && !normal ? "its start failed" : normal ? "it ended normally" : `it ended (${exit.tag})`
  if (policy.restart === "temporary") {
    const failed = !normal
    return {
      _tag: "Finish",
      failed,
      forget: !(failed && situation.supervisor),
      reason: `${what}; temporary actors are not restarted`
    }
  }
  if (policy.restart === "transient" && normal) {
    return { _tag: "Finish", failed: false, forget: false, reason: `${what}; transient actors are then done` }
  }
  const healthy = !exit.beforeReady && situation.ranFor >= Duration.toMillis(policy.backoff.resetAfter)
  const attempt = healthy ? 1 : situation.attempt + 1
  const escalates = policy.whenSpent === "escalate"
  const budget = policy.budget
  if (budget !== undefined && situation.restartsOfChild >= budget.restarts) {
    const within = Duration.toMillis(budget.within)
    const spent = `${what}; its budget of ${budget.restarts} restarts in ${time(within)} is spent`
    switch (policy.whenSpent) {
      case "escalate":
        return {
          _tag: "Escalate",
          attempt,
          budget: "child",
          restarts: budget.restarts,
          within,
          reason: `${spent}: the supervisor gives up`
        }
      case "park":
        return { _tag: "Park", attempt, reason: `${spent}: it is parked until somebody starts it` }
      case "keep-trying": {
        const delay = jitter(policy.backoff, Duration.toMillis(policy.backoff.max), situation.random)
        const reason = `${spent}: tried on at the longest delay, next in ${time(delay)}`
        return { _tag: "Restart", attempt, delay, spendsIntensity: false, reason }
      }
    }
  }
  const intensity = situation.intensity
  if (escalates && intensity !== undefined && situation.restartsOfSupervisor >= intensity.restarts) {
    return {
      _tag: "Escalate",
      attempt,
      budget: "supervisor",
      restarts: intensity.restarts,
      within: intensity.within,
      reason: `${what}; the supervisor's intensity of ${intensity.restarts} restarts in ${time(intensity.within)} is spent: it gives up`
    }
  }
  const delay = delayOf(policy.backoff, attempt, situation.random)
  const after = healthy
    ? `after a healthy run of ${time(Math.round(situation.ranFor))}`
    : `consecutive end number ${attempt}`
  const reason = `${what}, ${after}; ${policy.restart}: restart ${delay === 0 ? "at once" : `in ${time(delay)}`}`
  return { _tag: "Restart", attempt, delay, spendsIntensity: escalates, reason }
}
