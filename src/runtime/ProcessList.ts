/**
 * The processes of a container, as `ps` would show them: read from /proc by the pids of its cgroup.
 *
 * Trap: what a guest has in its /proc is a guest's word: a number that is none counts as 0.
 */
import * as Effect from "effect/Effect"
import { inside } from "./UserRanges.ts"
import type { ProcessFacts, SystemFiles } from "../host/SystemFiles.ts"

export interface ListedProcess {
  /** As the system that it runs on numbers it. */
  readonly pid: number
  /** As the container numbers it. */
  readonly innerPid: number
  readonly parent: number
  /** As the container numbers it. */
  readonly uid: number
  /** The letter of proc_pid_stat(5): R, S, D, Z… */
  readonly state: string
  readonly cpuMillis: number
  readonly memoryBytes: number
  /** Milliseconds since it was started. */
  readonly age: number
  /** Its words; the name in brackets where it has none. */
  readonly command: string
}

/** USER_HZ and the page size, the same on every architecture that this runs on. */
const [TICKS, PAGE] = [100, 4_096]
const MOST_COMMAND = 1_024

/** What a text says, where that is a number that there can be. */
const count = (text: string | undefined, otherwise = 0): number => {
  const value = Number(text ?? otherwise)
  return Number.isSafeInteger(value) && value >= 0 ? value : otherwise
}

const listed = (
  { command: words, pid, stat, status }: ProcessFacts,
  uptime: number,
  firstUser: number | undefined
): ListedProcess => {
  const close = stat.lastIndexOf(")")
  const fields = stat.slice(close + 2).split(" ")
  const field = (number: number) => count(fields[number - 3])
  const name = stat.slice(stat.indexOf("(") + 1, close)
  const command = words.replace(/\0+$/, "").replaceAll("\0", " ").slice(0, MOST_COMMAND)
  return {
    pid,
    innerPid: count(/^NSpid:.*\t(\d+)$/m.exec(status)?.[1], pid),
    parent: field(4),
    uid: inside(count(/^Uid:\t(\d+)/m.exec(status)?.[1]), firstUser),
    state: (fields[0] ?? "").slice(0, 1) || "?",
    cpuMillis: ((field(14) + field(15)) * 1_000) / TICKS,
    memoryBytes: field(24) * PAGE,
    age: Math.max(0, uptime * 1_000 - (field(22) * 1_000) / TICKS),
    command: command === "" ? `[${name}]` : command
  }
}

/** In the order of their pids in the container. `uptime`: of their system, in seconds. */
export const ordered = (
  facts: ReadonlyArray<ProcessFacts>,
  uptime: number,
  firstUser: number | undefined
): ReadonlyArray<ListedProcess> =>
  facts.map((one) => listed(one, uptime, firstUser)).sort((left, right) => left.innerPid - right.innerPid)

/** Those of a system that are still there. `firstUser`: of their user namespace, where they have one of their own. */
export const list = (
  files: SystemFiles,
  pids: ReadonlyArray<number>,
  firstUser: number | undefined
): Effect.Effect<ReadonlyArray<ListedProcess>> =>
  Effect.gen(function* () {
    const uptime = yield* files.uptime
    return ordered(yield* files.processes(pids), uptime, firstUser)
  })
