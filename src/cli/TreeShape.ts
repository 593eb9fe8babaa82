/**
 * Which lines a picture of the tree has: actors under their parents, crowds that are well folded into one line, and what
 * is in trouble below each, counted once from the bottom up.
 *
 * The processes beneath an actor, where they are known, come after its children (`ProcessShape.ts`).
 *
 * Nothing in trouble is ever folded, nor anybody above it. Siblings that are well fold by their state: `… 97 running`. A
 * tree of any size costs the same per actor.
 */
import { type Actor, ActorState, type ProcessList } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as ProcessShape from "./ProcessShape.ts"

/** One line. */
export type Row = ActorRow | ProcessShape.ProcessRow

/** An actor, or several siblings that are well. */
export interface ActorRow {
  readonly _tag: "Actor"
  readonly rails: string
  /** What goes before a second line of this actor. */
  readonly below: string
  /** The actor, or the first of those folded. */
  readonly actor: Actor
  /** How many siblings this line stands for: 1, or more when it is folded. */
  readonly many: number
  /** Of a folded line: those below them. */
  readonly under: number
  /** Restarts of those that the line stands for, without those below. */
  readonly restarts: number
  /** How many below are in trouble. */
  readonly troubled: number
}

/** An actor with its children, and what there is to know of all below it. */
export interface Node {
  readonly actor: Actor
  readonly children: Array<Node>
  /** Somebody on call wants to know of itself. */
  readonly trouble: boolean
  /** Everybody below it. */
  under: number
  /** Those of them that are in trouble. */
  troubled: number
}

/** Parents with their children, siblings in the order they came in: the order of their start. */
export const forest = (actors: ReadonlyMap<string, Actor>, now: number): ReadonlyArray<Node> => {
  const nodes = new Map<string, Node>()
  for (const actor of actors.values()) {
    const trouble = ActorText.isTroubled(actor, now)
    nodes.set(actor.path, { actor, children: [], trouble, under: 0, troubled: 0 })
  }
  const roots: Array<Node> = []
  for (const [path, node] of nodes) {
    const parent = nodes.get(ActorText.parentOf(path) ?? "")
    if (parent === undefined) roots.push(node)
    else parent.children.push(node)
  }
  const count = (node: Node): void => {
    for (const child of node.children) {
      count(child)
      node.under += 1 + child.under
      node.troubled += child.troubled + (child.trouble ? 1 : 0)
    }
  }
  for (const root of roots) count(root)
  return roots
}

/** Nothing to see, here or below. */
export const isCalm = ({ trouble, troubled }: Node): boolean => troubled === 0 && !trouble

/** Those in trouble and those above them, in their order. */
export const troubledOf = (actors: ReadonlyArray<Actor>, now: number): ReadonlyArray<Actor> => {
  const kept: Array<Actor> = []
  const visit = (node: Node): void => {
    if (isCalm(node)) return
    kept.push(node.actor)
    node.children.forEach(visit)
  }
  forest(new Map(actors.map((actor) => [actor.path, actor])), now).forEach(visit)
  return kept
}

/** What to show. */
export interface Shape {
  /** From so many siblings that are well and in the same state on they become one line; absent = never. */
  readonly foldFrom?: number
  /** Only those in trouble and those above them. */
  readonly troubledOnly?: boolean
  /** What runs beneath actors, by their paths. */
  readonly processes?: ReadonlyMap<string, ProcessList>
  /** How many of those beneath an actor at most; 0: none of them is told. */
  readonly mostProcesses?: number
}

/** The children of one actor as they are shown: one by one, or several as one. */
type Shown = ReadonlyArray<ReadonlyArray<Node>>

const shownOf = (children: ReadonlyArray<Node>, { foldFrom, troubledOnly = false }: Shape): Shown => {
  if (troubledOnly) return children.filter((child) => !isCalm(child)).map((child) => [child])
  if (foldFrom === undefined || children.length < foldFrom) return children.map((child) => [child])
  const crowds = new Map<ActorState, Array<Node>>()
  for (const child of children) {
    if (!isCalm(child)) continue
    const crowd = crowds.get(child.actor.state)
    if (crowd === undefined) crowds.set(child.actor.state, [child])
    else crowd.push(child)
  }
  const folded = [...crowds.values()].filter((crowd) => crowd.length >= foldFrom)
  const states = new Set(folded.map(([first]) => first?.actor.state))
  const single = children.filter((child) => !isCalm(child) || !states.has(child.actor.state))
  return [...single.map((child) => [child]), ...folded]
}

/** The states in which something may run. */
const up: ReadonlySet<ActorState> = new Set([ActorState.STARTING, ActorState.RUNNING, ActorState.STOPPING])

/** The lines, top down. */
export const rowsOf = (roots: ReadonlyArray<Node>, shape: Shape): ReadonlyArray<Row> => {
  const rows: Array<Row> = []
  const { mostProcesses = Infinity, processes } = shape
  const beneath = ({ actor }: Node, lead: string) => {
    // they are told a moment after their actor
    const list = up.has(actor.state) ? processes?.get(actor.path) : undefined
    return list === undefined ? [] : ProcessShape.rowsOf(list, lead, mostProcesses)
  }
  const visit = (crowd: ReadonlyArray<Node>, lead: string, branch: string, rest: string): void => {
    const [node] = crowd
    if (node === undefined) return
    const inner = lead + rest
    const shown = crowd.length > 1 ? [] : shownOf(node.children, shape)
    const after = crowd.length > 1 || mostProcesses === 0 ? [] : beneath(node, inner)
    rows.push({
      _tag: "Actor",
      rails: lead + branch,
      below: inner + (shown.length + after.length > 0 ? "│ " : "  "),
      actor: node.actor,
      many: crowd.length,
      under: crowd.length > 1 ? crowd.reduce((sum, { under }) => sum + under, 0) : node.under,
      restarts: crowd.reduce((sum, { actor }) => sum + actor.restarts, 0),
      troubled: node.troubled
    })
    for (const [index, child] of shown.entries()) {
      const last = index === shown.length - 1 && after.length === 0
      visit(child, inner, last ? "└─" : "├─", last ? "  " : "│ ")
    }
    rows.push(...after)
  }
  for (const root of roots) if (shape.troubledOnly !== true || !isCalm(root)) visit([root], "", "", "")
  return rows
}
