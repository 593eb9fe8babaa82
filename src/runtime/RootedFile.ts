/**
 * Reads a file (or opens a directory) inside a container's root file system from the host, treating that root as `/`.
 *
 * The tree is the work of strangers: `/etc` may be a link to `/proc/1/root/etc`, `/etc/passwd` a fifo or a device. Every
 * component is opened by itself, without following links, relative to the directory opened before (`/proc/self/fd/N`:
 * Node has no `openat2`); links are resolved by hand and `..` stops at the root. Nothing but a regular file is read, and
 * never more than the given size.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { constants } from "node:fs"
import { type FileHandle, open, readlink } from "node:fs/promises"

/** The file is there but is not read: no regular file, too many links, too large, no permission. */
export class RootedFileRefused extends Schema.TaggedError<RootedFileRefused>()("RootedFileRefused", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.path} in the root file system: ${this.problem}`
  }
}

// Not in node:fs; the same on every architecture that Node runs on here (asm-generic/fcntl.h).
const O_PATH = 0o10000000
const MAXIMUM_LINKS = 40

const components = (path: string): Array<string> => path.split("/").filter((part) => part !== "" && part !== ".")

/** Opens `path` below `root` as an O_PATH handle, whatever it is; undefined when it does not exist. */
const walk = async (root: string, path: string): Promise<FileHandle | undefined> => {
  const directories = [await open(root, O_PATH | constants.O_DIRECTORY)]
  const pending = components(path)
  let links = 0
  let found: FileHandle | undefined
  try {
    while (pending.length > 0) {
      const name = pending.shift()
      const directory = directories.at(-1)
      if (name === undefined || directory === undefined) break
      if (name === "..") {
        if (directories.length > 1) await directories.pop()?.close()
        continue
      }
      const entry = `/proc/self/fd/${directory.fd}/${name}`
      const handle = await open(entry, O_PATH | constants.O_NOFOLLOW)
      const stat = await handle.stat()
      if (stat.isSymbolicLink()) {
        await handle.close()
        if (++links > MAXIMUM_LINKS) throw new RootedFileRefused({ path, problem: "too many symbolic links" })
        // The text may have changed since: no harm, it is walked like everything else.
        const target = await readlink(entry)
        if (target.startsWith("/")) await Promise.all(directories.splice(1).map((opened) => opened.close()))
        pending.unshift(...components(target))
      } else if (stat.isDirectory()) {
        directories.push(handle)
      } else if (pending.length > 0) {
        await handle.close()
        return undefined
      } else {
        found = handle
      }
    }
    return found ?? directories.pop()
  } catch (error) {
    if (Predicate.hasProperty(error, "code") && (error.code === "ENOENT" || error.code === "ENOTDIR")) return undefined
    throw error
  } finally {
    await Promise.all(directories.map((opened) => opened.close()))
  }
}

const readRooted = async (root: string, path: string, maximumBytes: number): Promise<Uint8Array | undefined> => {
  const found = await walk(root, path)
  if (found === undefined) return undefined
  try {
    const stat = await found.stat()
    if (stat.isDirectory()) return undefined
    if (!stat.isFile()) throw new RootedFileRefused({ path, problem: "is no regular file" })
    if (stat.size > maximumBytes) {
      throw new RootedFileRefused({ path, problem: `has ${stat.size} bytes, more than ${maximumBytes}` })
    }
    const readable = await open(`/proc/self/fd/${found.fd}`, constants.O_RDONLY)
    try {
      const buffer = Buffer.alloc(stat.size)
      const { bytesRead } = await readable.read(buffer, 0, buffer.length, 0)
      return buffer.subarray(0, bytesRead)
    } finally {
      await readable.close()
    }
  } finally {
    await found.close()
  }
}

/** Opens the directory `path` (as the container names it) below `root`; undefined when there is none. */
export const openDirectoryInRoot = async (root: string, path: string): Promise<FileHandle | undefined> => {
  const found = await walk(root, path)
  if (found === undefined || (await found.stat()).isDirectory()) return found
  await found.close()
  return undefined
}

/** The content of `path` (as the container names it) below `root`; none when there is no such file. */
export const readFileInRoot = (
  root: string,
  path: string,
  maximumBytes: number
): Effect.Effect<Option.Option<Uint8Array>, RootedFileRefused> =>
  Effect.tryPromise({
    try: () => readRooted(root, path, maximumBytes),
    catch: (error) =>
      error instanceof RootedFileRefused
        ? error
        : new RootedFileRefused({ path, problem: error instanceof Error ? error.message : String(error) })
  }).pipe(Effect.map(Option.fromUndefinedOr))
