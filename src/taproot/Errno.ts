/**
 * Kernel error numbers as people read them. taproot reports the bare `errno` of a failed system call; the words are
 * added here, so that the C side needs no tables.
 */
import { getSystemErrorMap } from "node:util"

const errors = getSystemErrorMap()

/** Symbol and meaning of an errno: `ENOENT, no such file or directory`. */
export const describeErrno = (errno: number): string => {
  const known = errors.get(-errno)
  return known === undefined ? `errno ${errno}` : `${known[0]}, ${known[1]}`
}
