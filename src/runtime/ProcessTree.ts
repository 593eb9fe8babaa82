/**
 * All that a process has brought forth, for killing it: its descendants, and everything in the session that an OCI runtime has
 * made for it, which finds those whose parents have ended, too.
 *
 * Traps:
 * - Who has left the session *and* has lost its parent is not found (a daemon, as it means to be); it ends with its container.
 * - The session is that of whoever made it (crun's own process) or of the process itself, by runtime and terminal; it never is
 *   that of taproot, of which everything else may be.
 */
import * as Effect from "effect/Effect"
import type { ProcessFacts, SystemFiles } from "../host/SystemFiles.ts"

interface Entry {
  readonly pid: number
  readonly parent: number
  readonly session: number
}

/** Of `/proc/PID/stat`; undefined of a zombie. */
const entryOf = ({ pid, stat }: ProcessFacts): Entry | undefined => {
  // the name in parentheses may hold anything
  const [state, parent, , session] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  if (parent === undefined || session === undefined || state === "Z") return undefined
  return { pid, parent: Number(parent), session: Number(session) }
}

const look = (files: SystemFiles, pids?: ReadonlyArray<number>) =>
  Effect.map(files.processes(pids), (facts) => facts.flatMap((one) => entryOf(one) ?? []))

/** The process itself, unless it has ended, and what belongs to it. `known`: those met before, whose children count too. */
const belongingTo = (
  entries: ReadonlyArray<Entry>,
  leader: number,
  session: number | undefined,
  known: ReadonlySet<number>
): ReadonlyArray<number> => {
  const found = new Set(known)
  for (let size = -1; size !== found.size;) {
    size = found.size
    for (const entry of entries) {
      if (entry.pid === leader || entry.session === session || found.has(entry.parent)) found.add(entry.pid)
    }
  }
  return entries.filter(({ pid }) => found.has(pid)).map(({ pid }) => pid)
}

const ROUNDS = 10

/** Kills a process and what belongs to it, and looks again until nothing is left. `taproot`: whose session is not its own. */
export const killAll = (files: SystemFiles, leader: number, taproot: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const both = yield* look(files, [leader, taproot])
    const [own, others] = [leader, taproot].map((wanted) => both.find(({ pid }) => pid === wanted))
    const session = own?.session === others?.session ? undefined : own?.session
    const known = new Set([leader])
    for (let round = 0; round < ROUNDS; round++) {
      const found = belongingTo(yield* look(files), leader, session, known)
      if (found.length === 0) return
      for (const pid of found) {
        known.add(pid)
        yield* Effect.ignore(files.kill(pid))
      }
      yield* Effect.sleep("5 millis")
    }
  })
