/**
 * What is said of an actor: the word, symbol and colour of its state, and the note on what troubles it.
 *
 * One place, so that `tree`, `events` and `inspect` say the same. Words are those of OTP (`backing-off`, `parked`); a symbol
 * or colour never stands without its word.
 */
import { type Duration, type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt"
import { type Actor, type ActorExit, ActorState, Strategy } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as HumanText from "./HumanText.ts"
import type { Style } from "./Style.ts"
import * as Text from "./Text.ts"

/** How a state is shown. */
export interface StateText {
  readonly word: string
  readonly symbol: string
  readonly color: keyof Omit<Style, "enabled"> | "none"
  /** Somebody on call wants to know. */
  readonly trouble: boolean
}

const states: ReadonlyMap<ActorState, StateText> = new Map([
  [ActorState.WAITING, { word: "waiting", symbol: "○", color: "dim", trouble: false }],
  [ActorState.STARTING, { word: "starting", symbol: "◔", color: "cyan", trouble: false }],
  [ActorState.RUNNING, { word: "running", symbol: "●", color: "green", trouble: false }],
  [ActorState.BACKING_OFF, { word: "backing-off", symbol: "◑", color: "yellow", trouble: true }],
  [ActorState.STOPPING, { word: "stopping", symbol: "◕", color: "cyan", trouble: false }],
  [ActorState.STOPPED, { word: "stopped", symbol: "■", color: "dim", trouble: false }],
  [ActorState.PARKED, { word: "parked", symbol: "▲", color: "red", trouble: true }],
  [ActorState.FINISHED, { word: "finished", symbol: "✓", color: "dim", trouble: false }],
  [ActorState.FAILED, { word: "failed", symbol: "✗", color: "red", trouble: true }]
])

const unknown: StateText = { word: "unknown", symbol: "?", color: "none", trouble: false }

/** The state of an actor in words, symbol and colour. */
export const state = (actor: Actor): StateText => {
  const found = states.get(actor.state) ?? unknown
  return actor.degraded !== "" && actor.state === ActorState.RUNNING
    ? { ...found, color: "yellow", trouble: true }
    : found
}

/** Every state's word, worst first: the order in which a header counts them. */
export const stateWords: ReadonlyArray<StateText> = [
  ActorState.FAILED,
  ActorState.PARKED,
  ActorState.BACKING_OFF,
  ActorState.STARTING,
  ActorState.STOPPING,
  ActorState.WAITING,
  ActorState.STOPPED,
  ActorState.FINISHED,
  ActorState.RUNNING
].map((value) => states.get(value) ?? unknown)

/** Paints by the colour of a state. */
export const paint = (style: Style, color: StateText["color"]): ((text: string) => string) =>
  color === "none" ? (text) => text : style[color]

/** OTP's name of a strategy; empty for a worker. */
export const strategy = (actor: Actor): string => {
  switch (actor.strategy) {
    case Strategy.ONE_FOR_ONE:
      return "one_for_one"
    case Strategy.ONE_FOR_ALL:
      return "one_for_all"
    case Strategy.REST_FOR_ONE:
      return "rest_for_one"
    default:
      return ""
  }
}

/** The last segment of a path. */
export const idOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1)

/** The path of the parent; undefined for the root. */
export const parentOf = (path: string): string | undefined => {
  const slash = path.lastIndexOf("/")
  return slash === -1 ? undefined : path.slice(0, slash)
}

/** Milliseconds of a timestamp, when there is one. */
export const momentOf = (time: Timestamp | undefined): number | undefined =>
  time === undefined ? undefined : timestampMs(time)

/** Milliseconds of a duration; zero without one. */
export const millisecondsOf = (duration: Duration | undefined): number =>
  duration === undefined ? 0 : Number(duration.seconds) * 1000 + duration.nanos / 1_000_000

/** How long the actor has been in its state; for one that runs, how long this incarnation has been up. */
export const stateSpan = (actor: Actor, now: number): string => {
  const moment = momentOf(actor.state === ActorState.RUNNING ? (actor.startTime ?? actor.since) : actor.since)
  return moment === undefined ? "" : HumanText.span(now - moment)
}

