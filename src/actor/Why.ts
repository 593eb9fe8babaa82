/**
 * Why an actor is as it is, in plain words and as data: what it does now, what happened, why its policy decided so, what
 * happens next and when, who else has to do with it, and what a person can do.
 *
 * When to use: for whoever shows an actor to a person who was not there (`ironwood why`, `TreeService.ExplainActor`). It
 * works for healthy actors too. {@link of} asks the tree, {@link explain} is a pure function of what the tree knew.
 *
 * Traps:
 * - Sentences begin in lower case and hold lengths of time only; moments are data beside them, for whoever shows them.
 * - What happens *if it fails* is what its policy decides now for an exit like the last; with jitter the delay is the
 *   middle one.
 * - Causes are followed through histories, which are bounded: one that was long ago may be told without its beginning.
 */
import * as Effect from "effect/Effect"
import type { ActorPath } from "./ActorPath.ts"
import * as Path from "./ActorPath.ts"
import type { NoSuchActor } from "./Errors.ts"
import type { ExitView } from "./ExitView.ts"
import { failuresInARow, type HistoryEntry, type Moment, type Tree, type TreeNode } from "./Tree.ts"
import { prospectsOf } from "./WhyNext.ts"
import { policyWords } from "./WhyPolicy.ts"
import { type Chapter, count, exitWords, isEnd, isStart, story } from "./WhyStory.ts"

/** How another actor has to do with it. */
export type Relation =
  /** Its end led to this one's state; of several the last began it. */
  | "cause"
  /** It must come up, or be gone, first. */
  | "waits-for"
  /** It waits for this one. */
  | "blocks"
  /** It runs in the place of this one, or this one in its. */
  | "stands-in"
  /** It is above, and does not run. */
  | "supervisor"
  /** It is below, and in trouble. */
  | "below"

export interface Involved {
  readonly relation: Relation
  readonly path: ActorPath
  /** Nothing when it is gone. */
  readonly state: TreeNode["state"] | undefined
  readonly text: string
}

/** Something that is to come; `at` when that is known. */
export interface Prospect {
  readonly at: number | undefined
  readonly text: string
}

/** What a person can do to `path`, and what comes of it. */
export interface Remedy {
  readonly action: "start" | "stop" | "restart" | "set-policy" | "explain"
  readonly path: ActorPath
  readonly text: string
}

export interface Why {
  readonly node: TreeNode
  readonly moment: Moment
  /** Somebody on call wants to know of it. */
  readonly troubled: boolean
  readonly now: string
  readonly story: ReadonlyArray<Chapter>
  readonly policy: ReadonlyArray<string>
  readonly prospects: ReadonlyArray<Prospect>
  readonly involved: ReadonlyArray<Involved>
  readonly remedies: ReadonlyArray<Remedy>
}

/** What the tree knows that has to do with one actor. */
export interface Known {
  readonly now: number
  /** Whether a policy can have the host rebooted. */
  readonly canReboot: boolean
  readonly node: TreeNode
  readonly moment: Moment
  /** Oldest first. */
  readonly history: ReadonlyArray<HistoryEntry>
  /** Nothing for the root. */
  readonly supervisor: { readonly node: TreeNode; readonly moment: Moment } | undefined
  readonly siblings: ReadonlyArray<TreeNode>
  /** Of a supervisor: everybody below it. */
  readonly below: ReadonlyArray<TreeNode>
  /** Whose ends led to its last one, the nearest first, with the entry that tells of it. */
  readonly causes: ReadonlyArray<Cause>
}

export interface Cause {
  readonly path: ActorPath
  readonly node: TreeNode | undefined
  readonly entry: HistoryEntry | undefined
}

/** Of a chain of causes, and of a list of actors, at most so many are told. */
const MOST = 20

/** The end that another one at `revision` came of. Who needs another ends before it, so that it may be the next one. */
const endAround = (history: ReadonlyArray<HistoryEntry>, revision: number): HistoryEntry | undefined => {
  const last = history.findLast((one) => one.revision <= revision && (isEnd(one) || isStart(one)))
  return last !== undefined && isEnd(last) ? last : history.find((one) => one.revision > revision && isEnd(one))
}

