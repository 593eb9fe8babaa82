/**
 * Whether an Ironwood runs at an address of this machine, also while nobody answers there: its taproot lives on while the brain,
 * which serves the API, is replaced.
 *
 * taproot holds `lock` beside the socket and writes its pid into it; the one of the host is the first process. Trap: who may not
 * read the lock, or asks from another pid namespace, is told that none runs.
 */
import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import * as Address from "./Address.ts"

const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

/** Is there a process with this pid that has not ended? One that only waits to be reaped has. */
export const isAlive = (pid: number): boolean => {
  const stat = read(`/proc/${pid}/stat`)
  return stat !== "" && !/^ [ZX]/.test(stat.slice(stat.lastIndexOf(")") + 1))
}

/** Does the taproot of this address live? */
export const runsAt = (address: string): boolean => {
  const socket = Address.socketPath(address)
  if (socket === undefined) return false
  const pid = address === Address.hostAddress ? 1 : Number.parseInt(read(join(dirname(socket), "lock")), 10)
  // the lock outlives its taproot, and its pid may be another's by now
  return isAlive(pid) && read(`/proc/${pid}/comm`).trim() === "taproot"
}