/** How full its mailbox is, and for how long it has been behind; empty when it has none. */
export const mailbox = (actor: Actor, now: number): string => {
  if (actor.mailboxDepth === undefined) return ""
  const oldest = momentOf(actor.oldestMessageTime)
  const age = oldest === undefined ? "" : `, the oldest for ${HumanText.span(now - oldest)}`
  return `${HumanText.count(actor.mailboxDepth, "message")} waiting${age}`
}

/** What its children have spent of a supervisor's limit; empty without a limit. */
export const intensity = ({ intensity: limit }: Actor): string =>
  limit === undefined
    ? ""
    : `${limit.spent} of ${HumanText.count(limit.restarts, "restart")} in ${HumanText.shortSpan(millisecondsOf(limit.within))} spent`

/** The siblings that it waits for; empty when it waits for its turn only, or not at all. */
export const waitsFor = ({ waitingFor }: Actor): string => waitingFor.map((path) => Text.clean(idOf(path))).join(", ")

/** What led to an exit, a line each, what began it last. */
export const causes = ({ causes: all }: ActorExit): ReadonlyArray<string> =>
  all.map(({ message, path, tag }) => {
    const what = Text.clean(message === "" ? tag : `${tag}: ${message}`)
    return path === "" ? what : `${Text.clean(path)}: ${what}`
  })

/**
 * It runs after failures in a row, and not yet for as long as counts as healthy, or is on its way there: a crash loop looks so
 * between crashes.
 */
const isUnsettled = (actor: Actor, now: number): boolean => {
  const started = momentOf(actor.startTime)
  const healthy = millisecondsOf(actor.policy?.backoff?.resetAfter)
  if (actor.state === ActorState.STARTING) return actor.consecutiveFailures > 0
  return (
    actor.state === ActorState.RUNNING &&
    actor.consecutiveFailures > 0 &&
    started !== undefined &&
    now - started < healthy
  )
}

/** What a person on call wants to know of an actor, most important first; empty when all is well. */
export const troubles = (actor: Actor, now: number): ReadonlyArray<string> => {
  const parts: Array<string> = []
  const { lastExit } = actor
  const next = momentOf(actor.nextAttemptTime)
  const began = momentOf(actor.since)
  const shown = state(actor)
  if (actor.degraded !== "") parts.push(`degraded: ${Text.clean(actor.degraded)}`)
  const tellExit = shown.trouble && actor.state !== ActorState.RUNNING
  if (tellExit && lastExit !== undefined) {
    const moment = momentOf(lastExit.time)
    const why = Text.clean(lastExit.message === "" ? lastExit.tag : lastExit.message)
    parts.push(moment === undefined ? why : `${why} (${HumanText.ago(moment, now)})`)
  }
  if (isUnsettled(actor, now)) {
    const why = lastExit === undefined ? "" : `, the last: ${Text.clean(lastExit.message || lastExit.tag)}`
    const again = actor.state === ActorState.STARTING ? "started again" : "up again"
    parts.push(`${again} after ${HumanText.count(actor.consecutiveFailures, "failure")} in a row${why}`)
  }
  if (actor.state === ActorState.BACKING_OFF && next !== undefined) {
    parts.push(next > now ? `next try in ${HumanText.shortSpan(next - now)}` : "next try due")
    if (began !== undefined && next > began) parts.push(`back-off ${HumanText.shortSpan(next - began)}`)
  }
  if (actor.waitingFor.length > 0) parts.push(`waits for ${waitsFor(actor)}`)
  else if (actor.state === ActorState.WAITING && actor.because !== "") {
    parts.push(`down because of ${Text.clean(actor.because)}`)
  }
  if (actor.state === ActorState.PARKED) parts.push(`parked until \`ironwood start ${idOf(actor.path)}\``)
  if (tellExit && actor.consecutiveFailures > 1) parts.push(`${actor.consecutiveFailures} failures in a row`)
  if (tellExit && actor.budgetLeft !== undefined && actor.state === ActorState.BACKING_OFF) {
    parts.push(`${HumanText.count(actor.budgetLeft, "restart")} left`)
  }
  return parts
}

/** Somebody on call wants to know of it. */
export const isTroubled = (actor: Actor, now: number): boolean =>
  state(actor).trouble || troubles(actor, now).length > 0
