/**
 * Tables for people: columns aligned, two blanks between, no lines around.
 *
 * With a `width` (a terminal's) the widest of the columns that may shrink give way until the table fits, their cells
 * cut with `…`. Without one (a pipe) nothing is ever cut: `ps | grep` must find what is there. The last column is not
 * padded. Cells may be painted; they must be one line (see Text.clean).
 */
import * as Text from "./Text.ts"

/** One column: its heading and how it behaves. */
export interface Column {
  readonly title: string
  readonly align?: "left" | "right"
  /** May be cut down to this many cells when the terminal is narrow; absent = never cut. */
  readonly shrinkTo?: number
  /** Left out when no row has anything in it. */
  readonly optional?: boolean
}

const gap = "  "

/** The lines of the table, the heading first. */
export const render = (
  columns: ReadonlyArray<Column>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  options: { readonly width?: number; readonly heading?: (text: string) => string } = {}
): ReadonlyArray<string> => {
  const shown = columns.flatMap((column, index) =>
    column.optional === true && rows.every((row) => (row[index] ?? "") === "")
      ? []
      : [{ column, cells: rows.map((row) => row[index] ?? "") }]
  )
  const widths = shown.map(({ cells, column }) =>
    cells.reduce((most, cell) => Math.max(most, Text.width(cell)), Text.width(column.title))
  )
  if (options.width !== undefined)
    shrink(
      shown.map(({ column }) => column),
      widths,
      options.width
    )
  const line = (cells: ReadonlyArray<string>): string =>
    cells
      .map((cell, index) => {
        const cut = Text.fit(cell, widths[index] ?? 0)
        if (shown[index]?.column.align === "right") return Text.padStart(cut, widths[index] ?? 0)
        return index === cells.length - 1 ? cut : Text.padEnd(cut, widths[index] ?? 0)
      })
      .join(gap)
      .trimEnd()
  const heading = options.heading ?? ((text: string) => text)
  return [
    heading(line(shown.map(({ column }) => column.title))),
    ...rows.map((_, index) => line(shown.map(({ cells }) => cells[index] ?? "")))
  ]
}

/** Takes cells from the widest column that may give some, until the line fits or none may. */
const shrink = (columns: ReadonlyArray<Column>, widths: Array<number>, available: number): void => {
  let excess = widths.reduce((sum, width) => sum + width, gap.length * (columns.length - 1)) - available
  while (excess > 0) {
    let widest = -1
    for (const [index, column] of columns.entries()) {
      const width = widths[index] ?? 0
      if (column.shrinkTo === undefined || width <= column.shrinkTo) continue
      if (widest === -1 || width > (widths[widest] ?? 0)) widest = index
    }
    if (widest === -1) return
    widths[widest] = (widths[widest] ?? 0) - 1
    excess--
  }
}

/** `name  value` lines with the values aligned, for what is no list. A value of several lines keeps its column. */
export const pairs = (
  entries: ReadonlyArray<readonly [name: string, value: string]>,
  options: { readonly indent?: string; readonly name?: (text: string) => string } = {}
): ReadonlyArray<string> => {
  const widest = Math.max(0, ...entries.map(([name]) => Text.width(name)))
  const indent = options.indent ?? ""
  const paint = options.name ?? ((text: string) => text)
  return entries.flatMap(([name, value]) =>
    value
      .split("\n")
      .map((line, index) =>
        `${indent}${index === 0 ? paint(Text.padEnd(name, widest)) : " ".repeat(widest)}${gap}${line}`.trimEnd()
      )
  )
}