/** Follows the last end of an actor to those of others that led to it. */
const followCauses = Effect.fnUntraced(function* (tree: Tree["Service"], history: ReadonlyArray<HistoryEntry>) {
  const causes: Array<Cause> = []
  let entry = history.findLast(isEnd)
  while (entry !== undefined && causes.length < MOST) {
    const path: ActorPath | undefined =
      entry.because ?? entry.exit?.causes?.find((cause) => cause.path !== undefined)?.path
    if (path === undefined || causes.some((cause) => cause.path === path)) break
    const { revision }: HistoryEntry = entry
    const node = yield* Effect.orElseSucceed(tree.get(path), () => undefined)
    const before = yield* Effect.orElseSucceed(tree.history(path), () => [])
    entry = endAround(before, revision)
    causes.push({ path, node, entry })
  }
  return causes
})

/** All that the tree knows of the actor at `path`, at `now` (milliseconds since 1970), and of those it has to do with. */
export const of = (tree: Tree["Service"], path: string, now: number): Effect.Effect<Why, NoSuchActor> =>
  Effect.gen(function* () {
    const node = yield* tree.get(path)
    const moment = yield* tree.moment(path)
    const history = yield* tree.history(path)
    const above = Path.parent(node.path)
    // One that is taken out of the tree meanwhile has no siblings any more, and is explained all the same.
    const supervisor =
      above === undefined
        ? undefined
        : yield* Effect.all({ node: tree.get(above), moment: tree.moment(above) }).pipe(
            Effect.orElseSucceed(() => undefined)
          )
    const siblings = above === undefined ? [] : yield* Effect.orElseSucceed(tree.children(above), () => [])
    const below =
      node.type === "worker"
        ? []
        : yield* tree.snapshot(node.path).pipe(
            Effect.map(({ nodes }) => nodes.slice(1)),
            Effect.orElseSucceed(() => [])
          )
    const causes = yield* followCauses(tree, history)
    // What a person ended, or an orderly end of all, explains nobody who is up again.
    const telling = node.state !== "running" || causes.at(-1)?.entry?.exit !== undefined
    return explain({
      now,
      canReboot: tree.canReboot,
      node,
      moment,
      history,
      supervisor,
      siblings,
      below,
      causes: telling ? causes : []
    })
  })

/** See the module header. */
export const explain = (known: Known): Why => ({
  node: known.node,
  moment: known.moment,
  troubled: isTroubled(known.node, known.now),
  now: nowWords(known),
  story: story(known.history),
  policy: policyWords(known),
  prospects: prospectsOf(known),
  involved: involvedIn(known),
  remedies: remediesFor(known)
})

const quoted = (ids: ReadonlyArray<string>): string => ids.map((id) => `"${id}"`).join(" and ")

/**
 * It runs after ends in a row, and not yet for as long as counts as healthy, or is on its way there: a crash loop looks so
 * between crashes.
 */
const isUnsettled = (node: TreeNode, now: number): boolean =>
  (node.state === "running" || node.state === "starting") && failuresInARow(node, now) > 0

/** Whose place it takes. */
const placeOf = ({ entry, state }: TreeNode): ActorPath | undefined =>
  state === "running" && entry !== undefined && isStart(entry) ? entry.because : undefined

/** Somebody on call wants to know. */
const isTroubled = (node: TreeNode, now: number): boolean =>
  node.state === "backing-off" ||
  node.state === "parked" ||
  node.state === "failed" ||
  node.annotations["degraded"] !== undefined ||
  isUnsettled(node, now)

