/**
 * `ironwood.v1.PolicyService`: presets and the dry run over gRPC. Mapping functions first, then the service.
 *
 * It needs nothing of the tree: what a policy does is a pure function.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { BudgetSchema } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import * as Proto from "../../proto/generated/ironwood/v1/policy_service_pb.ts"
import { ActorState } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import type { Decision } from "../actor/Decision.ts"
import { explain, type Explanation, type PlannedExit, type Step } from "../actor/Explain.ts"
import { ExitClass, type ExitFacts, type ExitView } from "../actor/ExitView.ts"
import { Budget, type RestartPolicy } from "../actor/RestartPolicy.ts"
import * as RestartPreset from "../actor/RestartPreset.ts"
import { service, unary } from "./EffectGrpc.ts"
import { exitClasses, untimed } from "./ExitMessages.ts"
import * as Policy from "./Policy.ts"
import { decoder, InvalidRequest, type Violation, wordOf } from "./Request.ts"
import { millisOf, uint32, wireMillis } from "./Time.ts"

/** Most exits in one dry run. */
export const MAX_EXITS = 1_000

const states = {
  running: ActorState.RUNNING,
  "backing-off": ActorState.BACKING_OFF,
  parked: ActorState.PARKED,
  finished: ActorState.FINISHED,
  failed: ActorState.FAILED
} as const satisfies Record<Explanation["outcome"]["state"], ActorState>

const decisions = {
  Restart: "restart",
  Park: "park",
  Fallback: "fallback",
  RestartGroup: "restart-group",
  RebootHost: "reboot-host",
  Escalate: "escalate",
  Finish: "finish"
} as const satisfies Record<Decision["_tag"], string>

const millis = (value: number | undefined) => (value === undefined ? undefined : wireMillis(value))

const stepToProto = (step: Step): MessageInitShape<typeof Proto.ExplainedExitSchema> => {
  const { decision, delay } = step
  return {
    at: wireMillis(step.at),
    run: uint32(step.run),
    ranFor: wireMillis(step.ranFor),
    exit: untimed(step.exit),
    decision: decision === undefined ? "" : decisions[decision._tag],
    reason: step.reason,
    rule: decision?._tag === "Restart" && decision.rule !== undefined ? decision.rule + 1 : undefined,
    delay: millis(delay?.middle),
    delayMin: millis(delay?.min),
    delayMax: millis(delay?.max),
    nextStart: millis(step.nextStartAt),
    budgetLeft: step.budgetLeft,
    consecutiveFailures: uint32(step.attempt)
  }
}

/** An explanation of what `policy` does, as it goes over the wire. */
export const explanationToProto = (
  { outcome, steps }: Explanation,
  policy: RestartPolicy
): MessageInitShape<typeof Proto.ExplainPolicyResponseSchema> => ({
  steps: steps.map(stepToProto),
  state: states[outcome.state],
  summary: outcome.summary,
  nextStart: millis(outcome.nextStartAt),
  policy: Policy.toProto(policy)
})

/** What was said of an exit, without what says nothing. Facts that cannot be are told in `problem`. */
const factsOf = (
  planned: Proto.PlannedExit,
  problem: (field: string, description: string) => void
): ExitFacts | undefined => {
  const { facts } = planned
  if (facts === undefined) return undefined
  const { exitCode, outOfMemory, probe, signal } = facts
  if (exitCode !== undefined && exitCode > 255) problem("facts.exit_code", "must be from 0 to 255")
  if (signal !== "" && !/^SIG[A-Z0-9+-]{2,12}$/.test(signal)) {
    problem("facts.signal", "must be a signal by its name, such as SIGKILL")
  }
  if (probe.length > 200) problem("facts.probe", "must have at most 200 characters")
  const known = {
    ...(exitCode === undefined ? {} : { exitCode }),
    ...(signal === "" ? {} : { signal }),
    ...(outOfMemory ? { outOfMemory } : {}),
    ...(probe === "" ? {} : { probe })
  }
  return Object.keys(known).length === 0 ? undefined : known
}

