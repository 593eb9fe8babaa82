/**
 * Disks of sandboxes: what the containers of a microVM write, where a size was asked for (`EmptyDisk.ts`). Made before the sandbox
 * has its first machine; it outlives its machines and goes with the sandbox.
 *
 * Trap: it takes room of the host as it is written. What all of them may still take is kept free when another one is made; what
 * others write there meanwhile can use it up all the same, and a machine whose disk finds no room is ended.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { dirname } from "node:path"
import * as EmptyDisk from "../../storage/EmptyDisk.ts"
import * as DiskRoom from "../../storage/DiskRoom.ts"
import * as Files from "../../storage/Files.ts"
import * as KeyedLock from "../../storage/KeyedLock.ts"
import type { Processes } from "../../taproot/Processes.ts"
import { MicroVmFailed } from "../ContainerExit.ts"

/** Which no sandbox can have in its name. */
const DISK = ".disk"

/** The serial number by which a guest knows it; those of images are hexadecimal. */
export const SERIAL = "writable"

const mebibytes = (bytes: number): string => `${Math.floor(bytes / 1024 ** 2)} MiB`

export const make = (processes: Processes["Service"], directory: string) => {
  const locks = KeyedLock.make()
  const fileOf = (sandbox: string) => `${directory}/${sandbox}${DISK}`

  /** Bytes that the disks which are there may still take. */
  const promised = Effect.promise(async () => {
    const names = await fs.readdir(directory).catch((): Array<string> => [])
    let sum = 0
    for (const name of names.filter((one) => one.endsWith(DISK))) {
      const found = await fs.stat(`${directory}/${name}`).catch(() => undefined)
      if (found !== undefined) sum += Math.max(0, found.size - found.blocks * 512)
    }
    return sum
  })

  /** Why this host has no room for one; undefined when it has. */
  const lacking = (bytes: number): Effect.Effect<string | undefined> =>
    Effect.gen(function* () {
      // made with the first of them
      const { floor, left } = yield* DiskRoom.look(dirname(dirname(directory)))
      const others = yield* promised
      const room = Math.max(0, left - floor - others)
      return bytes <= room
        ? undefined
        : `the host's disk has room for one of ${mebibytes(room)} at most` +
            (others === 0 ? "" : `, besides the ${mebibytes(others)} that disks of other microVMs may still take`)
    }).pipe(Effect.orElseSucceed(() => undefined))

  /** The file with the disk of a sandbox, made if it is not there. */
  const prepare = (sandbox: string, bytes: number): Effect.Effect<string, MicroVmFailed> =>
    locks.withLock(sandbox)(
      Effect.gen(function* () {
        const file = fileOf(sandbox)
        const problem = (yield* Files.exists(file)) ? undefined : yield* lacking(bytes)
        if (problem !== undefined) return yield* Effect.fail(problem)
        yield* EmptyDisk.make(processes, file, bytes)
        return file
      }).pipe(Effect.mapError((detail) => new MicroVmFailed({ name: sandbox, detail: `its disk: ${detail}` })))
    )

  /** Fine when there is none. */
  const remove = (sandbox: string): Effect.Effect<void> =>
    Effect.promise(async () => {
      for (const file of [fileOf(sandbox), EmptyDisk.unfinished(fileOf(sandbox))])
        await fs.rm(file, { force: true }).catch(() => {})
    })

  return { lacking, prepare, remove }
}
