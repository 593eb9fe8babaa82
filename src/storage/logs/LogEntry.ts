/**
 * One line of a container's log in the CRI format of Kubernetes, as text and as data:
 *
 * ```
 * 2026-11-22T19:05:26.727462991Z stdout F a whole line
 * 2026-11-22T19:05:26.727462991Z stderr P the beginning of a line that goes on in the next entry of stderr
 * ```
 *
 * Traps: the content is bytes, not text: a container may write anything but a newline between two newlines. A `P` entry
 * is a piece of a line (a long one, or one whose end had not been written yet); its line ends with the next `F` of the same
 * stream. The time is that of the chunk of output (`Processes`), so all lines of one write have the same.
 */
import type { OutputStream } from "../../taproot/Processes.ts"

export interface LogEntry {
  /** Nanoseconds since the Unix epoch. */
  readonly time: bigint
  readonly stream: OutputStream
  /** False: the line goes on in the next entry of this stream. */
  readonly complete: boolean
  /** Without the newline. */
  readonly content: Uint8Array
}

/** Content of one entry at most; longer lines are split. As containerd and CRI-O do. */
export const MAXIMUM_CONTENT = 16_384

const SECOND = 1_000_000_000n

/** RFC 3339 in UTC with nine digits, as the log files have it: 30 characters. */
export const formatTime = (time: bigint): string => {
  const seconds = new Date(Number(time / SECOND) * 1_000).toISOString().slice(0, 19)
  return `${seconds}.${String(time % SECOND).padStart(9, "0")}Z`
}

const timePattern = /^(\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/

/** Reads RFC 3339 with up to nine digits; undefined when it is none. */
export const parseTime = (text: string): bigint | undefined => {
  const match = timePattern.exec(text)
  if (match === null) return undefined
  const milliseconds = Date.parse(`${match[1]}${match[3]}`)
  if (Number.isNaN(milliseconds)) return undefined
  return BigInt(milliseconds) * 1_000_000n + BigInt((match[2] ?? "").padEnd(9, "0"))
}

const NEWLINE = 0x0a

/** Whether a line, or what there is of the last one, has more than an entry may. */
const hasLongLine = (text: string): boolean => {
  for (let start = 0; text.length - start > MAXIMUM_CONTENT;) {
    const newline = text.lastIndexOf("\n", start + MAXIMUM_CONTENT)
    if (newline < start) return true
    start = newline + 1
  }
  return false
}

/** The same as {@link formatChunk}, piece by piece, for lines of any length. */
const formatLong = (stamp: string, bytes: Uint8Array): Uint8Array => {
  const full = Buffer.from(`${stamp}F `)
  const partial = Buffer.from(`${stamp}P `)
  const parts: Array<Uint8Array> = []
  for (let start = 0; start < bytes.length;) {
    const newline = bytes.indexOf(NEWLINE, start)
    const lineEnd = newline < 0 ? bytes.length : newline
    const end = Math.min(lineEnd, start + MAXIMUM_CONTENT)
    const ended = end === newline
    parts.push(ended ? full : partial, bytes.subarray(start, end), lineFeed)
    start = ended ? end + 1 : end
  }
  return Buffer.concat(parts)
}

/** The entries of a chunk of output as file text: every line prefixed, an unfinished last one as `P`. */
export const formatChunk = (time: bigint, stream: OutputStream, bytes: Uint8Array): Uint8Array => {
  const stamp = `${formatTime(time)} ${stream} `
  // a byte is a character, and all lines are prefixed in one go: twice as fast as line by line
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1")
  if (hasLongLine(text)) return formatLong(stamp, bytes)
  const end = text.lastIndexOf("\n")
  const whole = end < 0 ? "" : `${stamp}F ${text.slice(0, end).replaceAll("\n", `\n${stamp}F `)}\n`
  const last = text.slice(end + 1)
  return Buffer.from(last === "" ? whole : `${whole}${stamp}P ${last}\n`, "latin1")
}

const lineFeed = Buffer.from("\n")
const SPACE = 0x20
const COMPLETE = 0x46

/** One line of a log file (without its newline) as an entry; undefined when it is none (damaged). */
export const parseLine = (line: Uint8Array): LogEntry | undefined => {
  const afterTime = line.indexOf(SPACE)
  // "stdout" and "stderr" have the same length, and the tag is one character, so the rest is at fixed offsets.
  const contentStart = afterTime + 10
  if (afterTime < 20 || afterTime > 40 || line.length < contentStart) return undefined
  const head = Buffer.from(line.buffer, line.byteOffset, contentStart).toString("latin1")
  const stream = head.slice(afterTime + 1, afterTime + 7)
  const tag = head.slice(afterTime + 7)
  const time = parseTime(head.slice(0, afterTime))
  if (time === undefined || (stream !== "stdout" && stream !== "stderr") || (tag !== " F " && tag !== " P ")) {
    return undefined
  }
  return { time, stream, complete: tag === " F ", content: line.subarray(contentStart) }
}

/**
 * Counts the output that the entries of one chunk stand for, given the lines of a file from the newest to the oldest.
 * Looks at bytes only: a log of many megabytes may have to be gone through.
 */
export const chunkCounter = (time: bigint, stream: OutputStream) => {
  const prefix = Buffer.from(`${formatTime(time)} ${stream} `)
  const name = Buffer.from(` ${stream} `)
  const nameAt = prefix.length - name.length
  let length = 0
  return {
    /** False when no earlier line can be of this chunk: times grow strictly within a stream. */
    visit: (line: Uint8Array): boolean => {
      if (line.length < prefix.length + 2 || name.compare(line, nameAt, prefix.length) !== 0) return true
      if (prefix.compare(line, 0, prefix.length) !== 0) return false
      // An `F` entry ended with a newline of the program's own.
      length += line.length - prefix.length - 2 + (line[prefix.length] === COMPLETE ? 1 : 0)
      return true
    },
    length: () => length
  }
}
