/**
 * What a supervisor does when a child has ended by itself: a pure function from policy, history and exit to a decision
 * with its reason in plain words. The engine carries decisions out, `Explain` plays them through; nothing else takes any.
 *
 * In order:
 * 1. The first rule of the policy that matches the exit says what follows; a restart goes on below, with the rule's
 *    back-off if it has one.
 * 2. Without a rule: a `temporary` child is never restarted, a `transient` one not after a normal end, an `on-success` one
 *    only after a normal end.
 * 3. What is spent says what follows: the restarts that the rule has in a row, the child's budget, its consecutive ends.
 * 4. A child that escalates also spends the supervisor's intensity, and escalates when that is spent. So does a restart
 *    of the whole group, since it concerns everybody.
 * 5. Otherwise it is restarted after the delay that its consecutive ends call for.
 *
 * Where nobody can reboot the host (Ironwood is not its init), `reboot-host` escalates and says so.
 *
 * A restart by a rule with `counts: false` skips what concerns budget, consecutive ends and intensity.
 */
import * as Duration from "effect/Duration"
import { delayOf, longest } from "./Backoff.ts"
import type { Intensity } from "./ChildSpec.ts"
import type { ExitView } from "./ExitView.ts"
import type { RestartPolicy } from "./RestartPolicy.ts"
import * as RestartRule from "./RestartRule.ts"
import { span } from "./WhyStory.ts"

/** All that a decision depends on. */
export interface Situation {
  readonly policy: RestartPolicy
  readonly exit: ExitView
  /** True when the child is a supervisor: its failure must stay visible. */
  readonly supervisor: boolean
  /** Consecutive ends before this one. */
  readonly attempt: number
  /** Milliseconds from the acknowledgement of the start to the end; 0 without acknowledgement. */
  readonly ranFor: number
  /** Restarts that the policy's own budget would count against one made in `delay` milliseconds. */
  readonly restartsOfChild: (delay: number) => number
  /** Restarts made by a rule (its place from 0) since the last healthy run. */
  readonly ruleRestarts: (index: number) => number
  /** The supervisor's limit, if it has one, and restart events within its window. */
  readonly intensity: Intensity | undefined
  readonly restartsOfSupervisor: number
  /** Whether somebody carries out a `reboot-host`; else it escalates. */
  readonly canReboot: boolean
  /** From 0 to 1, for the jitter. */
  readonly random: number
}

/** What was used up when a supervisor gives up; `rule`: nothing, a rule says so. */
export type Spent = "child" | "supervisor" | "consecutive" | "rule"

/** The decision. `attempt` is the number of consecutive ends including this one; delays are whole milliseconds. */
export type Decision =
  | {
      readonly _tag: "Restart"
      readonly attempt: number
      readonly delay: number
      /** Whether this restart spends the supervisor's intensity. */
      readonly spendsIntensity: boolean
      /** The rule that restarts it, by its place from 0. */
      readonly rule: number | undefined
      /** Whether this restart spends the child's budget. */
      readonly counts: boolean
      readonly reason: string
    }
  | { readonly _tag: "Park"; readonly attempt: number; readonly reason: string }
  /** Parked, and `sibling` is started. */
  | { readonly _tag: "Fallback"; readonly attempt: number; readonly sibling: string; readonly reason: string }
  /** All siblings are ended and start anew with it in `delay`. Spends the supervisor's intensity. */
  | { readonly _tag: "RestartGroup"; readonly attempt: number; readonly delay: number; readonly reason: string }
  | { readonly _tag: "RebootHost"; readonly attempt: number; readonly reason: string }
  | {
      readonly _tag: "Escalate"
      readonly attempt: number
      readonly budget: Spent
      readonly restarts: number
      /** Milliseconds; 0 where no window is concerned. */
      readonly within: number
      readonly reason: string
    }
  /** It is over. `failed`: abnormally; `forget`: the spec goes too. */
  | { readonly _tag: "Finish"; readonly failed: boolean; readonly forget: boolean; readonly reason: string }

/** To a tenth of a second below a minute; longer ones as the rest of a `why` says them: `10 min`, `1 h`. */
const time = (milliseconds: number): string =>
  milliseconds < 1_000
    ? `${milliseconds} ms`
    : milliseconds < 60_000
      ? `${Math.round(milliseconds / 100) / 10} s`
      : span(milliseconds)

const inTime = (delay: number): string => (delay === 0 ? "at once" : `in ${time(delay)}`)

