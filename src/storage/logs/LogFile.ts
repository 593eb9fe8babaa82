/**
 * The files behind one container's log, for one writer and any number of readers: `current.log`, and the full ones before
 * it as `1.log`, `2.log`… in the order they were filled.
 *
 * An append is on the disk as whole lines or not at all: what a dying brain left of a line is cut off when the file is
 * opened again, what a full disk left is cut off at once. Files are numbered by *ordinal*; the current one has the highest,
 * and keeps its ordinal when it is renamed, so a reader's position stays valid through rotations.
 *
 * Traps: nothing is synced; a power cut loses the last seconds of log. A failed append has left nothing behind and can be
 * tried again. After `close` appends do nothing and readers find nothing.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import type { LogRetention } from "./LogRetention.ts"

/** A place between two lines. */
export interface LogPosition {
  readonly ordinal: number
  readonly offset: number
}

export interface LogFile {
  /** Appends whole lines, all or none. */
  readonly append: (lines: Uint8Array) => Effect.Effect<void, LogFileFailed>
  /** Changes with every append; to wait for the next one. */
  readonly version: () => number
  /** Waits until the version is another than this, or the log is closed. */
  readonly changedSince: (version: number) => Effect.Effect<void>
  /** The end of what is written. */
  readonly end: Effect.Effect<LogPosition, LogFileFailed>
  /** The ordinals that exist, ascending. The last one is the current file. */
  readonly ordinals: Effect.Effect<ReadonlyArray<number>, LogFileFailed>
  /** A file for reading; undefined when it was rotated away. The caller closes it. */
  readonly open: (ordinal: number) => Effect.Effect<fs.FileHandle | undefined, LogFileFailed>
  /** Gives back the descriptor until the next append. */
  readonly rest: Effect.Effect<void>
  /** No more appends; readers that wait are woken, and `closed` tells them. */
  readonly close: Effect.Effect<void>
  readonly closed: () => boolean
}

