/**
 * What is left on the disk that has the state directory, and how much of that the output of containers may not have. Logs ask
 * an `OutputRoom` before they write, the storage actors show `look` in the tree.
 *
 * The floor is what makes room from the inside possible: a container that writes without end stops being stored while there is
 * still room for what everybody else does. It is no reserve; that the desired state can be committed on a disk without a single
 * byte is `StateReserve`'s business.
 *
 * Trap: a container's files go to the same disk by the kernel, past all of this.
 */
import * as Effect from "effect/Effect"
import { statfs } from "node:fs/promises"
import { performance } from "node:perf_hooks"

/** The floor: so many bytes, on a small disk this share of it. */
const FLOOR_BYTES = 64 * 1024 ** 2
const FLOOR_SHARE = 1 / 16

/** How long a look holds, in milliseconds, and for which part of the floor in bytes. */
const LOOK_AGAIN_AFTER = 1_000
const LOOK_AGAIN_SHARE = 1 / 8

export interface Look {
  /** Bytes. */
  readonly left: number
  readonly total: number
  readonly floor: number
}

/** Fails with the system's words. */
export const look = (directory: string): Effect.Effect<Look, string> =>
  Effect.tryPromise({ try: () => statfs(directory), catch: String }).pipe(
    Effect.map(({ bavail, blocks, bsize }) => {
      const total = blocks * bsize
      return { left: bavail * bsize, total, floor: Math.min(FLOOR_BYTES, Math.floor(total * FLOOR_SHARE)) }
    })
  )

/** How much of the disk is taken. */
export const usedPercent = ({ left, total }: Look): number => (100 * (total - left)) / Math.max(total, 1)

/** In words, with what helps. */
export const describe = ({ left, total }: Look): string =>
  `${(left / 1024 ** 2).toFixed(left < 10 * 1024 ** 2 ? 1 : 0)} MiB left on the disk ` +
  `(${((100 * left) / Math.max(total, 1)).toFixed(1)} %): make room with \`ironwood rm\` (a container goes with its log and ` +
  "its files), or with `ironwood image rm`"

/** The same of a disk where there is no room for output any more; else empty. One that output has filled is just above the floor. */
export const describeFull = (found: Look): string =>
  found.left < 1.5 * found.floor ? `the disk is full, containers' output is dropped: ${describe(found)}` : ""

export interface OutputRoom {
  /** Whether so many bytes of output may be stored. Asked before each write, by all who write on the disk. */
  readonly has: (bytes: number) => Effect.Effect<boolean>
}

/** For a disk of one's own. */
export const unlimited: OutputRoom = { has: () => Effect.succeed(true) }

/** That of the disk with this directory. A disk that cannot be asked has room: the write itself will tell. */
export const outputRoom = (directory: string): OutputRoom => {
  let allowance = 0
  let lookedAt = Number.NEGATIVE_INFINITY
  return {
    has: (bytes) =>
      Effect.suspend(() => {
        allowance -= bytes
        if (allowance >= 0 && performance.now() - lookedAt < LOOK_AGAIN_AFTER) return Effect.succeed(true)
        return Effect.match(look(directory), {
          onFailure: () => true,
          onSuccess: ({ floor, left }) => {
            const room = left - floor - bytes
            lookedAt = performance.now()
            allowance = Math.min(room, floor * LOOK_AGAIN_SHARE)
            return room >= 0
          }
        })
      })
  }
}