/** Whether a run that ended so was healthy: what was counted before it counts no more. */
export const isHealthy = (policy: RestartPolicy, exit: ExitView, ranFor: number): boolean =>
  !exit.beforeReady && ranFor >= Duration.toMillis(policy.backoff.resetAfter)

/** Whether it is over with this exit, whatever was before: neither a restart nor anybody's help follows. */
export const isFinal = (policy: RestartPolicy, exit: ExitView): boolean => {
  const found = RestartRule.find(policy.rules, exit)
  return found === undefined ? !restarts(policy, exit) : found.rule.then === "finish"
}

const restarts = ({ restart }: RestartPolicy, exit: ExitView): boolean => {
  switch (restart) {
    case "permanent":
      return true
    case "transient":
      return exit.class !== "normal"
    case "on-success":
      return exit.class === "normal"
    case "temporary":
      return false
  }
}

/** Decides; see the module header. */
export const decide = (situation: Situation): Decision => {
  const { exit, policy } = situation
  const found = RestartRule.find(policy.rules, exit)
  const what =
    found === undefined ? whatHappened(exit) : `${whatHappened(exit)}; ${RestartRule.name(found.index, found.rule)}`
  const healthy = isHealthy(policy, exit, situation.ranFor)
  const history: History = { healthy, attempt: healthy ? 1 : situation.attempt + 1, what }
  if (found === undefined) {
    return restarts(policy, exit) ? restart(situation, history, undefined) : over(situation, what)
  }
  switch (found.rule.then) {
    case "restart":
      return restart(situation, history, found)
    case "finish":
      return { _tag: "Finish", failed: false, forget: policy.restart === "temporary", reason: `${what}: it is over` }
    default:
      return remedy(situation, history, found.rule.then, {
        budget: "rule",
        restarts: 0,
        within: 0,
        delay: delayFor(situation, history, found),
        because: what
      })
  }
}

interface Found {
  readonly index: number
  readonly rule: RestartRule.Rule
}

interface History {
  readonly healthy: boolean
  /** Consecutive ends including this one. */
  readonly attempt: number
  /** What happened, and which rule is about it. */
  readonly what: string
}

const whatHappened = (exit: ExitView): string =>
  exit.class === "normal"
    ? "it ended normally"
    : exit.beforeReady
      ? `its start failed (${exit.tag})`
      : `it ended (${exit.tag})`

/** It is not restarted, by the policy's type. */
const over = ({ exit, policy, supervisor }: Situation, what: string): Decision => {
  const failed = exit.class !== "normal"
  switch (policy.restart) {
    case "temporary":
      return {
        _tag: "Finish",
        failed,
        forget: !(failed && supervisor),
        reason: `${what}; temporary actors are not restarted`
      }
    case "on-success":
      return { _tag: "Finish", failed, forget: false, reason: `${what}; on-success actors are then over` }
    default:
      return { _tag: "Finish", failed, forget: false, reason: `${what}; transient actors are then done` }
  }
}

/** The place on the curve: a rule's own, or the policy's. */
const delayFor = (situation: Situation, { attempt, healthy }: History, found: Found | undefined): number => {
  const { policy, random } = situation
  const own = found?.rule.backoff
  if (found !== undefined && own !== undefined) {
    return delayOf(own, healthy ? 1 : situation.ruleRestarts(found.index) + 1, random)
  }
  const before = found?.rule.counts === false ? Math.max(1, attempt - 1) : attempt
  return delayOf(policy.backoff, before, random)
}

/** One that does not count is not among the consecutive ends. */
const attemptAfter = (situation: Situation, { attempt, healthy }: History, counts: boolean): number =>
  counts ? attempt : healthy ? 0 : situation.attempt

