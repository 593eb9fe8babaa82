/**
 * Disks of sandboxes: what the containers of a microVM write, where a size was asked for. A sparse file with an ext4 file system,
 * made in user space before the sandbox has its first machine; it outlives its machines and goes with the sandbox.
 *
 * Traps:
 * - The file is made under another name and published whole: what is there under its own can be used.
 * - From its first machine on its content is a guest's: it is never mounted or read here.
 * - It takes room of the host as it is written. What all of them may still take is kept free when another one is made; what others
 *   write there meanwhile can use it up all the same, and a machine whose disk finds no room is ended.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { dirname } from "node:path"
import * as DiskRoom from "../../storage/DiskRoom.ts"
import * as KeyedLock from "../../storage/KeyedLock.ts"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import type { Processes } from "../../taproot/Processes.ts"
import { MicroVmFailed } from "../ContainerExit.ts"

/** Which no sandbox can have in its name. */
export const DISK = ".disk"

/** The serial number by which a guest knows it; those of images are hexadecimal. */
export const SERIAL = "writable"

/** In MiB: its default is a part of the disk, all of which would be written. */
const JOURNAL = "8"

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
        const failed = (detail: string) => new MicroVmFailed({ name: sandbox, detail: `its disk: ${detail}` })
        const attempt = <A>(run: () => Promise<A>) =>
          Effect.tryPromise({
            try: run,
            catch: (error) => failed(error instanceof Error ? error.message : String(error))
          })
        const file = fileOf(sandbox)
        const isThere = yield* Effect.promise(() =>
          fs.lstat(file).then(
            (found) => found.isFile(),
            () => false
          )
        )
        if (isThere) return file
        const problem = yield* lacking(bytes)
        if (problem !== undefined) return yield* failed(problem)
        const partial = `${file}.new`
        const made = Effect.gen(function* () {
          yield* attempt(async () => {
            await fs.mkdir(directory, { recursive: true, mode: 0o700 })
            const handle = await fs.open(partial, "w", 0o600)
            await handle.truncate(bytes - (bytes % 4096)).finally(() => handle.close())
          })
          const options = ["-t", "ext4", "-b", "4096", "-m", "0", "-J", `size=${JOURNAL}`]
          const { exit, stderr } = yield* Effect.mapError(
            processes.run({ label: `disk/${sandbox}`, argv: ["mke2fs", "-q", "-F", ...options, partial] }),
            ({ message }) => failed(message)
          )
          if (!ProcessExit.isSuccess(exit)) {
            const said = Buffer.from(stderr).toString("utf8").trim().slice(-500)
            return yield* failed(`mke2fs (package e2fsprogs) ${ProcessExit.describe(exit)}: ${said}`)
          }
          yield* attempt(async () => {
            const handle = await fs.open(partial, "r+")
            await handle.sync().finally(() => handle.close())
            await fs.rename(partial, file)
          })
          return file
        })
        return yield* Effect.onError(made, () => Effect.promise(() => fs.rm(partial, { force: true })))
      })
    )

  /** Fine when there is none. */
  const remove = (sandbox: string): Effect.Effect<void> =>
    Effect.promise(async () => {
      for (const file of [fileOf(sandbox), `${fileOf(sandbox)}.new`]) await fs.rm(file, { force: true }).catch(() => {})
    })

  return { lacking, prepare, remove }
}
