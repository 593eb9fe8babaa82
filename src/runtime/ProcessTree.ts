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
import { readdir, readFile } from "node:fs/promises"
import { kill } from "node:process"

interface Entry {
  readonly pid: number
  readonly parent: number
  readonly session: number
}

/** Of `/proc/PID/stat`; undefined when it is gone or a zombie. */
const look = async (pid: string): Promise<Entry | undefined> => {
  const text = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => "")
  // the name in parentheses may hold anything
  const [state, parent, , session] = text.slice(text.lastIndexOf(")") + 2).split(" ")
  if (parent === undefined || session === undefined || state === "Z") return undefined
  return { pid: Number(pid), parent: Number(parent), session: Number(session) }
}

/** The process itself, unless it has ended, and what belongs to it. `known`: those met before, whose children count too. */
const belongingTo = async (
  leader: number,
  session: number | undefined,
  known: ReadonlySet<number>
): Promise<ReadonlyArray<number>> => {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name))
  const entries = (await Promise.all(pids.map(look))).filter((entry) => entry !== undefined)
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
export const killAll = (leader: number, taproot: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const [own, others] = yield* Effect.promise(() => Promise.all([look(String(leader)), look(String(taproot))]))
    const session = own?.session === others?.session ? undefined : own?.session
    const known = new Set([leader])
    for (let round = 0; round < ROUNDS; round++) {
      const found = yield* Effect.promise(() => belongingTo(leader, session, known))
      if (found.length === 0) return
      for (const pid of found) {
        known.add(pid)
        yield* Effect.ignore(Effect.try(() => kill(pid, "SIGKILL")))
      }
      yield* Effect.sleep("5 millis")
    }
  })
