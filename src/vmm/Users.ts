/**
 * Whom hypervisors run as: each machine a user of its own, which is given to another only when nothing runs as it any more.
 *
 * Trap: a process that the kernel cannot end at once (dead storage) outlives its machine's record, with that machine's disks
 * open: so what runs is asked, too.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"

/** Below all users that distributions, systemd and container managers give away. */
const FIRST_USER = 1_900_000_000

const usersOf = async (pid: string): Promise<ReadonlyArray<number>> => {
  // one that has ended meanwhile runs as nobody
  const status = await fs.readFile(`/proc/${pid}/status`, "utf8").catch(() => "")
  return (/^Uid:(.*)$/m.exec(status)?.[1] ?? "").trim().split(/\s+/).map(Number)
}

/** As whom something runs on this host: real, effective, saved and filesystem users of all processes. */
export const running: Effect.Effect<ReadonlySet<number>> = Effect.promise(async () => {
  const found = new Set<number>()
  for (const pid of await fs.readdir("/proc")) {
    if (/^\d+$/.test(pid)) for (const user of await usersOf(pid)) found.add(user)
  }
  return found
})

/** The lowest that is not taken. */
export const lowestFree = (taken: ReadonlySet<number>): number => {
  let user = FIRST_USER
  while (taken.has(user)) user++
  return user
}