/** The log's directory or files cannot be read or made. */
export class LogFileFailed extends Schema.TaggedError<LogFileFailed>()("LogFileFailed", {
  path: Schema.String,
  code: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.code}`
  }
}

const BLOCK = 65_536
const NEWLINE = 0x0a

const codeOf = (error: unknown): string =>
  Predicate.hasProperty(error, "code") && typeof error.code === "string" ? error.code : String(error)

/** The answer, or `otherwise` when it fails with this errno name. */
const unless = <A, B>(code: string, otherwise: B, answer: Promise<A>): Promise<A | B> =>
  answer.catch((error: unknown) => (codeOf(error) === code ? otherwise : Promise.reject(error)))

/** Reads exactly `length` bytes, or to the end of the file. */
export const readAt = async (handle: fs.FileHandle, offset: number, length: number): Promise<Buffer> => {
  const buffer = Buffer.allocUnsafe(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await handle.read(buffer, filled, length - filled, offset + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

/** Where the last whole line of a file ends. */
const endOfLastLine = async (handle: fs.FileHandle): Promise<number> => {
  let end = (await handle.stat()).size
  while (end > 0) {
    const start = Math.max(0, end - BLOCK)
    const newline = (await readAt(handle, start, end - start)).lastIndexOf(NEWLINE)
    if (newline >= 0) return start + newline + 1
    end = start
  }
  return 0
}

const listRotated = async (directory: string): Promise<ReadonlyArray<number>> => {
  const names = await fs.readdir(directory)
  return names
    .flatMap((name) => (/^[1-9]\d{0,14}\.log$/.test(name) ? [Number.parseInt(name, 10)] : []))
    .sort((left, right) => left - right)
}

/** The log kept in `directory`, which is made when it is not there. Touches nothing before the first use. */
export const make = (directory: string, retention: LogRetention): LogFile => {
  const lock = Semaphore.makeUnsafe(1)
  const currentPath = `${directory}/current.log`
  const pathOf = (ordinal: number) => `${directory}/${ordinal}.log`
  const waiting = new Set<() => void>()
  /** The end of what is written, once it was looked up. */
  let end: LogPosition | undefined
  let writing: fs.FileHandle | undefined
  let version = 0
  let closed = false

  const wake = (): void => {
    version++
    for (const resume of waiting) resume()
    waiting.clear()
  }

  /** Where the log ends. A torn last line is cut off, the one time that the file is looked at. */
  const locate = async (): Promise<LogPosition> => {
    if (end !== undefined) return end
    const rotated = await unless("ENOENT", [], listRotated(directory))
    const ordinal = (rotated.at(-1) ?? 0) + 1
    const handle = await unless("ENOENT", undefined, fs.open(currentPath, constants.O_RDWR))
    if (handle === undefined) return { ordinal, offset: 0 }
    try {
      const offset = await endOfLastLine(handle)
      await handle.truncate(offset)
      end = { ordinal, offset }
      return end
    } finally {
      await handle.close()
    }
  }

  const openForWriting = async (): Promise<fs.FileHandle> => {
    if (writing === undefined) {
      await fs.mkdir(directory, { recursive: true, mode: 0o700 })
      writing = await fs.open(currentPath, constants.O_RDWR | constants.O_CREAT, 0o600)
    }
    return writing
  }

  const closeWriting = async (): Promise<void> => {
    const handle = writing
    writing = undefined
    await handle?.close().catch(() => undefined)
  }

  const rotate = async ({ ordinal }: LogPosition): Promise<LogPosition> => {
    await closeWriting()
    await fs.rename(currentPath, pathOf(ordinal))
    end = { ordinal: ordinal + 1, offset: 0 }
    const rotated = await listRotated(directory)
    const surplus = rotated.length - (retention.maxFiles - 1)
    for (const old of rotated.slice(0, Math.max(0, surplus))) await fs.rm(pathOf(old))
    return end
  }

  const write = async (lines: Uint8Array): Promise<void> => {
    let at = await locate()
    if (at.offset > 0 && at.offset + lines.length > retention.maxBytes) at = await rotate(at)
    const handle = await openForWriting()
    let written = 0
    try {
      while (written < lines.length) {
        const { bytesWritten } = await handle.write(lines, written, lines.length - written, at.offset + written)
        written += bytesWritten
      }
    } catch (error) {
      await handle.truncate(at.offset).catch(() => undefined)
      throw error
    }
    end = { ordinal: at.ordinal, offset: at.offset + lines.length }
    wake()
  }

  const attempt = <A>(run: () => Promise<A>) =>
    Effect.tryPromise({ try: run, catch: (error) => new LogFileFailed({ path: directory, code: codeOf(error) }) })

  // Uninterruptible: a write under way cannot be taken back, and the next one must not overtake it.
  const locked = <A, E>(effect: Effect.Effect<A, E>) => Effect.uninterruptible(lock.withPermit(effect))

  return {
    version: () => version,
    closed: () => closed,
    append: (lines) => locked(Effect.suspend(() => (closed ? Effect.void : attempt(() => write(lines))))),
    changedSince: (seen) =>
      Effect.callback<void>((resume) => {
        if (closed || version !== seen) {
          resume(Effect.void)
          return undefined
        }
        const wakeUp = () => resume(Effect.void)
        waiting.add(wakeUp)
        return Effect.sync(() => waiting.delete(wakeUp))
      }),
    end: locked(attempt(async () => (closed ? { ordinal: 0, offset: 0 } : await locate()))),
    ordinals: locked(
      attempt(async () => {
        if (closed) return []
        const { ordinal } = await locate()
        return [...(await unless("ENOENT", [], listRotated(directory))), ordinal]
      })
    ),
    open: (ordinal) =>
      locked(
        attempt(async () => {
          if (closed) return undefined
          const { ordinal: last } = await locate()
          if (ordinal > last) return undefined
          const path = ordinal === last ? currentPath : pathOf(ordinal)
          return await unless("ENOENT", undefined, fs.open(path, constants.O_RDONLY))
        })
      ),
    rest: locked(Effect.promise(closeWriting)),
    close: locked(
      Effect.promise(async () => {
        closed = true
        wake()
        await closeWriting()
      })
    )
  }
}
