/** What happens next to an actor, and when; and what would follow if it failed now. Part of `Why.ts`. */
import * as Duration from "effect/Duration"
import * as Path from "./ActorPath.ts"
import { type Decision, decide } from "./Decision.ts"
import type { ExitView } from "./ExitView.ts"
import type { TreeNode } from "./Tree.ts"
import type { Known, Prospect } from "./Why.ts"
import { count, span } from "./WhyStory.ts"

/** An exit of which nothing is known but that it was a failure. */
const anyFailure = (at: number): ExitView => ({
  at,
  class: "failure",
  tag: "Failed",
  message: "failed",
  detail: "",
  beforeReady: false
})

/** What would be decided if it ended now, after `ranFor`, as it last ended; as some failure, when that was none. */
export const forecast = ({ canReboot, moment, node, now, supervisor }: Known, ranFor: number): Decision => {
  const { lastExit, policy } = node
  const {
    class: of,
    facts,
    message,
    tag
  } = lastExit === undefined || lastExit.class === "normal" ? anyFailure(now) : lastExit
  const intensity = supervisor?.moment.intensity
  return decide({
    policy,
    exit: { at: now, class: of, tag, message, detail: "", beforeReady: false, facts },
    supervisor: node.type === "supervisor",
    attempt: node.attempt,
    ranFor,
    restartsOfChild: () => (policy.budget === undefined ? 0 : policy.budget.restarts - (moment.budgetLeft ?? 0)),
    ruleRestarts: (index) => moment.ruleRestarts[index] ?? 0,
    intensity,
    restartsOfSupervisor: intensity?.spent ?? 0,
    canReboot,
    random: 0.5
  })
}

const others = ({ length }: Known["siblings"]): string =>
  length <= 1 ? "" : length === 2 ? ", which ends its other child" : `, which ends its ${length - 1} other children`

const consequence = (decision: Decision, { siblings, supervisor }: Known): string => {
  const above = supervisor === undefined ? "its supervisor" : `its supervisor "${Path.id(supervisor.node.path)}"`
  switch (decision._tag) {
    case "Restart":
      return decision.delay === 0
        ? "it is started again at once"
        : `it is started again in about ${span(decision.delay)}`
    case "Park":
      return "it is parked until somebody starts it"
    case "Fallback":
      return `it is parked, and "${decision.sibling}" is started in its place`
    case "RestartGroup":
      return `it is started anew with ${siblings.length > 1 ? `its ${count(siblings.length - 1, "sibling")}` : "its group"}`
    case "RebootHost":
      return "the host reboots"
    case "Escalate":
      return `${above} gives up and fails with it${others(siblings)}`
    case "Finish":
      return "it stays down"
  }
}

const lastTime = ({ lastExit }: TreeNode): string =>
  lastExit === undefined || lastExit.class === "normal" ? "if it fails" : "if it ends the same way again"

/** What is to come, the soonest first. */
export const prospectsOf = (known: Known): ReadonlyArray<Prospect> => {
  const { node, now, siblings, supervisor } = known
  const later = (text: string): Prospect => ({ at: undefined, text })
  switch (node.state) {
    case "running": {
      if (supervisor === undefined) return [later("if it fails: Ironwood's brain ends, and is started anew")]
      const ranFor = Math.max(0, now - (node.startedAt ?? node.since))
      const healthy = Duration.toMillis(node.policy.backoff.resetAfter)
      return [
        ...(node.attempt > 0 && ranFor < healthy
          ? [
              {
                at: (node.startedAt ?? node.since) + healthy,
                text: `it counts as healthy, and its ${count(node.attempt, "end")} in a row ${node.attempt === 1 ? "is" : "are"} forgotten at its next end`
              }
            ]
          : []),
        later(`${lastTime(node)} now: ${consequence(forecast(known, ranFor), known)}`)
      ]
    }
    case "starting":
      return [
        later("it runs as soon as it says that it is ready"),
        later(`${lastTime(node)}: ${consequence(forecast(known, 0), known)}`)
      ]
    case "backing-off":
      return [
        { at: node.nextAttemptAt, text: `incarnation ${node.incarnation + 1} is started` },
        later(
          `if it then runs for ${span(Duration.toMillis(node.policy.backoff.resetAfter))}, it counts as healthy again`
        ),
        later(`${lastTime(node)} before that: ${consequence(forecast(known, 0), known)}`)
      ]
    case "waiting": {
      if (node.waitingFor.length === 0) {
        const next =
          supervisor?.node.nextAttemptAt ?? siblings.find(({ state }) => state === "backing-off")?.nextAttemptAt
        return [{ at: next, text: "it is started when its turn comes" }]
      }
      const needed = new Set(node.waitingFor)
      const tries = siblings.flatMap(({ nextAttemptAt, path }) =>
        nextAttemptAt !== undefined && needed.has(Path.id(path))
          ? [{ at: nextAttemptAt, text: `"${Path.id(path)}" is started` }]
          : []
      )
      return [...tries.sort((one, other) => one.at - other.at), later("it is started as soon as these are there")]
    }
    case "stopping":
      return [later("it is down once its clean-up is done or its time is up")]
    case "failed":
      if (node.entry?.decision === "reboot-host") return [later("the host reboots")]
      return node.entry?.decision === "escalate" && supervisor !== undefined
        ? [
            {
              at: supervisor.node.nextAttemptAt,
              text: `it is started with its supervisor "${Path.id(supervisor.node.path)}", which is ${supervisor.node.state}`
            }
          ]
        : [later("nothing, until somebody starts it")]
    case "stopped":
    case "parked":
    case "finished":
      return [later("nothing, until somebody starts it")]
  }
}