const restart = (situation: Situation, history: History, found: Found | undefined): Decision => {
  const { intensity, policy } = situation
  const { attempt, healthy, what } = history
  const counts = found?.rule.counts ?? true
  const delay = delayFor(situation, history, found)
  const escalates = policy.whenSpent === "escalate"

  const limit = found?.rule.consecutive
  if (found !== undefined && limit !== undefined && !healthy && situation.ruleRestarts(found.index) >= limit) {
    const because = `${what}: its ${limit === 1 ? "one restart is" : `${limit} restarts in a row are`} used up`
    const spent = { budget: "consecutive", restarts: limit, within: 0, delay, because } as const
    return remedyOrTryOn(situation, history, found, found.rule.whenSpent ?? policy.whenSpent, spent)
  }
  if (counts) {
    const { budget, maxConsecutive } = policy
    if (budget !== undefined && situation.restartsOfChild(delay) >= budget.restarts) {
      const within = Duration.toMillis(budget.within)
      const starts = budget.window === "tumbling" ? "starts" : "restarts"
      const because = `${what}; its budget of ${budget.restarts} ${starts} in ${time(within)} is spent`
      const spent = { budget: "child", restarts: budget.restarts, within, delay, because } as const
      return remedyOrTryOn(situation, history, found, policy.whenSpent, spent)
    }
    if (maxConsecutive !== undefined && attempt >= maxConsecutive) {
      const because = `${what}; that is ${attempt === 1 ? "1 end" : `${attempt} ends`} in a row without a healthy run of ${time(Duration.toMillis(policy.backoff.resetAfter))}, and ${maxConsecutive} are the limit`
      const spent = { budget: "consecutive", restarts: attempt - 1, within: 0, delay, because } as const
      return remedyOrTryOn(situation, history, found, policy.whenSpent, spent)
    }
    if (escalates && intensity !== undefined && situation.restartsOfSupervisor >= intensity.restarts) {
      return intensitySpent(history, intensity)
    }
  }
  const after = healthy
    ? `after a healthy run of ${time(Math.round(situation.ranFor))}`
    : counts
      ? `consecutive end number ${attempt}`
      : "which does not count"
  const by = found === undefined ? `; ${policy.restart}` : ""
  return {
    _tag: "Restart",
    attempt: attemptAfter(situation, history, counts),
    delay,
    spendsIntensity: counts && escalates,
    rule: found?.index,
    counts,
    // Joined, since what `+` makes is a chain of pieces, and histories keep thousands of them.
    reason: [what, ", ", after, by, ": restart ", inTime(delay)].join("")
  }
}

/** What is spent, and how to say so. */
interface Limit {
  readonly budget: Spent
  readonly restarts: number
  readonly within: number
  /** The delay where the group starts anew. */
  readonly delay: number
  readonly because: string
}

const remedyOrTryOn = (
  situation: Situation,
  history: History,
  found: Found | undefined,
  whenSpent: RestartRule.WhenSpent,
  spent: Limit
): Decision => {
  if (whenSpent !== "keep-trying") return remedy(situation, history, whenSpent, spent)
  const delay = longest(found?.rule.backoff ?? situation.policy.backoff, situation.random)
  const counts = found?.rule.counts ?? true
  return {
    _tag: "Restart",
    attempt: attemptAfter(situation, history, counts),
    delay,
    spendsIntensity: false,
    rule: found?.index,
    counts,
    reason: `${spent.because}: tried on at the longest delay, next ${inTime(delay)}`
  }
}

const remedy = (
  { canReboot, intensity, policy, restartsOfSupervisor }: Situation,
  history: History,
  what: Exclude<RestartRule.WhenSpent, "keep-trying">,
  { because, budget, delay, restarts, within }: Limit
): Decision => {
  const { attempt } = history
  switch (what) {
    case "escalate":
      return { _tag: "Escalate", attempt, budget, restarts, within, reason: `${because}: the supervisor gives up` }
    case "park":
      return { _tag: "Park", attempt, reason: `${because}: it is parked until somebody starts it` }
    case "fallback": {
      // The schema wants the name wherever something falls back; without one a person is asked.
      const sibling = policy.fallback
      return sibling === undefined
        ? { _tag: "Park", attempt, reason: `${because}: it is parked until somebody starts it` }
        : { _tag: "Fallback", attempt, sibling, reason: `${because}: it is parked, and ${sibling} is started instead` }
    }
    case "restart-group":
      return intensity !== undefined && restartsOfSupervisor >= intensity.restarts
        ? intensitySpent(history, intensity)
        : { _tag: "RestartGroup", attempt, delay, reason: `${because}: the whole group restarts ${inTime(delay)}` }
    case "reboot-host":
      if (!canReboot) {
        const reason = `${because}: the host should reboot, but Ironwood is not its init; the supervisor gives up instead`
        return { _tag: "Escalate", attempt, budget, restarts, within, reason }
      }
      return { _tag: "RebootHost", attempt, reason: `${because}: the host reboots` }
  }
}

const intensitySpent = ({ attempt, what }: History, { restarts, within }: Intensity): Decision => ({
  _tag: "Escalate",
  attempt,
  budget: "supervisor",
  restarts,
  within,
  reason: `${what}; the supervisor's intensity of ${restarts} restarts in ${time(within)} is spent: it gives up`
})
