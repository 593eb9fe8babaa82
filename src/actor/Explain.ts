/**
 * A dry run of a restart policy: given these exits at these times, what would the supervisor do, and why?
 *
 * When to use: before a policy is trusted with something, and to understand afterwards what it did. Nothing is started;
 * decisions are `decide`'s, windows are the engine's own.
 *
 * Traps:
 * - Times are milliseconds since the first start. The clock of the dry run follows the middle of each delay; with jitter
 *   the real one lies between `min` and `max`.
 * - A start is acknowledged at once, unless the exit says that it was before that.
 * - `reboot-host` is answered as on a host that Ironwood has booted.
 * - Of the supervisor only its intensity is looked at: siblings' restarts, and stops in between, are not in the picture.
 */
import type { Intensity } from "./ChildSpec.ts"
import { type Decision, decide, isHealthy } from "./Decision.ts"
import type { ExitView } from "./ExitView.ts"
import { RestartAccount } from "./internal/RestartAccount.ts"
import { RestartWindow } from "./internal/RestartWindow.ts"
import type { RestartPolicy } from "./RestartPolicy.ts"

/** One exit: `after` so long a run, or `at` a time, whether it runs then or not. */
export interface PlannedExit {
  readonly when: { readonly after: number } | { readonly at: number }
  readonly exit: ExitView
}

export interface Options {
  readonly policy: RestartPolicy
  readonly exits: ReadonlyArray<PlannedExit>
  /** The supervisor's; nothing: it has no limit. */
  readonly intensity?: Intensity | undefined
  /** True when the actor is a supervisor itself. */
  readonly supervisor?: boolean
}

/** What followed an exit. */
export interface Step {
  readonly at: number
  /** Which run ended, from 1. */
  readonly run: number
  readonly ranFor: number
  readonly exit: ExitView
  /** Nothing when it was not running then. */
  readonly decision: Decision | undefined
  /** The decision's; or where it was instead of running. */
  readonly reason: string
  /** Until the next start. */
  readonly delay: { readonly min: number; readonly middle: number; readonly max: number } | undefined
  readonly nextStartAt: number | undefined
  /** Restarts left in the policy's own budget after this. */
  readonly budgetLeft: number | undefined
  /** Consecutive ends, this one included. */
  readonly attempt: number
}

/** Where it is after all that. */
export interface Outcome {
  readonly state: "running" | "backing-off" | "parked" | "finished" | "failed"
  /** In words. */
  readonly summary: string
  /** While backing off. */
  readonly nextStartAt: number | undefined
}

export interface Explanation {
  readonly steps: ReadonlyArray<Step>
  readonly outcome: Outcome
}

/** Plays the exits through; see the module header. */
export const explain = ({ exits, intensity, policy, supervisor = false }: Options): Explanation => {
  const account = new RestartAccount(policy)
  const events = intensity === undefined ? undefined : new RestartWindow(intensity.restarts, intensity.within)
  const steps: Array<Step> = []
  let startedAt = 0
  let run = 1
  let attempt = 0
  let now = 0
  let over: Outcome | undefined
  account.started(0)

  for (const { exit, when } of exits) {
    const at = "after" in when ? Math.max(now, startedAt + when.after) : when.at
    if (over !== undefined || at < startedAt) {
      now = Math.max(now, at)
      const reason =
        over === undefined ? `it was not running: its next start is later` : `it was not running: ${over.state}`
      steps.push({
        at,
        run,
        ranFor: 0,
        exit,
        decision: undefined,
        reason,
        delay: undefined,
        nextStartAt: over === undefined ? startedAt : undefined,
        budgetLeft: account.left(now),
        attempt
      })
      continue
    }
    now = at
    const ranFor = exit.beforeReady ? 0 : at - startedAt
    const decideWith = (random: number): Decision =>
      decide({
        policy,
        exit,
        supervisor,
        attempt,
        ranFor,
        restartsOfChild: (delay) => account.counted(now, delay),
        ruleRestarts: (index) => account.ofRule(index),
        intensity,
        restartsOfSupervisor: events?.count(now) ?? 0,
        canReboot: true,
        random
      })
    const decision = decideWith(0.5)
    const middle = delayOf(decision)
    const delay =
      middle === undefined
        ? undefined
        : { min: delayOf(decideWith(0)) ?? middle, middle, max: delayOf(decideWith(1)) ?? middle }
    account.spend(decision, isHealthy(policy, exit, ranFor), now)
    attempt = decision._tag === "Finish" ? 0 : decision.attempt
    if (decision._tag === "Restart") {
      if (decision.spendsIntensity) events?.record(now)
    } else if (decision._tag === "RestartGroup") {
      events?.record(now)
    } else {
      over = endOf(decision)
    }
    const nextStartAt = middle === undefined ? undefined : now + middle
    const { reason } = decision
    steps.push({ at, run, ranFor, exit, decision, reason, delay, nextStartAt, budgetLeft: account.left(now), attempt })
    if (nextStartAt !== undefined) {
      startedAt = nextStartAt
      run++
    }
  }
  return { steps, outcome: over ?? goesOn(run, startedAt, now) }
}

const delayOf = (decision: Decision): number | undefined =>
  decision._tag === "Restart" || decision._tag === "RestartGroup" ? decision.delay : undefined

const endOf = (decision: Exclude<Decision, { readonly _tag: "Restart" | "RestartGroup" }>): Outcome => {
  const nextStartAt = undefined
  switch (decision._tag) {
    case "Park":
      return { state: "parked", summary: "parked until somebody starts it", nextStartAt }
    case "Fallback":
      return { state: "parked", summary: `parked; ${decision.sibling} runs in its place`, nextStartAt }
    case "Escalate":
      return { state: "failed", summary: "failed; its supervisor gives up and fails too", nextStartAt }
    case "RebootHost":
      return { state: "failed", summary: "failed; the host reboots", nextStartAt }
    case "Finish":
      return decision.failed
        ? { state: "failed", summary: "failed; it is not restarted", nextStartAt }
        : { state: "finished", summary: "finished", nextStartAt }
  }
}

const goesOn = (run: number, startedAt: number, now: number): Outcome =>
  startedAt > now
    ? { state: "backing-off", summary: `backing off; run ${run} is next`, nextStartAt: startedAt }
    : { state: "running", summary: `running, run ${run}`, nextStartAt: undefined }
