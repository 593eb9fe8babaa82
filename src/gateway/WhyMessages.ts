/**
 * An explanation of an actor on its way out. What the core cannot know is added here: that containers have logs, and what
 * helps against their failures.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Proto from "../../proto/generated/ironwood/v1/tree_pb.ts"
import type { Relation, Remedy, Why } from "../actor/Why.ts"
import { adviceFor } from "../runtime/ContainerAdvice.ts"
import { actorToProto, states } from "./ActorMessages.ts"
import { timestamp, uint32 } from "./Time.ts"

const relations = {
  cause: Proto.Relation.CAUSE,
  "waits-for": Proto.Relation.WAITS_FOR,
  blocks: Proto.Relation.BLOCKS,
  "stands-in": Proto.Relation.STANDS_IN,
  supervisor: Proto.Relation.SUPERVISOR,
  below: Proto.Relation.BELOW
} as const satisfies Record<Relation, Proto.Relation>

const actions = {
  start: Proto.RemedyAction.START,
  stop: Proto.RemedyAction.STOP,
  restart: Proto.RemedyAction.RESTART,
  "set-policy": Proto.RemedyAction.SET_POLICY,
  explain: Proto.RemedyAction.EXPLAIN
} as const satisfies Record<Remedy["action"], Proto.RemedyAction>

type RemedyMessage = MessageInitShape<typeof Proto.RemedySchema>

/** What else helps a container: before all calls, since these change what there is to see. */
const ofContainer = ({ node, troubled }: Why): ReadonlyArray<RemedyMessage> => {
  const { kind, lastExit, path } = node
  if (kind !== "container" || !troubled || lastExit === undefined) return []
  const advice = adviceFor(lastExit.tag)
  const logs = { action: Proto.RemedyAction.READ_LOGS, path, text: "shows what it said before it ended" }
  return [...(advice === undefined ? [] : [{ path, text: advice }]), ...(lastExit.beforeReady ? [] : [logs])]
}

/** See the module header. */
export const whyToProto = (why: Why): MessageInitShape<typeof Proto.ExplainActorResponseSchema> => ({
  actor: actorToProto(why.node, why.moment),
  now: why.now,
  story: why.story.map(({ because = "", from, text, times, to }) => ({
    firstTime: timestamp(from),
    lastTime: timestamp(to),
    times: uint32(times),
    text,
    because
  })),
  policy: [...why.policy],
  prospects: why.prospects.map(({ at, text }) => ({ time: timestamp(at), text })),
  involved: why.involved.map(({ path, relation, state, text }) => ({
    relation: relations[relation],
    path,
    state: state === undefined ? Proto.ActorState.UNSPECIFIED : states[state],
    text
  })),
  remedies: [
    ...ofContainer(why),
    ...why.remedies.map(({ action, path, text }) => ({ action: actions[action], path, text }))
  ]
})
