/**
 * Colours, only where somebody looks: a {@link Style} paints or leaves the text alone.
 *
 * Colour never carries meaning by itself: wherever it is used a word or a symbol says the same. Take the style from
 * `Screen` (which knows whether this is a terminal, NO_COLOR and `--no-color`), never build one in a command.
 */

/** Painting functions; with colours off each returns its text. */
export interface Style {
  readonly enabled: boolean
  readonly bold: (text: string) => string
  readonly dim: (text: string) => string
  readonly red: (text: string) => string
  readonly green: (text: string) => string
  readonly yellow: (text: string) => string
  readonly blue: (text: string) => string
  readonly cyan: (text: string) => string
  readonly magenta: (text: string) => string
}

const escape = "\u001B["

const paint =
  (open: number, close: number) =>
  (text: string): string =>
    text === "" ? text : `${escape}${open}m${text}${escape}${close}m`

const same = (text: string): string => text

/** Paints with the terminal's own sixteen colours. */
export const colored: Style = {
  enabled: true,
  bold: paint(1, 22),
  dim: paint(2, 22),
  red: paint(31, 39),
  green: paint(32, 39),
  yellow: paint(33, 39),
  blue: paint(34, 39),
  cyan: paint(36, 39),
  magenta: paint(35, 39)
}

/** Leaves every text as it is. */
export const plain: Style = {
  enabled: false,
  bold: same,
  dim: same,
  red: same,
  green: same,
  yellow: same,
  blue: same,
  cyan: same,
  magenta: same
}
