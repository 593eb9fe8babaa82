/** Why a policy decided as it did, sentence by sentence: its type, rule, back-off and budgets in words. Part of `Why.ts`. */
import * as Duration from "effect/Duration"
import * as Path from "./ActorPath.ts"
import type { Backoff } from "./Backoff.ts"
import type { Budget, RestartPolicy } from "./RestartPolicy.ts"
import * as RestartRule from "./RestartRule.ts"
import type { Known } from "./Why.ts"
import { count, isEnd, span } from "./WhyStory.ts"

const types = {
  permanent: "it is permanent: started again however it ends",
  transient: "it is transient: started again when it fails, and done when it ends normally",
  temporary: "it is temporary: never started again",
  "on-success": "it is on-success: started again when it ends normally, and done when it fails"
} as const satisfies Record<RestartPolicy["restart"], string>

const actions = {
  restart: "start it again",
  finish: "it is over",
  park: "park it until somebody starts it",
  escalate: "its supervisor gives up",
  fallback: "park it and start its fallback instead",
  "restart-group": "start it anew with its siblings",
  "reboot-host": "reboot the host"
} as const satisfies Record<RestartRule.Then, string>

const whenSpent = {
  ...actions,
  "keep-trying": "try on at the longest delay"
} as const satisfies Record<RestartRule.WhenSpent, string>

const millis = Duration.toMillis

const growth = ({ curve, factor, initial }: Backoff): string => {
  if (curve === "fibonacci") return ", growing as 1, 1, 2, 3, 5 …"
  if (factor === 1) return ""
  if (curve === "linear") return `, ${span(millis(initial) * (factor - 1))} longer each time`
  return factor === 2 ? ", doubling each time" : `, ${Math.round(factor * 100) / 100} times as long each time`
}

const curve = (backoff: Backoff): string => {
  const { first, initial, jitter, max } = backoff
  const begin =
    first === undefined ? "" : millis(first) === 0 ? "none at first, then " : `${span(millis(first))} at first, then `
  const cap = millis(initial) < millis(max) ? `, at most ${span(millis(max))}` : ""
  const spread = jitter === 0 ? "" : `, give or take ${Math.round(jitter * 100)} %`
  return `${begin}${span(millis(initial))}${growth(backoff)}${cap}${spread}`
}

/** `left`: nothing for one that is down until somebody starts it, with a budget that is whole again then. */
const budgetWords = ({ restarts, window, within }: Budget, left: number | undefined, policy: RestartPolicy): string => {
  const what = window === "tumbling" ? "start" : "restart"
  const gone =
    left === undefined
      ? ", whole again when somebody starts it"
      : `, of which ${left === 0 ? "none is left" : `${left} ${left === 1 ? "is" : "are"} left`}`
  return `its budget is ${count(restarts, what)} in ${span(millis(within))}${gone}; once spent: ${whenSpent[policy.whenSpent]}`
}

/** The sentences; few for an actor that is well. */
export const policyWords = ({ history, moment, node, supervisor }: Known): ReadonlyArray<string> => {
  const { attempt, entry, lastExit, policy, state } = node
  const words: Array<string> = []
  const ended = state === "backing-off" || state === "parked" || state === "failed" || state === "finished"
  const decided = history.findLast(isEnd)
  if (state !== "running" && entry?.exit !== undefined) words.push(entry.reason)
  else if (state !== "running" && decided?.because !== undefined)
    words.push(`its last end was not its own, so its policy had no say: ${decided.reason}`)
  words.push(types[policy.restart])
  const found = lastExit === undefined || !ended ? undefined : RestartRule.find(policy.rules, lastExit)
  if (found !== undefined) {
    words.push(`${RestartRule.name(found.index, found.rule)} comes before that: ${actions[found.rule.then]}`)
  }
  if (state === "backing-off") {
    words.push(
      `the wait before a start: ${curve(found?.rule.backoff ?? policy.backoff)}; this is end number ${attempt} in a row`
    )
  }
  const rests = state === "parked" || state === "failed" || state === "finished" || state === "stopped"
  if (policy.budget !== undefined)
    words.push(budgetWords(policy.budget, rests ? undefined : (moment.budgetLeft ?? 0), policy))
  else if (state === "backing-off" && policy.maxConsecutive === undefined) {
    words.push("it has no budget: it is tried for as long as it takes")
  }
  if (policy.maxConsecutive !== undefined) {
    words.push(
      `${count(policy.maxConsecutive, "end")} in a row without a run of ${span(millis(policy.backoff.resetAfter))} are its limit; then: ${whenSpent[policy.whenSpent]}`
    )
  }
  const above = supervisor?.moment.intensity
  if (supervisor !== undefined && above !== undefined && policy.whenSpent === "escalate") {
    words.push(
      `its supervisor "${Path.id(supervisor.node.path)}" takes ${count(above.restarts, "restart")} in ${span(above.within)} before it gives up; ${above.spent} ${above.spent === 1 ? "has" : "have"} been spent`
    )
  }
  const own = moment.intensity
  if (own !== undefined) {
    words.push(
      `of its children it takes ${count(own.restarts, "restart")} in ${span(own.within)}; ${own.spent} ${own.spent === 1 ? "has" : "have"} been spent`
    )
  }
  if (state === "stopped") {
    words.push(
      policy.rememberStop
        ? "a stop is remembered when Ironwood restarts"
        : "a stop is forgotten when Ironwood restarts: it is started then"
    )
  }
  return words
}
