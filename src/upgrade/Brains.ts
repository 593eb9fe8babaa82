/**
 * The brains that were installed, in `brains/` of the state directory: one directory each, called by the sha256 of its bundle.
 * What is there is whole: it is written beside its place, synced and renamed.
 *
 * Trap: read synchronously. It is looked at before there is a tree, and then seldom.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { createHash } from "node:crypto"
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { StorageFailed } from "../storage/ContentError.ts"
import * as Files from "../storage/Files.ts"
import { type Bundle, entryName, type Manifest, manifestOf } from "./Bundle.ts"
import { builtIn } from "./Record.ts"

export const directoryOf = (stateDirectory: string): string => join(stateDirectory, "brains")

/** What the files of a brain must be: `sha256 name` a line, as it was installed. */
const sumsName = "SHA256SUMS"

const sumOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** Which brain this process is: the one whose directory it was started from. */
export const selfOf = (directory: string, program: string | undefined): string =>
  program !== undefined && dirname(dirname(program)) === directory ? basename(dirname(program)) : builtIn

export const entryOf = (directory: string, brain: string): string => join(directory, brain, entryName)

/** Those that are there. */
export const list = (directory: string): ReadonlyArray<string> =>
  existsSync(directory) ? readdirSync(directory).filter((name) => /^[0-9a-f]{64}$/.test(name)) : []

/** What a brain says of itself, or what is wrong with its files: each is read and compared. */
export const inspect = (directory: string, brain: string): Result.Result<Manifest, string> => {
  const home = join(directory, brain)
  try {
    const sums = readFileSync(join(home, sumsName), "utf8")
    for (const line of sums.split("\n").filter((text) => text !== "")) {
      const [sum = "", name = ""] = line.split("  ")
      if (sumOf(readFileSync(join(home, name))) !== sum)
        return Result.fail(`${name} has changed since it was installed`)
    }
    return manifestOf(readFileSync(join(home, "manifest.json"), "utf8"))
  } catch (error) {
    return Result.fail(`it cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** Writes one; when this has succeeded it is on the disk. One that is there already and whole stays. */
export const write = Effect.fnUntraced(function* (
  directory: string,
  brain: string,
  { files }: Bundle
): Effect.fn.Return<void, StorageFailed> {
  if (list(directory).includes(brain) && Result.isSuccess(inspect(directory, brain))) return
  const home = join(directory, brain)
  const making = `${home}.new`
  const sums = [...files].map(([name, bytes]) => `${sumOf(bytes)}  ${name}\n`).join("")
  yield* Files.makeDirectory(directory)
  yield* Files.remove(making)
  yield* Files.makeDirectory(making)
  for (const [name, bytes] of [...files, [sumsName, Buffer.from(sums)] as const]) {
    const file = join(making, name)
    yield* Effect.scoped(
      Effect.gen(function* () {
        const handle = yield* Files.open(file, "wx")
        yield* Files.writeAll(handle, file, bytes)
        yield* Files.attempt("sync", file, () => handle.sync())
      })
    )
  }
  yield* Files.syncDirectory(making)
  yield* Files.remove(home)
  yield* Files.rename(making, home)
  yield* Files.syncDirectory(directory)
  // the directory itself may be new
  yield* Files.syncDirectory(dirname(directory))
})

/** Removes all but these, and what an interrupted upload left. */
export const keepOnly = (directory: string, brains: ReadonlySet<string>): void => {
  if (!existsSync(directory)) return
  for (const name of readdirSync(directory)) {
    if (/^[0-9a-f]{64}(\.new)?$/.test(name) && !brains.has(name)) {
      rmSync(join(directory, name), { recursive: true, force: true })
    }
  }
}
