/**
 * An empty disk for a guest: a sparse file with an ext4 file system, made in user space. Made under another name and published whole:
 * what is there under its own can be used.
 *
 * Trap: from the moment a guest has it its content is a stranger's: it is never mounted or read here.
 */
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { dirname } from "node:path"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import * as Files from "./Files.ts"
import type { Processes } from "../taproot/Processes.ts"

/** In MiB: its default is a part of the disk, all of which would be written. */
const JOURNAL = "8"

/** The least and the most bytes of one. */
export const BOUNDS = { minimum: 64 * 1024 * 1024, maximum: 2 ** 44 } as const

/** What it is called until it is whole. */
export const unfinished = (file: string): string => `${file}.new`

/** Makes `file`, of so many bytes, unless it is there; fails with what is wrong. Who else may make it has to wait. */
export const make = (processes: Processes["Service"], file: string, bytes: number): Effect.Effect<void, string> =>
  Effect.gen(function* () {
    const attempt = <A>(run: () => Promise<A>) =>
      Effect.tryPromise({ try: run, catch: (error) => (error instanceof Error ? error.message : String(error)) })
    const isThere = yield* Effect.promise(() =>
      fs.lstat(file).then(
        (found) => found.isFile(),
        () => false
      )
    )
    if (isThere) return
    const partial = unfinished(file)
    const made = Effect.gen(function* () {
      yield* attempt(async () => {
        await fs.mkdir(dirname(file), { recursive: true, mode: 0o700 })
        const handle = await fs.open(partial, "w", 0o600)
        await handle.truncate(bytes - (bytes % 4096)).finally(() => handle.close())
      })
      const options = ["-t", "ext4", "-b", "4096", "-m", "0", "-J", `size=${JOURNAL}`]
      const { exit, stderr } = yield* Effect.mapError(
        processes.run({ label: "mke2fs", argv: ["mke2fs", "-q", "-F", ...options, partial] }),
        ({ message }) => message
      )
      if (!ProcessExit.isSuccess(exit)) {
        const said = Buffer.from(stderr).toString("utf8").trim().slice(-500)
        return yield* Effect.fail(`mke2fs (package e2fsprogs) ${ProcessExit.describe(exit)}: ${said}`)
      }
      yield* attempt(async () => {
        const handle = await fs.open(partial, "r+")
        await handle.sync().finally(() => handle.close())
        await fs.rename(partial, file)
      })
      yield* Effect.mapError(Files.syncDirectory(dirname(file)), ({ message }) => message)
    })
    yield* Effect.onError(made, () => Effect.promise(() => fs.rm(partial, { force: true })))
  })
