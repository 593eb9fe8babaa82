/** Machine configs for people: what changes and how, what is wrong and in which line, revisions. */
import * as Effect from "effect/Effect"
import { isNode, LineCounter, parseDocument } from "yaml"
import {
  type ApplyConfigResponse,
  type ConfigChange,
  ConfigFate,
  type ConfigProblem,
  ConfigReach,
  type ConfigRevision,
  type ConfigTrial
} from "../../proto/generated/ironwood/v1/config_pb.ts"
import * as ActorText from "./ActorText.ts"
import { orElseStatus, status } from "./Client.ts"
import { changed } from "./Failure.ts"
import { style as currentStyle } from "./Globals.ts"
import * as HumanText from "./HumanText.ts"
import { Screen } from "./Screen.ts"
import * as Table from "./Table.ts"
import * as Text from "./Text.ts"

const reaches: ReadonlyMap<ConfigReach, string> = new Map([
  [ConfigReach.LIVE, "at once"],
  [ConfigReach.REBOOT, "at the next start of the machine"],
  [ConfigReach.OVERRIDDEN, "not at all"],
  [ConfigReach.ELSEWHERE, "only on a machine that boots into Ironwood"]
])

const valueText = (json: string): string => (json === "" ? "(not set)" : Text.clean(json))

/** A line per field: what it was, what it is, and when that takes effect. */
export const changes = Effect.fnUntraced(function* (all: ReadonlyArray<ConfigChange>) {
  if (all.length === 0) return ["nothing changes"]
  const style = yield* currentStyle
  const size = yield* (yield* Screen).size
  return Table.render(
    [
      { title: "FIELD" },
      { title: "BEFORE", shrinkTo: 12 },
      { title: "AFTER", shrinkTo: 12 },
      { title: "TAKES EFFECT", shrinkTo: 12 }
    ],
    all.map(({ after, before, field, note, reach }) => [
      Text.clean(field),
      style.red(valueText(before)),
      style.green(valueText(after)),
      Text.clean([reaches.get(reach) ?? "", note].filter((words) => words !== "").join(": "))
    ]),
    { heading: style.dim, ...(size === undefined ? {} : { width: size.columns }) }
  )
})

/** One line per field that is wrong. */
export const problems = (all: ReadonlyArray<ConfigProblem>): ReadonlyArray<string> =>
  all.map(({ description, field }) => Text.clean(field === "" ? description : `${field}: ${description}`))

const secondsOf = ({ timeLeft }: ConfigTrial): string =>
  timeLeft === undefined ? "" : HumanText.span(Number(timeLeft.seconds) * 1_000 + timeLeft.nanos / 1e6)

/** What is being tried, and what to do. */
export const trial = (found: ConfigTrial): string =>
  `revision ${found.previousRevision} holds again in ${secondsOf(found)} unless: ironwood config confirm`

/** What was applied, and what of it could not be. */
export const applied = Effect.fnUntraced(function* (answer: ApplyConfigResponse, validateOnly: boolean) {
  const style = yield* currentStyle
  return [
    ...(yield* changes(answer.changes)),
    ...problems(answer.problems).map((line) => style.yellow(`not done: ${line}`)),
    ...(validateOnly ? [] : [`revision ${answer.revision} is in force`]),
    ...(answer.trial === undefined ? [] : [style.yellow(trial(answer.trial))])
  ]
})

const fates: ReadonlyMap<ConfigFate, string> = new Map([
  [ConfigFate.APPLIED, "applied"],
  [ConfigFate.TRYING, "being tried"],
  [ConfigFate.CONFIRMED, "tried and confirmed"],
  [ConfigFate.REVERTED, "tried and taken back"]
])

/** The revisions, as they come. */
export const revisions = Effect.fnUntraced(function* (all: ReadonlyArray<ConfigRevision>, now: number) {
  const style = yield* currentStyle
  return Table.render(
    [{ title: "REVISION", align: "right" }, { title: "WHEN" }, { title: "FROM" }, { title: "FATE" }, { title: "" }],
    all.map(({ applyTime, current, fate, number, origin }) => {
      const at = ActorText.momentOf(applyTime)
      return [
        String(number),
        at === undefined ? "" : HumanText.ago(at, now),
        Text.clean(origin),
        fates.get(fate) ?? "",
        current ? "in force" : ""
      ]
    }),
    { heading: style.dim }
  )
})

/** `time.servers[1]`, `kernel.sysctls["a.b"]` as keys. */
const keysOf = (field: string): ReadonlyArray<string | number> =>
  [...field.matchAll(/\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]|([^.[\]]+)/g)].map(([, index, quoted, name]) =>
    index !== undefined ? Number(index) : quoted !== undefined ? String(JSON.parse(quoted)) : (name ?? "")
  )

/** The line of a field in the text of a document, or of the nearest that is there around it. */
export const lineOf = (text: string, field: string): number => {
  const counter = new LineCounter()
  const document = parseDocument(text, { lineCounter: counter })
  for (let keys = keysOf(field); keys.length > 0; keys = keys.slice(0, -1)) {
    const node = document.getIn(keys, true)
    if (isNode(node) && node.range) return counter.linePos(node.range[0]).line
  }
  return 1
}

/** Puts file and line before each wrong field of a document that the server refused. */
export const withLines =
  (file: string, text: string) =>
  <A, E, R>(self: Effect.Effect<A, E, R>) =>
    self.pipe(
      orElseStatus(status.invalidArgument, (error) => {
        const wrong = (error.violations ?? []).filter(({ field }) => /^document(?:[.[]|$)/.test(field))
        if (wrong.length === 0) return error
        const details = wrong
          .map(({ description, field: asked }) => {
            const field = asked.slice("document.".length)
            return { line: lineOf(text, field), what: field === "" ? description : `${field}: ${description}` }
          })
          .toSorted((one, other) => one.line - other.line)
          .map(({ line, what }) => Text.clean(`${file}:${line}: ${what}`))
        return changed(error, {
          summary:
            details.length === 1
              ? "the machine config is wrong"
              : `the machine config is wrong in ${details.length} places`,
          details,
          next: "Nothing was changed; `ironwood config schema` has all fields"
        })
      })
    )
