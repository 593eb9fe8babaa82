/** The processes of a container, as `ps` would show them: read from /proc by the pids of its cgroup. */
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

const listed = (
  { command: words, pid, stat, status }: ProcessFacts,
  uptime: number,
  firstUser: number | undefined
): ListedProcess => {
  const close = stat.lastIndexOf(")")
  const fields = stat.slice(close + 2).split(" ")
  const field = (number: number) => Number(fields[number - 3] ?? 0)
  const name = stat.slice(stat.indexOf("(") + 1, close)
  const command = words.replace(/\0+$/, "").replaceAll("\0", " ").slice(0, MOST_COMMAND)
  return {
    pid,
    innerPid: Number(/^NSpid:.*\t(\d+)$/m.exec(status)?.[1] ?? pid),
    parent: field(4),
    uid: inside(Number(/^Uid:\t(\d+)/m.exec(status)?.[1] ?? 0), firstUser),
    state: fields[0] ?? "?",
    cpuMillis: ((field(14) + field(15)) * 1_000) / TICKS,
    memoryBytes: field(24) * PAGE,
    age: Math.max(0, uptime * 1_000 - (field(22) * 1_000) / TICKS),
    command: command === "" ? `[${name}]` : command
  }
}

/** Those of a system that are still there. `firstUser`: of their user namespace, where they have one of their own. */
export const list = (
  files: SystemFiles,
  pids: ReadonlyArray<number>,
  firstUser: number | undefined
): Effect.Effect<ReadonlyArray<ListedProcess>> =>
  Effect.gen(function* () {
    const uptime = yield* files.uptime
    const found = yield* files.processes(pids)
    return found.map((facts) => listed(facts, uptime, firstUser)).sort((left, right) => left.innerPid - right.innerPid)
  })
