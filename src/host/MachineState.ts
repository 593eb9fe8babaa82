/**
 * Where a machine that boots into Ironwood keeps its state: made before the database is opened, so it cannot be an actor.
 * A brain that is not the first finds it mounted.
 *
 * So far it is memory, and what is in it ends with the machine.
 */
import * as Effect from "effect/Effect"
import { readFile } from "node:fs/promises"
import { type MountFailed, Processes } from "../taproot/Processes.ts"

const MS_NODEV = 4n

/** What holds the state directory. */
export interface MachineState {
  /** False: it ends with the machine. */
  readonly lasts: boolean
  readonly device: string
}

const isMounted = (directory: string): Effect.Effect<boolean> =>
  Effect.promise(async () => {
    const mounts = await readFile("/proc/self/mounts", "utf8")
    return mounts.split("\n").some((line) => line.split(" ")[1] === directory)
  })

/** Mounts what holds the state directory, unless it is. */
export const prepare = (directory: string): Effect.Effect<MachineState, MountFailed, Processes> =>
  Effect.gen(function* () {
    const processes = yield* Processes
    if (!(yield* isMounted(directory))) {
      yield* processes.mount({
        source: "tmpfs",
        target: directory,
        type: "tmpfs",
        flags: MS_NODEV,
        data: "mode=0700,size=50%"
      })
    }
    return { lasts: false, device: "tmpfs" }
  })
