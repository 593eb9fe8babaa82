/**
 * The picture people look at on call: the supervision tree as lines of text.
 *
 * One line per actor, in columns: the tree with a symbol per state, what it is, its state and for how long, restarts, pid, and a note.
 * A note on trouble that does not fit beside goes below its actor, so that it is never cut away by a narrow terminal.
 * With `height`, what is healthy gives way first: runs of running leaves become one line, then the end is cut, and the
 * header still counts everything.
 *
 * Pure: actors in, lines out; the same input gives the same picture.
 */
import { ActorState, type Actor } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import type { Style } from "./Style.ts"
import * as Text from "./Text.ts"

/** How to draw. */
export interface Options {
  readonly now: number
  readonly style: Style
  /** Symbols of states: on a terminal; elsewhere the words say it. */
  readonly symbols: boolean
  /** Cells per line; absent = as many as it takes. */
  readonly width?: number
  /** Lines at most; absent = as many as it takes. */
  readonly height?: number
  /** Shown at the end of the header, e.g. the revision. */
  readonly remark?: string
  /** Shown on a line of its own below the header, e.g. that the connection is lost. */
  readonly alert?: string
}

interface Row {
  readonly rails: string
  /** What goes before a second line of this actor. */
  readonly below: string
  readonly actor: Actor
  /** How many running leaves this row stands for, when it stands for several. */
  readonly many: number
}

interface Node {
  readonly actor: Actor
  readonly children: ReadonlyArray<Node>
}

/** Parents with their children, siblings in the order they came in: the order of their start. */
const forest = (actors: Iterable<Actor>): ReadonlyArray<Node> => {
  const nodes = new Map<string, { actor: Actor; children: Array<Node> }>()
  for (const actor of actors) nodes.set(actor.path, { actor, children: [] })
  const roots: Array<Node> = []
  for (const [path, node] of nodes) {
    const parent = nodes.get(ActorText.parentOf(path) ?? "")
    if (parent === undefined) roots.push(node)
    else parent.children.push(node)
  }
  return roots
}

const calm = (node: Node): boolean =>
  node.actor.state === ActorState.RUNNING && !ActorText.state(node.actor).trouble && node.children.every(calm)

/** Below this many calm siblings nothing is won by putting them into one line. */
const worthCollapsing = 3

const rowsOf = (roots: ReadonlyArray<Node>, collapse: boolean): ReadonlyArray<Row> => {
  const rows: Array<Row> = []
  const visit = (node: Node, lead: string, branch: string, rest: string, many: number): void => {
    const inner = lead + rest
    const children =
      collapse && many === 0 ? collapsed(node.children) : node.children.map((child) => ({ node: child, many: 0 }))
    const shown = many > 0 ? [] : children
    rows.push({ rails: lead + branch, below: inner + (shown.length > 0 ? "│ " : "  "), actor: node.actor, many })
    for (const [index, child] of shown.entries()) {
      const last = index === shown.length - 1
      visit(child.node, inner, last ? "└─" : "├─", last ? "  " : "│ ", child.many)
    }
  }
  for (const root of roots) visit(root, "", "", "", 0)
  return rows
}

/** The children one by one where there is something to see, and the calm ones as one when they are many. */
const collapsed = (children: ReadonlyArray<Node>): ReadonlyArray<{ readonly node: Node; readonly many: number }> => {
  const calmOnes = children.filter(calm)
  const first = calmOnes[0]
  if (first === undefined || calmOnes.length < worthCollapsing) return children.map((node) => ({ node, many: 0 }))
  return [
    ...children.filter((child) => !calm(child)).map((node) => ({ node, many: 0 })),
    { node: first, many: calmOnes.length }
  ]
}

const titles = ["ACTOR", "KIND", "STATE", "FOR", "RESTARTS", "PID", "NOTE"] as const

/** What an actor says of itself beside the columns: its strategy, its image, its address… */
const remarks = (actor: Actor): string => {
  const strategy = ActorText.strategy(actor)
  const told = Object.entries(actor.annotations)
    .filter(([name]) => name !== "pid")
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => (name === "image" ? Text.clean(value) : Text.clean(`${name}=${value}`)))
  return [...(strategy === "" ? [] : [strategy]), ...told].join("  ")
}

