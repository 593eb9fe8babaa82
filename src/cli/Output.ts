/**
 * Printing answers in the format of `-o`: lines for people, the API's own JSON, or the same as YAML.
 *
 * JSON is protobuf's (camelCase names, 64-bit numbers as strings, durations as `"1.5s"`), with fields at their default
 * written out, so that `jq .restarts` finds its 0. A list is printed as the List response of the API, pages put together.
 * Streams are one JSON object per line, or one YAML document each.
 */
import { type DescMessage, type JsonValue, type MessageShape, toJson } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import { stringify } from "yaml"
import { type Output, OutputSetting } from "./Globals.ts"
import { Screen } from "./Screen.ts"

/** A message as protobuf JSON, defaults written out. */
export const json = <D extends DescMessage>(schema: D, message: MessageShape<D>): JsonValue =>
  toJson(schema, message, { alwaysEmitImplicit: true })

/** Text of a value in one of the formats for programs. `stream`: one of many. */
const text = (value: JsonValue, format: Exclude<Output, "table">, stream: boolean): string => {
  if (format === "json") return `${stream ? JSON.stringify(value) : JSON.stringify(value, null, 2)}\n`
  return `${stream ? "---\n" : ""}${stringify(value, { lineWidth: 0, aliasDuplicateObjects: false })}`
}

/** Text of one item of a stream in a format for programs. */
export const itemText = (value: JsonValue, format: Exclude<Output, "table">): string => text(value, format, true)

/** Prints lines to standard output. */
export const lines = Effect.fnUntraced(function* (lines: ReadonlyArray<string>) {
  const screen = yield* Screen
  if (lines.length > 0) yield* screen.write(`${lines.join("\n")}\n`)
})

/** Prints an answer: by `table` for people, else the message itself. */
export const answer = Effect.fnUntraced(function* <D extends DescMessage, E, R>(
  schema: D,
  message: MessageShape<D>,
  table: Effect.Effect<ReadonlyArray<string>, E, R>
) {
  const format = yield* OutputSetting
  const screen = yield* Screen
  if (format === "table") return yield* lines(yield* table)
  return yield* screen.write(text(json(schema, message), format, false))
})

/** Prints one item of a stream: by `line` for people (undefined = nothing), else the message itself. */
export const item = Effect.fnUntraced(function* <D extends DescMessage>(
  schema: D,
  message: MessageShape<D>,
  line: () => ReadonlyArray<string>
) {
  const format = yield* OutputSetting
  const screen = yield* Screen
  if (format === "table") return yield* lines(line())
  return yield* screen.write(text(json(schema, message), format, true))
})

/** Prints one item of a stream that is no message of the API: by `table` for people, else `value`. */
export const value = Effect.fnUntraced(function* (value: JsonValue, table: ReadonlyArray<string>) {
  const format = yield* OutputSetting
  const screen = yield* Screen
  if (format === "table") return yield* lines(table)
  return yield* screen.write(text(value, format, true))
})

/** Prints lines that say nothing to a program: it has the exit code. */
export const people = Effect.fnUntraced(function* (words: ReadonlyArray<string>) {
  if ((yield* OutputSetting) === "table") yield* lines(words)
})

/** A word or two for people while something takes long, on standard error and only on a terminal; see {@link progressDone}. */
export const progress = Effect.fnUntraced(function* (words: string) {
  const screen = yield* Screen
  if (screen.isErrorTerminal) yield* screen.writeError(`\r\u001B[K${words}`)
})

/** Takes the words of {@link progress} away again. */
export const progressDone = Effect.gen(function* () {
  const screen = yield* Screen
  if (screen.isErrorTerminal) yield* screen.writeError("\r\u001B[K")
})

/**
 * Lines for people while something takes long, in the place of the `before` lines that were written last, on standard error and
 * only on a terminal. No lines take away what is there. A line must fit the terminal.
 */
export const progressLines = Effect.fnUntraced(function* (before: number, lines: ReadonlyArray<string>) {
  const screen = yield* Screen
  if (!screen.isErrorTerminal || (before === 0 && lines.length === 0)) return
  const up = before > 0 ? `\u001B[${before}A` : ""
  yield* screen.writeError(`${up}\r${lines.map((line) => `${line}\u001B[K\n`).join("")}\u001B[J`)
})

/** A remark for people on standard error. */
export const remark = Effect.fnUntraced(function* (words: string) {
  const screen = yield* Screen
  yield* screen.writeError(`${screen.isErrorTerminal ? "\r\u001B[K" : ""}${words}\n`)
})
