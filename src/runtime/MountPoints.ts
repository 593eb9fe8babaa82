/**
 * Mounts that Ironwood itself makes for containers, in taproot's mount namespace: made once, found again by a later brain, and
 * gone with taproot.
 *
 * Traps: taproot takes 16 mounts at once and refuses more, so they go through a gate here. What is mounted is seen through
 * {@link MountPoints.seen}: a brain may be in another mount namespace.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import * as fs from "node:fs/promises"
import { parseMountInfo } from "../host/CgroupLayout.ts"
import * as Files from "../storage/Files.ts"
import type { MountFailed, MountRequest, Processes } from "../taproot/Processes.ts"

export interface MountPoints {
  readonly isMounted: (target: string) => Effect.Effect<boolean>
  /** The target must be there. */
  readonly mount: (request: MountRequest) => Effect.Effect<void, MountFailed>
  /** Unmounts what is there, and removes the empty file or directory. Fine when there is nothing. */
  readonly remove: (target: string) => Effect.Effect<void>
  /** A path of the host as taproot has it, for us to open. */
  readonly seen: (path: string) => string
}

export const flags = { readOnly: 1n, noSetUid: 2n, noDevices: 4n, noPrograms: 8n, bind: 4096n } as const

const MNT_DETACH = 2
const AT_ONCE = 4

export const make = (processes: Processes["Service"]): MountPoints => {
  const gate = Semaphore.makeUnsafe(AT_ONCE)
  const known = new Set<string>()
  const { taprootPid } = processes.hello
  return {
    isMounted: Effect.fnUntraced(function* (target) {
      if (known.has(target)) return true
      // An earlier brain may have done it.
      const text = yield* Effect.promise(() => fs.readFile(`/proc/${taprootPid}/mountinfo`, "utf8"))
      if (!parseMountInfo(text).some(({ mountPoint }) => mountPoint === target)) return false
      known.add(target)
      return true
    }),
    mount: (request) =>
      Effect.tap(gate.withPermit(processes.mount(request)), () => Effect.sync(() => known.add(request.target))),
    remove: Effect.fnUntraced(function* (target) {
      known.delete(target)
      if (!(yield* Files.exists(target))) return
      yield* gate.withPermit(Effect.ignore(processes.unmount(target, MNT_DETACH)))
      // never what is in it: it may still be mounted
      yield* Effect.promise(() => fs.rmdir(target).catch(() => fs.rm(target, { force: true }).catch(() => undefined)))
    }),
    seen: (path) => `/proc/${taprootPid}/root${path}`
  }
}