/** Lines of the table proper: its heading and its rows, each with the lines below it. */
const table = (rows: ReadonlyArray<Row>, options: Options): ReadonlyArray<ReadonlyArray<string>> => {
  const { now, style, symbols } = options
  const cells = rows.map(({ actor, below, many, rails }) => {
    const state = ActorText.state(actor)
    const color = ActorText.paint(style, state.color)
    const symbol = symbols ? `${color(state.symbol)} ` : ""
    const id = Text.clean(ActorText.idOf(actor.path))
    if (many > 0) {
      return {
        columns: [
          `${style.dim(rails)}${symbol}${style.dim(`… ${many} like ${id}`)}`,
          "",
          color(state.word),
          "",
          "",
          ""
        ],
        note: "",
        trouble: false,
        below
      }
    }
    return {
      columns: [
        `${style.dim(rails)}${symbol}${state.trouble ? style.bold(id) : id}`,
        style.dim(Text.clean(actor.kind)),
        color(actor.degraded !== "" && actor.state === ActorState.RUNNING ? "degraded" : state.word),
        ActorText.stateSpan(actor, now),
        actor.restarts === 0 ? style.dim("0") : String(actor.restarts),
        Text.clean(actor.annotations["pid"] ?? "")
      ],
      note: ActorText.troubles(actor, now).join(", ") || remarks(actor),
      trouble: ActorText.troubles(actor, now).length > 0,
      below
    }
  })
  const right = new Set([3, 4, 5])
  const widths = titles
    .slice(0, -1)
    .map((title, column) => Math.max(title.length, ...cells.map(({ columns }) => Text.width(columns[column] ?? ""))))
  const line = (columns: ReadonlyArray<string>, note: string): string =>
    [
      ...columns.map((cell, column) =>
        right.has(column) ? Text.padStart(cell, widths[column] ?? 0) : Text.padEnd(cell, widths[column] ?? 0)
      ),
      note
    ]
      .join("  ")
      .trimEnd()
  const used = widths.reduce((sum, width) => sum + width + 2, 0)
  const { width } = options
  const cut = (text: string): string => (width === undefined ? text : Text.fit(text, width))
  return [
    [cut(style.dim(line(titles.slice(0, -1), "NOTE")))],
    ...cells.map(({ below, columns, note, trouble }) => {
      const color = trouble ? style.yellow : style.dim
      if (!trouble || width === undefined || used + Text.width(note) <= width) return [cut(line(columns, color(note)))]
      const indent = `${style.dim(below)}${symbols ? "  " : ""}`
      return [
        cut(line(columns, "")),
        ...Text.wrap(note, Math.max(20, width - Text.width(indent))).map((part) => cut(indent + color(part)))
      ]
    })
  ]
}

/** `14 actors: 1 parked, 1 backing-off, 12 running`: what is bad comes first. */
export const summary = (actors: Iterable<Actor>, style: Style): string => {
  const counts = new Map<string, number>()
  let total = 0
  for (const actor of actors) {
    const { word } = ActorText.state(actor)
    counts.set(word, (counts.get(word) ?? 0) + 1)
    total++
  }
  const parts = ActorText.stateWords.flatMap((state) => {
    const n = counts.get(state.word) ?? 0
    return n === 0 ? [] : [ActorText.paint(style, state.color)(`${n} ${state.word}`)]
  })
  return `${HumanText.count(total, "actor")}${parts.length === 0 ? "" : `: ${parts.join(", ")}`}`
}

/** The picture. */
export const render = (actors: ReadonlyMap<string, Actor>, options: Options): ReadonlyArray<string> => {
  const { height, style, width } = options
  const remark = options.remark === undefined || options.remark === "" ? "" : `  ${options.remark}`
  const title = `${style.bold("ironwood")}  ${summary(actors.values(), style)}${remark}`
  const header = [title, options.alert ?? ""].map((line) => (width === undefined ? line : Text.fit(line, width)))
  if (actors.size === 0) return header
  const roots = forest(actors.values())
  const whole = [...header, ...table(rowsOf(roots, false), options).flat()]
  if (height === undefined || whole.length <= height) return whole
  const compact = [...header, ...table(rowsOf(roots, true), options).flat()]
  if (compact.length <= height) return compact
  const kept = compact.slice(0, Math.max(1, height - 1))
  return [
    ...kept,
    style.dim(`… ${compact.length - kept.length} more lines: \`ironwood tree PATH\` shows a part of the tree`)
  ]
}