/** The tag that goes with an exit of which only facts or a class are known. */
const tagFor = (of: ExitClass, facts: ExitFacts | undefined): string => {
  switch (of) {
    case "normal":
      return "Normal"
    case "interrupted":
      return "Interrupted"
    case "not-started":
      return "StartTimeout"
    case "defect":
      return "Error"
    case "failure":
      return facts?.outOfMemory === true
        ? "ContainerOomKilled"
        : facts?.signal !== undefined
          ? "ContainerSignaled"
          : facts?.exitCode !== undefined
            ? "ContainerExited"
            : facts?.probe !== undefined
              ? "ProbeFailed"
              : "Failed"
  }
}

const messageFor = (tag: string, facts: ExitFacts | undefined): string =>
  facts?.outOfMemory === true
    ? "killed because memory was out"
    : facts?.signal !== undefined
      ? `killed by ${facts.signal}`
      : facts?.exitCode !== undefined
        ? `exited with code ${facts.exitCode}`
        : facts?.probe !== undefined
          ? `its ${facts.probe} probe failed`
          : tag === "Normal"
            ? "ended normally"
            : tag

const whenOf = (
  { when }: Proto.PlannedExit,
  problem: (field: string, description: string) => void
): PlannedExit["when"] => {
  if (when.case === undefined) return { after: 0 }
  const value = millisOf(when.value)
  if (value < 0 || value > 1e12) problem(when.case, "must be from 0 to about 31 years")
  return when.case === "after" ? { after: value } : { at: value }
}

const exitOf = (planned: Proto.PlannedExit, problem: (field: string, description: string) => void): ExitView => {
  const facts = factsOf(planned, problem)
  const said = classOf(planned.exitClass)
  if (said === "unknown") problem("exit_class", "is no sort of ending that is known here")
  if (planned.tag.length > 200) problem("tag", "must have at most 200 characters")
  const normal = (planned.tag === "" || planned.tag === "Normal") && (facts === undefined || isSuccess(facts))
  const of = said === undefined || said === "unknown" ? (normal ? "normal" : "failure") : said
  const tag = planned.tag === "" ? tagFor(of, facts) : planned.tag
  return {
    at: 0,
    class: of,
    tag,
    message: messageFor(tag, facts),
    detail: "",
    beforeReady: planned.beforeReady,
    ...(facts === undefined || of === "normal" ? {} : { facts })
  }
}

/** Exit code 0, and nothing else. */
const isSuccess = ({ exitCode, ...rest }: ExitFacts): boolean => exitCode === 0 && Object.keys(rest).length === 0

const isClass = Schema.is(ExitClass)

/** The sort that was said, if one was. */
const classOf = (value: Proto.PlannedExit["exitClass"]): ExitClass | "unknown" | undefined => {
  const word = wordOf(exitClasses, value)
  return word === undefined || isClass(word) ? word : "unknown"
}

const decodeBudget = decoder("intensity", BudgetSchema, Budget)

export const explainPolicy = Effect.fn("PolicyService.explainPolicy")(function* (request: Proto.ExplainPolicyRequest) {
  const policy = yield* Policy.fromProto(request.policy)
  const intensity = request.intensity && (yield* decodeBudget(Policy.budgetOf(request.intensity)))
  const violations: Array<Violation> = []
  if (request.exits.length > MAX_EXITS) {
    violations.push({ field: "exits", description: `must be at most ${MAX_EXITS}, not ${request.exits.length}` })
  }
  const exits = request.exits.slice(0, MAX_EXITS).map((planned, index): PlannedExit => {
    const problem = (field: string, description: string) => {
      violations.push({ field: `exits[${index}].${field}`, description })
    }
    return { when: whenOf(planned, problem), exit: exitOf(planned, problem) }
  })
  if (violations.length > 0) return yield* new InvalidRequest({ violations })
  const explanation = explain({
    policy,
    exits,
    intensity: intensity && { restarts: intensity.restarts, within: Duration.toMillis(intensity.within) }
  })
  return explanationToProto(explanation, policy)
})

export const listPresets = (): MessageInitShape<typeof Proto.ListPresetsResponseSchema> => ({
  presets: RestartPreset.names.map((name) => {
    const { description, policy } = RestartPreset.presets[name]
    return { name, description, policy: Policy.toProto(policy) }
  })
})

/** The service. */
export const makePolicyService = () => {
  const { method } = Proto.PolicyService
  return service(Proto.PolicyService, {
    listPresets: unary(method.listPresets, () => Effect.sync(listPresets)),
    explainPolicy: unary(method.explainPolicy, explainPolicy)
  })
}
