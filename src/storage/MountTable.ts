/**
 * The mounts of a mount namespace, as `/proc/PID/mountinfo` lists them (proc_pid_mountinfo(5)).
 *
 * Trap: the list is that of the process asked about. taproot has a mount namespace of its own, so what is mounted is its
 * answer, not necessarily ours.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import type { StorageFailed } from "./ContentError.ts"
import * as Files from "./Files.ts"

export interface MountPoint {
  readonly target: string
  readonly type: string
}

/** Spaces and the like are written as `\040`, in bytes. */
const unescape = (text: string): string =>
  text.includes("\\")
    ? Buffer.from(
        text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8))),
        "latin1"
      ).toString()
    : Buffer.from(text, "latin1").toString()

/**
 * The mounts in the lines of a mountinfo file (as latin1), in their order: a later one can cover an earlier one. With
 * `mentioning` only those whose lines hold this text: with a mount per container most of them are of no interest.
 */
export const parse = (mountinfo: string, mentioning = ""): ReadonlyArray<MountPoint> =>
  mountinfo.split("\n").flatMap((line) => {
    if (!line.includes(mentioning)) return []
    const words = line.split(" ")
    const target = words[4]
    const type = words[words.indexOf("-", 6) + 1]
    return target === undefined || type === undefined ? [] : [{ target: unescape(target), type }]
  })

/** The mounts that the process with this pid sees; `mentioning` as in {@link parse}. */
export const read = (pid: number, mentioning?: string): Effect.Effect<ReadonlyArray<MountPoint>, StorageFailed> => {
  const file = `/proc/${pid}/mountinfo`
  return Effect.map(
    Files.attempt("read", file, () => fs.readFile(file, "latin1")),
    (mountinfo) => parse(mountinfo, mentioning)
  )
}
