/**
 * Reads a container's log from its files: all of it or the last entries, one stream or both, to the end or going on with
 * what is written later.
 *
 * A reader holds one open file and one block of it, and nothing is kept for it by the writer: one that is slow or never
 * reads costs the same. If the files it has not read yet are rotated away meanwhile, it goes on with the oldest that is
 * left. Damaged lines are skipped.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { FileHandle } from "node:fs/promises"
import type { LogOptions } from "./LogRetention.ts"
import { type LogEntry, parseLine } from "./LogEntry.ts"
import { type LogFile, type LogFileFailed, type LogPosition, readAt } from "./LogFile.ts"

const BLOCK = 65_536
const NEWLINE = 0x0a

/** The lines of a file from the end (`size`, just after a newline) back to the beginning, each with its offset. */
export async function* linesBackward(
  handle: FileHandle,
  size: number
): AsyncGenerator<{ readonly offset: number; readonly line: Uint8Array }> {
  // `tail` holds the bytes of a line whose beginning is in an earlier block.
  let tail: Buffer = Buffer.alloc(0)
  let start = size
  while (start > 0) {
    const from = Math.max(0, start - BLOCK)
    const block = Buffer.concat([await readAt(handle, from, start - from), tail])
    // The last byte is the newline of the last line (in the first block), or belongs to a line cut at the block's end.
    let end = block.length
    while (end > 0) {
      // A negative offset would count from the end of the block.
      const newline = end < 2 ? -1 : block.lastIndexOf(NEWLINE, end - 2)
      if (newline < 0) break
      yield { offset: from + newline + 1, line: block.subarray(newline + 1, end - 1) }
      end = newline + 1
    }
    tail = Buffer.from(block.subarray(0, end))
    start = from
  }
  if (tail.length > 0) yield { offset: 0, line: tail.subarray(0, -1) }
}

const isWanted = (options: LogOptions) => {
  const { since, streams } = options
  return (entry: LogEntry): boolean =>
    (since === undefined || entry.time >= since) && (streams === undefined || streams.includes(entry.stream))
}

/** Opens a file of the log, and uses it. Undefined when it is not there any more. */
const withFile = <A>(log: LogFile, ordinal: number, use: (handle: FileHandle) => Promise<A>) =>
  Effect.acquireUseRelease(
    log.open(ordinal),
    (handle) => (handle === undefined ? Effect.undefined : Effect.promise(() => use(handle))),
    (handle) => Effect.promise(async () => handle?.close())
  )

/** Walks the lines from the newest to the oldest until `visit` answers true; answers where that one begins. */
export const walkBackward = (
  log: LogFile,
  visit: (line: Uint8Array) => boolean
): Effect.Effect<LogPosition | undefined, LogFileFailed> =>
  Effect.gen(function* () {
    const end = yield* log.end
    const ordinals = yield* log.ordinals
    for (const ordinal of ordinals.toReversed()) {
      if (ordinal > end.ordinal) continue
      const offset = yield* withFile(log, ordinal, async (handle) => {
        const size = ordinal === end.ordinal ? end.offset : (await handle.stat()).size
        for await (const { line, offset } of linesBackward(handle, size)) {
          if (visit(line)) return offset
        }
        return undefined
      })
      if (offset !== undefined) return { ordinal, offset }
    }
    return undefined
  })

/** Where the last `count` wanted entries begin; the end when none is wanted. */
const tailStart = (log: LogFile, count: number, wanted: (entry: LogEntry) => boolean) => {
  let left = count
  const isFirst = (line: Uint8Array): boolean => {
    const entry = parseLine(line)
    return entry !== undefined && wanted(entry) && --left === 0
  }
  return count <= 0 ? log.end : Effect.map(walkBackward(log, isFirst), (found) => found ?? BEGINNING)
}

/** The whole lines of a block, and the bytes after the last of them. */
const splitLines = (block: Buffer): { readonly entries: Array<LogEntry>; readonly rest: Buffer } => {
  const entries: Array<LogEntry> = []
  let start = 0
  for (let newline = block.indexOf(NEWLINE); newline >= 0; newline = block.indexOf(NEWLINE, start)) {
    const entry = parseLine(block.subarray(start, newline))
    if (entry !== undefined) entries.push(entry)
    start = newline + 1
  }
  return { entries, rest: block.subarray(start) }
}

/** Reads as the options say, from where they say. */
export const read = (log: LogFile, options: LogOptions): Stream.Stream<LogEntry, LogFileFailed> => {
  const { lines } = options
  if (lines === undefined || lines <= 0) {
    const begin = lines === undefined ? options.tail : 0
    return readFrom(
      log,
      options,
      begin === undefined ? Effect.succeed(BEGINNING) : tailStart(log, begin, isWanted(options))
    )
  }
  // the last entry of the line before the first of them
  let left = lines + 1
  const wanted = isWanted(options)
  const before = walkBackward(log, (line) => {
    const entry = parseLine(line)
    return entry !== undefined && entry.complete && wanted(entry) && --left === 0
  })
  return Stream.unwrap(
    Effect.map(before, (found) =>
      Stream.drop(readFrom(log, options, Effect.succeed(found ?? BEGINNING)), found === undefined ? 0 : 1)
    )
  )
}

const BEGINNING: LogPosition = { ordinal: 0, offset: 0 }

const readFrom = (
  log: LogFile,
  options: LogOptions,
  begin: Effect.Effect<LogPosition, LogFileFailed>
): Stream.Stream<LogEntry, LogFileFailed> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const wanted = isWanted(options)
      let position = yield* begin
      let file: { readonly handle: FileHandle; readonly ordinal: number } | undefined
      let rest: Buffer = Buffer.alloc(0)
      const close = Effect.promise(async () => {
        const open = file
        file = undefined
        await open?.handle.close()
      })
      yield* Effect.addFinalizer(() => close)

      /** Opens the file at `position`, or the oldest after it. */
      const openFile = Effect.gen(function* () {
        const ordinals = yield* log.ordinals
        const ordinal = ordinals.find((existing) => existing >= position.ordinal)
        if (ordinal === undefined) return
        const handle = yield* log.open(ordinal)
        if (handle === undefined) return
        if (ordinal !== position.ordinal) position = { ordinal, offset: 0 }
        file = { handle, ordinal }
      }).pipe(Effect.uninterruptible)

      const page: Effect.Effect<readonly [ReadonlyArray<LogEntry>, Option.Option<void>], LogFileFailed> = Effect.gen(
        function* () {
          while (true) {
            const seen = log.version()
            if (file === undefined) yield* openFile
            // What is behind the end of the current file may be a write that fails and is taken back: not read.
            const end = yield* log.end
            if (file !== undefined) {
              const { handle, ordinal } = file
              const limit = ordinal === end.ordinal ? Math.min(BLOCK, end.offset - position.offset) : BLOCK
              const block = limit <= 0 ? undefined : yield* Effect.promise(() => readAt(handle, position.offset, limit))
              if (block !== undefined && block.length > 0) {
                position = { ordinal, offset: position.offset + block.length }
                const lines = splitLines(Buffer.concat([rest, block]))
                rest = lines.rest
                return [lines.entries.filter(wanted), Option.some(undefined)] as const
              }
              if (ordinal < end.ordinal) {
                yield* close
                rest = Buffer.alloc(0)
                position = { ordinal: ordinal + 1, offset: 0 }
                continue
              }
            }
            if (options.follow !== true || log.closed()) return [[], Option.none()] as const
            yield* log.changedSince(seen)
          }
        }
      )
      return Stream.paginate(undefined, () => page)
    })
  )
