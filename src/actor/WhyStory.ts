/**
 * A history told as a short story: what happened to an actor and what was decided, ends alike in a row as one chapter.
 *
 * The entries of an actor's history say everything, one by one; ten times the same crash is one thing to a reader.
 * Chapters carry their times, the sentences hold lengths of time only: when something was is for the teller to say.
 */
import type { ActorPath } from "./ActorPath.ts"
import * as Path from "./ActorPath.ts"
import type { ExitView } from "./ExitView.ts"
import type { HistoryEntry, HistoryEvent } from "./Tree.ts"

/** One thing that happened, `times` times in a row, first at `from` and last at `to`. */
export interface Chapter {
  readonly from: number
  readonly to: number
  readonly times: number
  readonly text: string
  /** Whose end it happened on account of, when that was not its own. */
  readonly because: ActorPath | undefined
}

const units = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1_000, "s"]
] as const

/** A length of time: `350 ms`, `2.8 s`, `5 min`, `3 h`; at most one decimal. */
export const span = (milliseconds: number): string => {
  const [size, unit] = units.find(([size]) => milliseconds >= size) ?? [1, "ms"]
  const value = milliseconds / size
  return `${value < 10 && size > 1 ? Math.round(value * 10) / 10 : Math.round(value)} ${unit}`
}

/** `1 restart`, `3 restarts`. */
export const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`

const ends: ReadonlySet<HistoryEvent> = new Set(["ended", "start-failed", "ignored", "stopped", "released"])

/** Whether a life began with it. */
export const isStart = ({ event }: HistoryEntry): boolean => event === "started" || event === "adopted"

/** Whether a life was over with it. */
export const isEnd = ({ event }: HistoryEntry): boolean => ends.has(event)

/** How it ended, as the end of a sentence: `exited with code 1 (ContainerExited)`. */
export const exitWords = ({ message, tag }: ExitView): string =>
  message === "" || message === tag ? tag : `${message} (${tag})`

interface Told {
  readonly entry: HistoryEntry
  /** How long it had run; nothing when it had not come up. */
  readonly ranFor: number | undefined
}

/** The chapters, oldest first. Of starts, and of waits for a turn, only those that nothing has followed are told. */
export const story = (history: ReadonlyArray<HistoryEntry>): ReadonlyArray<Chapter> => {
  const chapters: Array<Chapter> = []
  let like: Array<Told> = []
  let started: HistoryEntry | undefined
  let heldBack: HistoryEntry | undefined
  const close = (): void => {
    const [first] = like
    if (first !== undefined) chapters.push(chapterOf(first, like))
    like = []
  }
  for (const entry of history) {
    heldBack = entry.event === "held-back" ? entry : undefined
    if (heldBack !== undefined) continue
    if (isStart(entry)) {
      // a run that was taken over goes on
      started = entry.event === "adopted" && started !== undefined ? { ...entry, at: started.at } : entry
      continue
    }
    const ranFor = started?.incarnation === entry.incarnation ? entry.at - started.at : undefined
    if (isEnd(entry)) started = undefined
    const [first] = like
    if (first !== undefined && !alike(first.entry, entry)) close()
    like.push({ entry, ranFor: isEnd(entry) ? ranFor : undefined })
  }
  close()
  for (const entry of [started, heldBack]) {
    if (entry !== undefined) chapters.push(chapterOf({ entry, ranFor: undefined }, [{ entry, ranFor: undefined }]))
  }
  return chapters
}

const alike = (one: HistoryEntry, other: HistoryEntry): boolean =>
  one.event === other.event &&
  one.decision === other.decision &&
  one.because === other.because &&
  one.exit?.tag === other.exit?.tag &&
  one.exit?.message === other.exit?.message &&
  (one.exit !== undefined || one.reason === other.reason)

const chapterOf = (first: Told, all: ReadonlyArray<Told>): Chapter => {
  const last = all.at(-1) ?? first
  const after = rangeOf(all.map(({ ranFor }) => ranFor))
  const delays = all.map(({ entry }) => entry.delay)
  const what = whatHappened(last.entry, after === undefined ? "" : ` after ${after}`)
  const then = whatFollowed(last.entry, all.length === 1 ? span(last.entry.delay ?? 0) : (rangeOf(delays) ?? ""))
  return {
    from: first.entry.at,
    to: last.entry.at,
    times: all.length,
    text: then === "" ? what : `${what}; ${then}`,
    because: last.entry.because
  }
}

/** `1 s`, `1 s to 4 s`. */
const rangeOf = (lengths: ReadonlyArray<number | undefined>): string | undefined => {
  const known = lengths.filter((length) => length !== undefined)
  if (known.length === 0) return undefined
  const [least, most] = [span(Math.min(...known)), span(Math.max(...known))]
  return least === most ? least : `${least} to ${most}`
}

const whatHappened = ({ because, event, exit, incarnation, reason }: HistoryEntry, after: string): string => {
  switch (event) {
    case "adopted":
    case "started": {
      const life = incarnation === 1 ? "" : `, in incarnation ${incarnation}`
      const came = event === "started" ? "it came up" : "it was taken over while it ran on"
      return because === undefined ? `${came}${life}` : `${came}${life}, in the place of "${Path.id(because)}"`
    }
    case "ended":
      return exit === undefined ? `it ended${after}` : endWords(exit, after)
    case "start-failed":
      return exit === undefined ? "its start failed" : `its start failed: ${exitWords(exit)}`
    case "ignored":
      return "it had nothing to do"
    case "stopped":
      return `it was stopped${after}: ${reason}`
    case "released":
      return `it was ended${after}, while what it manages went on: ${reason}`
    case "killed":
      return `it was killed: ${reason}`
    case "abandoned":
      return `it was abandoned: ${reason}`
    case "stop-hook-failed":
      return `its clean-up failed: ${reason}`
    case "policy-changed":
      return `its policy was changed: ${reason}`
    case "held-back":
      return `it waited for its turn: ${reason}`
  }
}

const endWords = (exit: ExitView, after: string): string => {
  switch (exit.class) {
    case "normal":
      return `it ended normally${after}`
    case "failure":
      return `it ended${after}: ${exitWords(exit)}`
    case "defect":
      return `a bug ended it${after}: ${exitWords(exit)}`
    case "interrupted":
      return `it was interrupted from outside${after}`
    case "not-started":
      return `it did not come up: ${exit.message}`
  }
}

const whatFollowed = ({ decision }: HistoryEntry, delay: string): string => {
  switch (decision) {
    case "none":
    case "finish":
      return ""
    case "restart":
      return delay === "0 ms" ? "started again at once" : `started again in ${delay}`
    case "park":
      return "parked, to wait for a person"
    case "fallback":
      return "parked, for a sibling to run in its place"
    case "restart-group":
      return `the whole group started again ${delay === "0 ms" ? "at once" : `in ${delay}`}`
    case "reboot-host":
      return "the host was to reboot because of it"
    case "escalate":
      return "its supervisor gave up with it"
  }
}