const nowWords = (known: Known): string => {
  const { moment, node, now, supervisor } = known
  switch (node.state) {
    case "waiting":
      return waitingWords(known)
    case "starting":
      return `it has been started${isUnsettled(node, now) ? ` again after ${count(node.attempt, "end")} in a row` : ""}, and has not said yet that it is ready`
    case "running": {
      const { degraded } = node.annotations
      const busy =
        moment.mailbox === undefined || moment.mailbox.mailboxDepth === 0
          ? ""
          : `; ${count(moment.mailbox.mailboxDepth, "message")} ${moment.mailbox.mailboxDepth === 1 ? "waits" : "wait"} in its mailbox`
      const again = isUnsettled(node, now)
        ? ` again after ${count(node.attempt, "end")} in a row, and not yet for as long as counts as healthy`
        : ""
      const place = placeOf(node)
      const instead = place === undefined ? "" : ` in the place of "${Path.id(place)}"`
      const part = degraded === undefined ? "" : `, and does its work only in part: ${degraded}`
      return `it runs${instead}${again}${part}${belowWords(known)}${busy}`
    }
    case "backing-off":
      return node.nextAttemptAt !== undefined && node.nextAttemptAt <= now
        ? "its next start is due, and waits for its turn"
        : "it has ended, and waits for its next start"
    case "stopping":
      return "it is being ended"
    case "stopped":
      return "it is stopped, and stays so until somebody starts it"
    case "parked":
      return node.entry?.decision === "fallback"
        ? `it is parked: its policy gave up, and left its place to "${node.policy.fallback}" until a person starts it`
        : "it is parked: its policy gave up, and waits for a person"
    case "finished":
      return "it has done its work, and is not started again"
    case "failed":
      return node.entry?.decision === "escalate" && supervisor !== undefined
        ? "it has failed, and its supervisor gave up with it"
        : node.entry?.decision === "reboot-host"
          ? "it has failed, and wants the host to reboot"
          : "it has failed, and is not started again"
  }
}

const waitingWords = ({ node, supervisor }: Known): string => {
  if (node.waitingFor.length > 0) return `it waits for ${quoted(node.waitingFor)} before it starts`
  if (supervisor !== undefined && supervisor.node.state !== "running" && supervisor.node.state !== "starting") {
    return `it waits for its supervisor, which is ${supervisor.node.state}`
  }
  return node.incarnation === 0
    ? "its turn to start has not come yet"
    : "it has been ended, and waits for its turn to start"
}

const belowWords = ({ below, now }: Known): string => {
  if (below.length === 0) return ""
  const troubled = below.filter((one) => isTroubled(one, now)).length
  return `, with ${count(below.length, "actor")} below it, ${troubled === 0 ? "none of them in trouble" : `${troubled} of them in trouble`}`
}

const lastly = (exit: ExitView | undefined): string => (exit === undefined ? "" : `: ${exitWords(exit)}`)

const involvedIn = (known: Known): ReadonlyArray<Involved> => {
  const { below, causes, node, siblings, supervisor } = known
  const id = Path.id(node.path)
  const causal = causes.map(({ entry, node: other, path }, index): Involved => {
    const began = index === causes.length - 1 ? "began it" : "passed it on"
    const how = entry?.exit === undefined ? (entry?.reason ?? "") : exitWords(entry.exit)
    return { relation: "cause", path, state: other?.state, text: how === "" ? began : `${began}: ${how}` }
  })
  const chain = waitedFor(node, siblings).map(({ lastExit, path, state }): Involved => {
    const text = state === "backing-off" || state === "parked" || state === "failed" ? lastly(lastExit) : ""
    return { relation: "waits-for", path, state, text: `is ${state}${text}` }
  })
  const blocked = siblings
    .filter(({ waitingFor }) => waitingFor.includes(id))
    .map(({ path, state }): Involved => ({ relation: "blocks", path, state, text: "waits for it" }))
  const standIns = siblings.flatMap((other): ReadonlyArray<Involved> => {
    const { path, state } = other
    if (placeOf(other) === node.path) return [{ relation: "stands-in", path, state, text: "runs in its place" }]
    return placeOf(node) === path
      ? [{ relation: "stands-in", path, state, text: "is the one whose place it takes" }]
      : []
  })
  const above: ReadonlyArray<Involved> =
    supervisor === undefined || supervisor.node.state === "running" || supervisor.node.state === "starting"
      ? []
      : [
          {
            relation: "supervisor",
            path: supervisor.node.path,
            state: supervisor.node.state,
            text: `is ${supervisor.node.state}${lastly(supervisor.node.lastExit)}`
          }
        ]
  const troubled = below
    .filter((one) => isTroubled(one, known.now))
    .map((one): Involved => {
      const { annotations, attempt, lastExit, path, state } = one
      const { degraded } = annotations
      const text =
        degraded !== undefined && state === "running"
          ? `is degraded: ${degraded}`
          : isUnsettled(one, known.now)
            ? `is ${state} again after ${count(attempt, "end")} in a row, the last${lastly(lastExit)}`
            : `is ${state}${lastly(lastExit)}`
      return { relation: "below", path, state, text }
    })
  return [causal, above, chain, standIns, blocked, troubled].flatMap((some) => some.slice(0, MOST))
}

