/**
 * Text measured in terminal cells: widths, cutting, padding, and making strangers' text harmless.
 *
 * Everything that comes from outside (names, labels, messages of failed programs) goes through {@link clean} before it is
 * laid out: an escape sequence in an error message must not repaint somebody's terminal. Painted text may be measured,
 * padded and cut; a cut closes what was open.
 */
import { displayWidth } from "effect/cli/CliOutput"

/** What escape sequences begin with. */
export const ESC = "\u001B"

/** The cells a text takes; colours take none. */
export const width = displayWidth

// oxlint-disable-next-line no-control-regex -- finding control characters is the point
const unsafe = /[\u0000-\u001F\u007F-\u009F\u2028\u2029\u202A-\u202E\u2066-\u2069]/g

/** One line of harmless text: line breaks and tabs become spaces, other control and direction characters `\xNN`. */
export const clean = (text: string): string =>
  text.replace(/[\r\n\t]+/g, " ").replace(unsafe, (found) => {
    const code = found.codePointAt(0) ?? 0
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`
  })

/** Blanks on the right up to `cells`. */
export const padEnd = (text: string, cells: number): string => text + " ".repeat(Math.max(0, cells - width(text)))

/** Blanks on the left up to `cells`. */
export const padStart = (text: string, cells: number): string => " ".repeat(Math.max(0, cells - width(text))) + text

// oxlint-disable-next-line no-control-regex -- an SGR sequence begins with ESC
const sgr = /\u001B\[[0-9;]*m/y
const segments = new Intl.Segmenter(undefined, { granularity: "grapheme" })

/**
 * The text cut to `cells`, its end marked by `…` when something was cut. Colour sequences pass whole; when the text was
 * painted, the cut one ends with a reset.
 */
export const fit = (text: string, cells: number): string => {
  if (width(text) <= cells) return text
  if (cells <= 0) return ""
  let out = ""
  let used = 0
  let painted = false
  let position = 0
  while (position < text.length) {
    sgr.lastIndex = position
    const sequence = sgr.exec(text)
    if (sequence !== null) {
      out += sequence[0]
      painted = true
      position += sequence[0].length
      continue
    }
    const next = text.indexOf("\u001B", position + 1)
    const run = text.slice(position, next === -1 ? text.length : next)
    for (const { segment } of segments.segment(run)) {
      const cell = width(segment)
      if (used + cell > cells - 1) return `${out}…${painted ? "\u001B[0m" : ""}`
      out += segment
      used += cell
    }
    position += run.length
  }
  return out
}

/** Breaks a text at blanks so that no line is longer than `cells`, where words allow. */
export const wrap = (text: string, cells: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && width(line) + 1 + width(word) > cells) {
      lines.push(line)
      line = word
    } else {
      line = line === "" ? word : `${line} ${word}`
    }
  }
  return [...lines, line]
}
