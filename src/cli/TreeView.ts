/**
 * The picture people look at on call: the supervision tree as lines of text.
 *
 * One line per actor, in columns: the tree with a symbol per state, what it is, its state and for how long, restarts, pid, and a note.
 * A note on trouble that does not fit beside goes below its actor, so that it is never cut away by a narrow terminal.
 * Processes that are told beneath an actor are dim lines of their own, and the first to go where there is no room.
 * Above each that is in trouble its supervisors say how many there are. Crowds that are well are one line (see
 * `TreeShape.ts`). With `height`, what is well gives way first, then the end is cut; the header still counts everything.
 *
 * Pure: actors in, lines out; the same input gives the same picture.
 */
import { ActorState, type Actor, type ProcessList } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import * as ProcessText from "./ProcessText.ts"
import type { Style } from "./Style.ts"
import * as Text from "./Text.ts"
import { forest, isCalm, type Row, rowsOf, type Shape } from "./TreeShape.ts"

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
  /** Everybody on a line of his own, whatever the number. */
  readonly all?: boolean
  /** Only those in trouble and those above them. */
  readonly troubledOnly?: boolean
  /** What runs beneath them, by their paths. */
  readonly processes?: ReadonlyMap<string, ProcessList>
}

/** From so many siblings that are well and in the same state on they are one line. */
const crowd = 10
/** The same where the screen is too low for all. */
const tight = 3
/** Processes shown of an actor, unless everybody is. */
const ofEach = 12

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
  const cells = rows.map((row) => {
    if (row._tag === "Process") {
      return { ...ProcessText.cells(row, now, style), color: style.dim, whole: false, below: "" }
    }
    const { actor, below, many, rails, restarts, troubled, under } = row
    const state = ActorText.state(actor)
    const color = ActorText.paint(style, state.color)
    const symbol = symbols ? `${color(state.symbol)} ` : ""
    const id = Text.clean(ActorText.idOf(actor.path))
    if (many > 1) {
      const others = under === 0 ? "" : `and ${HumanText.count(under, "actor")} below them; `
      return {
        columns: [
          `${style.dim(rails)}${symbol}${style.dim(`… ${many} ${state.word}`)}`,
          style.dim(Text.clean(actor.kind)),
          color(state.word),
          "",
          restarts === 0 ? style.dim("0") : String(restarts),
          ""
        ],
        note: `${others}--all shows each`,
        color: style.dim,
        whole: false,
        below
      }
    }
    const troubles = ActorText.troubles(actor, now)
    // Of one with a single child the next line tells it.
    const tells = troubled > 0 && under > 1
    const own = troubles.length > 0 ? troubles.join(", ") : remarks(actor)
    return {
      columns: [
        `${style.dim(rails)}${symbol}${state.trouble || troubles.length > 0 || troubled > 0 ? style.bold(id) : id}`,
        style.dim(Text.clean(actor.kind)),
        color(actor.degraded !== "" && actor.state === ActorState.RUNNING ? "degraded" : state.word),
        ActorText.stateSpan(actor, now),
        actor.restarts === 0 ? style.dim("0") : String(actor.restarts),
        Text.clean(actor.annotations["pid"] ?? "")
      ],
      note: tells ? `${troubled} in trouble below${own === "" ? "" : `  ${own}`}` : own,
      color: troubles.length > 0 || tells ? style.yellow : style.dim,
      whole: troubles.length > 0,
      below
    }
  })
  const right = new Set([3, 4, 5])
  const widths = titles
    .slice(0, -1)
    .map((title, column) =>
      cells.reduce((most, { columns }) => Math.max(most, Text.width(columns[column] ?? "")), title.length)
    )
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
    ...cells.map(({ below, color, columns, note, whole }) => {
      if (!whole || width === undefined || used + Text.width(note) <= width) return [cut(line(columns, color(note)))]
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
  const roots = forest(actors, options.now)
  if (options.troubledOnly === true && roots.every(isCalm)) {
    return [...header, "Nothing is in trouble."]
  }
  const { processes } = options
  const told = processes === undefined ? {} : { processes }
  const usual: Shape =
    options.troubledOnly === true
      ? { troubledOnly: true }
      : options.all === true
        ? told
        : { ...told, foldFrom: crowd, mostProcesses: ofEach }
  // Without room for the usual picture processes are left out, then crowds get smaller and smaller.
  const shapes =
    height === undefined || options.troubledOnly === true
      ? [usual]
      : [
          usual,
          ...(processes === undefined
            ? []
            : [
                { ...usual, mostProcesses: 2 },
                { ...usual, mostProcesses: 0 }
              ]),
          { foldFrom: tight },
          { foldFrom: 2 }
        ]
  let lines: ReadonlyArray<string> = header
  for (const shape of shapes) {
    const rows = rowsOf(roots, shape)
    const fits = height === undefined || header.length + 1 + rows.length <= height
    // A row is a line at least: what cannot fit is not drawn, unless it is the last resort.
    if (!fits && shape !== shapes.at(-1)) continue
    lines = [...header, ...table(rows, options).flat()]
    if (height === undefined || lines.length <= height) return lines
  }
  const kept = lines.slice(0, Math.max(1, (height ?? lines.length) - 1))
  return [
    ...kept,
    style.dim(`… ${lines.length - kept.length} more lines: \`ironwood tree PATH\` shows a part of the tree`)
  ]
}