/** Those it waits for, and those that these wait for. */
const waitedFor = (node: TreeNode, siblings: ReadonlyArray<TreeNode>): ReadonlyArray<TreeNode> => {
  if (node.waitingFor.length === 0) return []
  const byId = new Map(siblings.map((sibling) => [Path.id(sibling.path), sibling]))
  const found = new Set<TreeNode>()
  const visit = (ids: ReadonlyArray<string>): void => {
    for (const id of ids) {
      const sibling = byId.get(id)
      if (sibling === undefined || sibling.path === node.path || found.has(sibling) || found.size >= MOST) continue
      found.add(sibling)
      visit(sibling.waitingFor)
    }
  }
  visit(node.waitingFor)
  return [...found]
}

const remediesFor = (known: Known): ReadonlyArray<Remedy> => {
  const { causes, node, siblings, supervisor } = known
  // The root is above all calls.
  const own = supervisor === undefined ? [] : ownRemedies(known)
  const others: Array<Remedy> = []
  const look = (path: ActorPath, text: string): void => {
    if (!others.some((one) => one.path === path)) others.push({ action: "explain", path, text })
  }
  const origin = causes.at(-1)
  if (node.state === "waiting" || isTroubled(node, known.now)) {
    if (origin?.node !== undefined) look(origin.path, "tells why that one ended, which began it")
    if (supervisor !== undefined && supervisor.node.state !== "running") {
      look(supervisor.node.path, "tells why its supervisor does not run")
    }
  }
  for (const other of waitedFor(node, siblings)) {
    if (
      other.state === "stopped" ||
      other.state === "parked" ||
      other.state === "failed" ||
      other.state === "finished"
    ) {
      others.push({ action: "start", path: other.path, text: `starts "${Path.id(other.path)}", which it waits for` })
    } else look(other.path, `tells why "${Path.id(other.path)}" is not there yet`)
  }
  const troubled = known.below.filter((one) => isTroubled(one, known.now))
  for (const { path } of troubled.slice(0, 3)) look(path, "tells why that one is in trouble")
  // What helps comes before what tells.
  const helps = ({ action }: Remedy): boolean => action !== "explain"
  return [...own, ...others.filter(helps), ...others.filter((one) => !helps(one))]
}

const ownRemedies = ({ node }: Known): ReadonlyArray<Remedy> => {
  const { path } = node
  const start = (text: string): Remedy => ({ action: "start", path, text })
  switch (node.state) {
    case "backing-off":
      return [
        start("starts it now instead; its failures so far are forgotten"),
        { action: "stop", path, text: "keeps it down until somebody starts it" },
        { action: "set-policy", path, text: "changes when and how often it is started again" }
      ]
    case "parked":
    case "failed":
      return [
        start("starts it again; its failures so far are forgotten, and its budget is whole"),
        { action: "set-policy", path, text: "changes when and how often it is started again" }
      ]
    case "stopped":
      return [start("starts it")]
    case "finished":
      return [start("starts it once more")]
    case "starting":
      return [{ action: "stop", path, text: "ends the attempt and keeps it down" }]
    case "running":
      return node.annotations["degraded"] === undefined
        ? []
        : [{ action: "restart", path, text: "ends it and starts it anew" }]
    case "waiting":
    case "stopping":
      return []
  }
}
