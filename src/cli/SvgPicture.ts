/**
 * A painted text as an SVG picture: what a terminal would show, for a ticket, a chat or a page of documentation.
 *
 * Use it on lines that `Style.colored` has painted. Only its colours, bold and dim are known; every other escape sequence is left
 * out. Characters stand on the grid of a terminal, whatever font the viewer has.
 */
import * as Text from "./Text.ts"

/** Pixels. */
const CELL = 8
const LINE = 20
const MARGIN = 16

/** Colours that are told apart on white, also by people who do not see red and green alike. */
const colors: Readonly<Record<string, string>> = {
  31: "#b42318",
  32: "#18794e",
  33: "#9a6700",
  34: "#0b5cad",
  35: "#7a3e9d",
  36: "#0f6b75"
}
const INK = "#1f2933"
const DIM = "#7b8794"

interface Pen {
  readonly color: string | undefined
  readonly bold: boolean
  readonly dim: boolean
}

const plainPen: Pen = { color: undefined, bold: false, dim: false }

/** The pen after one code of a Select Graphic Rendition (ECMA-48, 8.3.117). */
const turned = (pen: Pen, code: string): Pen => {
  if (code === "1") return { ...pen, bold: true }
  if (code === "2") return { ...pen, dim: true }
  if (code === "22") return { ...pen, bold: false, dim: false }
  if (code === "39") return { ...pen, color: undefined }
  return code === "" || code === "0" ? plainPen : { ...pen, color: colors[code] ?? pen.color }
}

const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" }
const escaped = (text: string): string => text.replace(/[&<>"]/g, (found) => entities[found] ?? found)

const sequence = new RegExp(`${Text.ESC}\\[([0-9;]*)([A-Za-z])`)

/** Text between sequences, at its column, with the pen it is written with. */
const runsOf = (line: string): ReadonlyArray<{ readonly column: number; readonly pen: Pen; readonly text: string }> => {
  const runs = []
  let pen = plainPen
  let column = 0
  const parts = line.split(sequence)
  for (let index = 0; index < parts.length; index += 3) {
    const text = Text.clean(parts[index] ?? "")
    // each word by itself: what a font makes of blanks must not shift what follows
    for (const word of text.matchAll(/\S+/g)) {
      runs.push({ column: column + Text.width(text.slice(0, word.index)), pen, text: word[0] })
    }
    column += Text.width(text)
    if (parts[index + 2] === "m") for (const code of (parts[index + 1] ?? "").split(";")) pen = turned(pen, code)
  }
  return runs
}

/** The document, in lines. `title` is what a screen reader says first. */
export const make = (lines: ReadonlyArray<string>, title: string): ReadonlyArray<string> => {
  const columns = lines.reduce((most, line) => Math.max(most, Text.width(line)), 0)
  const width = columns * CELL + 2 * MARGIN
  const height = lines.length * LINE + 2 * MARGIN
  const words = lines.flatMap((line, row) =>
    runsOf(line).map(({ column, pen, text }) => {
      const fill = pen.color ?? (pen.dim ? DIM : INK)
      const weight = pen.bold ? ' font-weight="bold"' : ""
      const at = `x="${MARGIN + column * CELL}" y="${MARGIN + row * LINE + 14}"`
      const length = `textLength="${Text.width(text) * CELL}" lengthAdjust="spacingAndGlyphs"`
      return `<text ${at} ${length} fill="${fill}"${weight}>${escaped(text)}</text>`
    })
  )
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" ` +
      `font-family="ui-monospace, 'DejaVu Sans Mono', monospace" font-size="13">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" rx="8" fill="#ffffff"/>`,
    ...words,
    "</svg>"
  ]
}
