/**
 * What becomes of an upgrade, as functions of the record: pure, so that every turn is tested without a machine.
 *
 *   event \ state          | settled                             | a trial is on
 *   -----------------------+-------------------------------------+---------------------------------------------------
 *   somebody asks          | trial                               | refused
 *   confirm, by the trial  | -                                   | it is current, the one before is previous
 *   taproot gave it up     | current is bad; previous is current | it is bad, current stays
 *   taproot starts anew    | current                             | current stays: an unproven brain is not for a boot
 *   another brain starts   | -                                   | current stays: nobody handed over
 *   the image has another  | the image's own, the choice is kept | the same
 *   current is damaged     | it is bad; previous is current      | the same
 *
 * A brain that is bad is not started unless somebody asks for it again. The built-in brain is never bad: it is what is left.
 */
import type { BrainEnd, Succession } from "../taproot/Processes.ts"
import { type Attempt, builtIn, type BuiltIn, type Fault, type Reason, type Record } from "./Record.ts"

/** What a brain finds at its start. */
export interface Situation {
  /** Which brain it is. */
  readonly self: string
  /** The built-in one, when that is asking. */
  readonly own: BuiltIn
  /** Of taproot. */
  readonly instance: string
  readonly succession: Succession
  /** Why a brain that was installed cannot be started; undefined when it can. */
  readonly problemOf: (brain: string) => string | undefined
  readonly versionOf: (brain: string) => string
  readonly now: number
}

export interface Decision {
  readonly record: Record
  /** The brain that is to run. */
  readonly run: string
  /** Why it is not the one that was chosen; empty when it is. */
  readonly note: string
}

const endings: Readonly<{ readonly [How in BrainEnd["how"]]: string }> = {
  none: "did not run",
  exited: "ended with exit code",
  signaled: "was killed by signal",
  "missed-heartbeat": "hung and was killed by signal",
  "protocol-fault": "broke the protocol and was killed by signal",
  "never-said-hello": "never said hello and was killed by signal",
  late: "ran, and was killed by signal"
}

export const describeEnd = ({ how, value }: BrainEnd): string =>
  how === "none" ? endings.none : `${endings[how]} ${value}`

const faults: Readonly<{ readonly [F in Succession["fault"]]: Reason }> = {
  none: "ended",
  ended: "ended",
  late: "unhealthy",
  protocol: "protocol",
  unstable: "unstable"
}

/** The trial is over, and lost. */
const lost = (record: Record, fault: Fault, isBad: boolean): Record => {
  const { attempt, trial, ...rest } = record
  if (trial === undefined) return record
  return {
    ...rest,
    ...(attempt === undefined ? {} : { attempt: { ...attempt, fate: "fell-back", fault } }),
    bad: isBad ? { ...rest.bad, [trial.brain]: fault } : rest.bad,
    restoring: true
  }
}

/** The current brain is left for the one before it, or for the built-in one. */
const demoted = (record: Record, fault: Fault, version: string): Record => {
  const { current, previous = builtIn, ...rest } = record
  const bad = { ...rest.bad, [current]: fault }
  const attempt: Attempt = { brain: current, version, before: previous, at: fault.at, fate: "fell-back", fault }
  return { ...rest, bad, attempt, current: previous in bad ? builtIn : previous }
}

/** What runs, at the start of a brain. */
export const begin = (before: Record, situation: Situation): Decision => {
  const { instance, now, own, problemOf, self, succession, versionOf } = situation
  const interrupted = (detail: string): Fault => ({ reason: "interrupted", detail, at: now })
  let record = before
  if (self !== builtIn) {
    if (record.trial !== undefined && record.trial.brain !== self) {
      record = lost(record, interrupted("the brain before it died before it had handed over"), false)
    }
    return { record, run: self, note: "" }
  }
  const ended = String(succession.end.time)
  if (succession.state === "given-up" && record.handled !== ended) {
    const fault: Fault = {
      reason: faults[succession.fault],
      detail: `the last one ${describeEnd(succession.end)}`,
      at: now
    }
    record = { ...record, handled: ended }
    if (record.trial !== undefined) record = lost(record, fault, true)
    else if (record.current !== builtIn) record = demoted(record, fault, versionOf(record.current))
  } else if (record.trial !== undefined) {
    const detail =
      record.trial.instance === instance
        ? "the brain before it died before it had handed over"
        : "Ironwood or its machine started anew"
    record = lost(record, interrupted(detail), false)
  }
  if (record.builtIn.digest !== own.digest) {
    const note =
      record.current === builtIn
        ? ""
        : `the image has another brain of its own since ${versionOf(record.current)} was installed, so that one is not run; \`ironwood upgrade use\` runs it all the same`
    return { record, run: builtIn, note }
  }
  while (record.current !== builtIn) {
    const problem = problemOf(record.current)
    if (problem === undefined) break
    record = demoted(record, { reason: "damaged", detail: problem, at: now }, versionOf(record.current))
  }
  return { record, run: record.current, note: "" }
}

/** Somebody asks for a brain. Only when there is no trial. */
export const ask = (
  record: Record,
  wanted: {
    readonly brain: string
    readonly version: string
    readonly instance: string
    readonly patienceMillis: number
    readonly at: number
    /** The built-in brain that it is chosen over, when that is the one that runs. */
    readonly own?: BuiltIn
  }
): Record => {
  const { at, brain, instance, own = record.builtIn, patienceMillis, version } = wanted
  const { [brain]: _, ...bad } = record.bad
  const { restoring: __, ...kept } = record
  const attempt = { brain, version, before: record.current, at }
  // the last resort needs no trial: there is nothing to go back to that would be safer
  return brain === builtIn
    ? {
        ...kept,
        builtIn: own,
        bad,
        current: builtIn,
        previous: record.current,
        attempt: { ...attempt, fate: "confirmed" }
      }
    : {
        ...kept,
        builtIn: own,
        bad,
        trial: { brain, instance, patienceMillis },
        attempt: { ...attempt, fate: "trying" }
      }
}

/** The trial has proved itself. */
export const confirm = (record: Record, self: string): Record => {
  const { attempt, trial, ...rest } = record
  if (trial?.brain !== self) return record
  return {
    ...rest,
    current: self,
    previous: record.current,
    ...(attempt === undefined ? {} : { attempt: { ...attempt, fate: "confirmed" } })
  }
}
