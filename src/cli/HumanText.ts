/**
 * Numbers as people read them: spans of time (`2h13m`), sizes (`1.5GiB`), moments.
 *
 * For tables and the tree only; JSON and YAML output keep the exact values of the API. Spans show at most two units
 * and are rounded down: something up for 119 s has not been up for 2 minutes yet.
 */

const spanUnits = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1_000]
] as const

/** A span of time in milliseconds as at most two units: `350ms`, `12s`, `3m5s`, `5h`, `41d6h`. Negative is `0s`. */
export const span = (milliseconds: number): string => {
  if (!(milliseconds > 0)) return "0s"
  if (milliseconds < 1000) return `${Math.floor(milliseconds)}ms`
  const first = spanUnits.findIndex(([, size]) => milliseconds >= size)
  const [unit, size] = spanUnits[first] ?? ["s", 1000]
  const count = Math.floor(milliseconds / size)
  const next = spanUnits[first + 1]
  const rest = next === undefined ? 0 : Math.floor((milliseconds - count * size) / next[1])
  return next === undefined || rest === 0 ? `${count}${unit}` : `${count}${unit}${rest}${next[0]}`
}

/**
 * A wait or a limit in milliseconds, exact to a tenth of a second below a minute: `1.8s`, `500ms`, `2m`. For
 * back-off, where 1.2 s and 1.9 s are worth telling apart.
 */
export const shortSpan = (milliseconds: number): string =>
  milliseconds >= 1000 && milliseconds < 60_000
    ? `${(Math.floor(milliseconds / 100) / 10).toString()}s`
    : span(milliseconds)

const sizeUnits = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] as const

/** A size in bytes: `312B`, `4.7MiB`, `16GiB`. One decimal below ten, none above. */
export const size = (bytes: bigint | number): string => {
  let value = Number(bytes)
  let unit = 0
  while (value >= 1024 && unit < sizeUnits.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit > 0 && value < 10 ? 1 : 0
  return `${value.toFixed(digits).replace(/\.0$/, "")}${sizeUnits[unit]}`
}

/** `1 restart`, `3 restarts`. */
export const count = (n: number | bigint, noun: string): string => `${n} ${noun}${n === 1 || n === 1n ? "" : "s"}`

/** How long ago a moment was, for tables: `3m5s ago`; a moment to come is `in 2s`. */
export const ago = (moment: number, now: number): string =>
  moment > now ? `in ${shortSpan(moment - now)}` : `${span(now - moment)} ago`

/** The same for moments that may be far away: those of another year or older as a date, `2001-09-09`. */
export const agoOrDate = (moment: number, now: number): string =>
  now - moment < 365 * 86_400_000 ? ago(moment, now) : new Date(moment).toISOString().slice(0, 10)

/** The time of day of a moment, in the local zone, for event lines: `14:03:07.250`. */
export const clock = (moment: number): string => {
  const date = new Date(moment)
  const pad = (n: number, width = 2) => String(n).padStart(width, "0")
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}`
}
