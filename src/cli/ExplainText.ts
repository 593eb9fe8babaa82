/**
 * A dry run as people read it: the policy in words, a timeline with a reason for every step, and where it ends.
 */
import type { ExplainedExit, ExplainPolicyResponse } from "../../proto/generated/ironwood/v1/policy_service_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import * as PolicyText from "./PolicyText.ts"
import * as Table from "./Table.ts"
import * as Text from "./Text.ts"

const columns: ReadonlyArray<Table.Column> = [
  { title: "AT", align: "right" },
  { title: "RUN", align: "right" },
  { title: "UP", align: "right" },
  { title: "EXIT", shrinkTo: 16 },
  { title: "DECISION" },
  { title: "DELAY", align: "right", optional: true },
  { title: "NEXT START", align: "right", optional: true },
  { title: "LEFT", align: "right", optional: true },
  { title: "WHY", shrinkTo: 24 }
]

type Duration = ExplainedExit["at"]

const span = (duration: Duration): string =>
  duration === undefined ? "" : HumanText.shortSpan(ActorText.millisecondsOf(duration))

/** `1s`, or `800ms–1.2s` where jitter spreads it. */
const delay = ({ delay: middle, delayMax, delayMin }: ExplainedExit): string =>
  middle === undefined ? "" : span(delayMin) === span(delayMax) ? span(middle) : `${span(delayMin)}–${span(delayMax)}`

/** The lines. `width`: the terminal's, where there is one. */
export const lines = (
  answer: ExplainPolicyResponse,
  options: {
    readonly width?: number
    readonly dim: (text: string) => string
  }
): ReadonlyArray<string> => {
  const { nextStart, policy, steps, summary } = answer
  return [
    ...(policy === undefined ? [] : [...Table.pairs(PolicyText.lines(policy), { name: options.dim }), ""]),
    ...Table.render(
      columns,
      steps.map((step) => [
        span(step.at),
        String(step.run),
        step.decision === "" ? "" : span(step.ranFor),
        Text.clean(step.exit?.message ?? ""),
        step.decision === "" ? "–" : step.decision,
        delay(step),
        span(step.nextStart),
        step.budgetLeft === undefined ? "" : String(step.budgetLeft),
        Text.clean(step.reason)
      ]),
      { heading: options.dim, ...(options.width === undefined ? {} : { width: options.width }) }
    ),
    "",
    `In the end: ${summary}${nextStart === undefined ? "" : `, at ${span(nextStart)}`}.`
  ]
}
