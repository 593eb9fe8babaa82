/**
 * Actors and what happened to them on their way out: nodes of the tree and entries of their histories as messages.
 *
 * Trap: what time alone changes (a mailbox, budgets) is in a `Moment` and is told only where one is given.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import { type RestartPolicy as Message, RestartPolicySchema } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import * as Proto from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { type ActorPath, child, parent as parentOf } from "../actor/ActorPath.ts"
import type { ActorState } from "../actor/Lifecycle.ts"
import type { RestartPolicy } from "../actor/RestartPolicy.ts"
import type { HistoryEntry, Moment, TreeNode } from "../actor/Tree.ts"
import { exitToProto } from "./ExitMessages.ts"
import * as Policy from "./Policy.ts"
import { timestamp, uint32, wireMillis } from "./Time.ts"

/** States on the wire. */
export const states = {
  waiting: Proto.ActorState.WAITING,
  starting: Proto.ActorState.STARTING,
  running: Proto.ActorState.RUNNING,
  "backing-off": Proto.ActorState.BACKING_OFF,
  stopping: Proto.ActorState.STOPPING,
  stopped: Proto.ActorState.STOPPED,
  parked: Proto.ActorState.PARKED,
  finished: Proto.ActorState.FINISHED,
  failed: Proto.ActorState.FAILED
} as const satisfies Record<ActorState, Proto.ActorState>

const strategies = {
  one_for_one: Proto.Strategy.ONE_FOR_ONE,
  one_for_all: Proto.Strategy.ONE_FOR_ALL,
  rest_for_one: Proto.Strategy.REST_FOR_ONE
} as const satisfies Record<NonNullable<TreeNode["strategy"]>, Proto.Strategy>

const types = {
  worker: Proto.ActorType.WORKER,
  supervisor: Proto.ActorType.SUPERVISOR
} as const satisfies Record<TreeNode["type"], Proto.ActorType>

const intensityToProto = ({ restarts, spent, within }: NonNullable<Moment["intensity"]>) => ({
  restarts: uint32(restarts),
  within: wireMillis(within),
  spent: uint32(spent)
})

/** Thousands of actors have the same policy: it is made a message of once. */
const policies = new WeakMap<RestartPolicy, Message>()

const policyToProto = (policy: RestartPolicy): Message => {
  const known = policies.get(policy)
  if (known !== undefined) return known
  const message = create(RestartPolicySchema, Policy.toProto(policy))
  policies.set(policy, message)
  return message
}

/** An actor as it goes over the wire; `moment`: what time alone changes, and `processes`: what runs beneath, where that was asked for. */
export const actorToProto = (
  node: TreeNode,
  moment?: Moment,
  processes?: Proto.ProcessList
): MessageInitShape<typeof Proto.ActorSchema> => {
  const { degraded = "", ...annotations } = node.annotations
  const { entry } = node
  const load = moment?.mailbox
  return {
    path: node.path,
    kind: node.kind,
    type: types[node.type],
    strategy: node.strategy === undefined ? Proto.Strategy.UNSPECIFIED : strategies[node.strategy],
    state: states[node.state],
    since: timestamp(node.since),
    incarnation: uint32(node.incarnation),
    restarts: uint32(node.restarts),
    startTime: timestamp(node.startedAt),
    lastExit: node.lastExit && exitToProto(node.lastExit),
    nextAttemptTime: timestamp(node.nextAttemptAt),
    consecutiveFailures: uint32(moment === undefined ? node.attempt : moment.attempt),
    policy: policyToProto(node.policy),
    budgetLeft: moment === undefined ? node.budgetLeft : moment.budgetLeft,
    annotations,
    revision: BigInt(node.revision),
    description: node.description,
    degraded,
    mailboxDepth: load && uint32(load.mailboxDepth),
    oldestMessageTime: timestamp(load?.oldestMessageAt),
    waitingFor: [...siblings(node.path, node.waitingFor)],
    reason: entry?.reason ?? "",
    decision: entry === undefined ? "" : decisionToProto(entry),
    because: entry?.because ?? "",
    intensity: moment?.intensity && intensityToProto(moment.intensity),
    processes
  }
}

const decisionToProto = ({ decision }: HistoryEntry): string => (decision === "none" ? "" : decision)

/** The paths of siblings of `path`. */
const siblings = (path: ActorPath, ids: ReadonlyArray<string>): ReadonlyArray<string> => {
  const parent = ids.length === 0 ? undefined : parentOf(path)
  return parent === undefined ? [] : ids.map((id) => child(parent, id))
}

/** An entry of an actor's history as it goes over the wire. */
export const entryToProto = (entry: HistoryEntry): MessageInitShape<typeof Proto.HistoryEntrySchema> => ({
  time: timestamp(entry.at),
  revision: BigInt(entry.revision),
  event: entry.event,
  exit: entry.exit && exitToProto(entry.exit),
  decision: decisionToProto(entry),
  reason: entry.reason,
  because: entry.because ?? "",
  delay: entry.delay === undefined ? undefined : wireMillis(entry.delay),
  nextAttemptTime: timestamp(entry.nextAt),
  incarnation: uint32(entry.incarnation)
})
