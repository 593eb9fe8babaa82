/**
 * Why an actor is as it is, as a page to read: what the server says in sentences, with its moments as people tell them
 * and with the exact commands for what can be done.
 *
 * Pure: an answer in, lines out. The sentences are the server's, so that every reader of the API is told the same.
 */
import {
  type Actor,
  ActorState,
  type Chapter,
  type ExplainActorResponse,
  type InvolvedActor,
  Relation,
  type Remedy,
  RemedyAction
} from "../../proto/generated/ironwood/v1/tree_pb.ts"
import * as ActorText from "./ActorText.ts"
import * as HumanText from "./HumanText.ts"
import type { Style } from "./Style.ts"
import * as Text from "./Text.ts"

export interface Options {
  readonly now: number
  readonly style: Style
  /** Cells per line; absent = as many as it takes. */
  readonly width?: number
}

type Row = readonly [left: string, right: string]

const sentence = (text: string): string => {
  const clean = Text.clean(text)
  return `${clean.slice(0, 1).toUpperCase()}${clean.slice(1)}${/[.!?]$/.test(clean) ? "" : "."}`
}

/** A section: its rows in two columns, the right one broken to the width and its lines below one another. */
const section = (title: string, rows: ReadonlyArray<Row>, { style, width }: Options): ReadonlyArray<string> => {
  if (rows.length === 0) return []
  const widest = Math.max(0, ...rows.map(([left]) => Text.width(left)))
  const indent = widest === 0 ? 2 : widest + 4
  const lines = rows.flatMap(([left, right]) =>
    (width === undefined ? [right] : Text.wrap(right, Math.max(24, width - indent))).map((part, index) =>
      index === 0 && widest > 0
        ? `  ${style.dim(Text.padEnd(left, widest))}  ${part}`.trimEnd()
        : `${" ".repeat(indent)}${part}`
    )
  )
  return ["", style.bold(title), ...lines]
}

const whenOf = ({ firstTime, lastTime, times }: Chapter, now: number): string => {
  const [first, last] = [ActorText.momentOf(firstTime), ActorText.momentOf(lastTime)]
  if (first === undefined || last === undefined) return ""
  const [from, to] = [HumanText.ago(first, now), HumanText.ago(last, now)]
  if (times <= 1) return to
  return `${from === to ? to : `${HumanText.span(now - first)} to ${to}`}, ${times} times`
}

const relations: ReadonlyMap<Relation, string> = new Map([
  [Relation.CAUSE, "came of"],
  [Relation.WAITS_FOR, "waits for"],
  [Relation.BLOCKS, "holds up"],
  [Relation.STANDS_IN, "stand-in"],
  [Relation.SUPERVISOR, "supervisor"],
  [Relation.BELOW, "below it"]
])

/** By its name where that is enough for a command: a container's. */
const nameOf = (actor: Actor, path: string): string =>
  Text.clean(actor.kind === "container" && path === actor.path ? ActorText.idOf(path) : path)

const others = ({ involved }: ExplainActorResponse): ReadonlyArray<Row> =>
  involved.map(({ path, relation, text }: InvolvedActor) => [
    relations.get(relation) ?? "",
    `${Text.clean(path)} ${Text.clean(text)}`
  ])

const command = (actor: Actor, { action, path }: Remedy): string => {
  const name = nameOf(actor, path)
  switch (action) {
    case RemedyAction.START:
      return `ironwood start ${name}`
    case RemedyAction.STOP:
      return `ironwood stop ${name}`
    case RemedyAction.RESTART:
      return `ironwood restart ${name}`
    case RemedyAction.SET_POLICY:
      return `ironwood policy set ${name} FLAGS`
    case RemedyAction.EXPLAIN:
      return `ironwood why ${name}`
    case RemedyAction.READ_LOGS:
      return `ironwood logs --tail 20 ${name}`
    default:
      return ""
  }
}

/** What can be done: first what is no command, then the commands. */
const remedies = (answer: ExplainActorResponse, actor: Actor, options: Options): ReadonlyArray<string> => {
  const title = "What you can do"
  if (answer.remedies.length === 0) {
    const nothing = actor.state === ActorState.RUNNING ? "Nothing needs to be done." : "Nothing but to wait."
    return section(title, [["", nothing]], options)
  }
  const advice = answer.remedies.filter(({ action }) => action === RemedyAction.UNSPECIFIED)
  const commands = answer.remedies.filter(({ action }) => action !== RemedyAction.UNSPECIFIED)
  const [, heading = "", ...told] = section(
    title,
    advice.map(({ text }): Row => ["", sentence(text)]),
    options
  )
  const [, , ...called] = section(
    title,
    commands.map((remedy): Row => [command(actor, remedy), Text.clean(remedy.text)]),
    options
  )
  return ["", heading === "" ? options.style.bold(title) : heading, ...told, ...called]
}

/** The page. */
export const lines = (answer: ExplainActorResponse, options: Options): ReadonlyArray<string> => {
  const { actor } = answer
  if (actor === undefined) return []
  const { now, style, width } = options
  const state = ActorText.state(actor)
  const span = ActorText.stateSpan(actor, now)
  const color = ActorText.paint(style, state.color)
  const title = [
    style.bold(Text.clean(actor.path)),
    style.dim(Text.clean(actor.kind)),
    `${color(state.word)}${span === "" ? "" : ` for ${span}`}`
  ].join("  ")
  const said = sentence(answer.now)
  return [
    title,
    "",
    ...(width === undefined ? [said] : Text.wrap(said, width)),
    ...section(
      "What happened",
      answer.story.map((chapter) => [whenOf(chapter, now), sentence(chapter.text)]),
      options
    ),
    ...section(
      actor.state === ActorState.RUNNING ? "Its restart policy" : "Why it was decided so",
      answer.policy.map((text) => ["", sentence(text)]),
      options
    ),
    ...section(
      "What comes next",
      answer.prospects.map(({ text, time }) => {
        const moment = ActorText.momentOf(time)
        return [moment === undefined ? "" : moment > now ? HumanText.ago(moment, now) : "now", sentence(text)]
      }),
      options
    ),
    ...section("Who else", others(answer), options),
    ...remedies(answer, actor, options)
  ]
}
