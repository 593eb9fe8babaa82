/**
 * The log of one workload (a container, a VM) over all its runs: output of its processes in, CRI lines on disk (`LogEntry`, `LogFile`), read
 * again by people (`LogReader`).
 *
 * Every byte that taproot has served is stored exactly once, also when the brain dies between two instructions: a chunk of
 * output is pulled, written, and confirmed by pulling the next. What was written but not confirmed is served again with
 * the same time; `rest` finds the entries of that stream and time in the files, counts the output they stand for, and only
 * what comes after is written. Where nothing can be found because the line was torn, nothing was stored.
 *
 * Traps:
 * - Chunks of one stream must come one after the other; the two streams are independent.
 * - When the disk is full (there is no room for output any more: `DiskRoom.ts`), output waits (and with it, once its pipe is
 *   full, the program) for two seconds; then it is dropped until there is room again, and a line of `stderr` tells how much
 *   it was.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as DiskRoom from "../DiskRoom.ts"
import type { OutputChunk, OutputStream, Process } from "../../taproot/Processes.ts"
import type { LogOptions, LogRetention } from "./LogRetention.ts"
import { chunkCounter, formatChunk, formatTime, type LogEntry } from "./LogEntry.ts"
import * as LogFile from "./LogFile.ts"
import * as LogReader from "./LogReader.ts"

export interface ProcessLog {
  /** Stores a chunk of output. Never fails: see the traps. */
  readonly store: (chunk: OutputChunk) => Effect.Effect<void>
  /** The part of a chunk, perhaps served before, that is not stored yet. */
  readonly rest: (chunk: OutputChunk) => Effect.Effect<OutputChunk>
  /**
   * Stores both outputs of a process until they end, in fibers of the scope; output of an earlier process comes first.
   * Once per process and brain. Answers at once; what it answers is done when all is stored.
   */
  readonly attach: (process: Process) => Effect.Effect<Deferred.Deferred<void>, never, Scope.Scope>
  /** Tells in the scope, from now on, when output is dropped, and why; and with an empty text when it is stored again. */
  readonly onLoss: (tell: (why: string) => void) => Effect.Effect<void, never, Scope.Scope>
  readonly read: (options: LogOptions) => Stream.Stream<LogEntry, LogFile.LogFileFailed>
  /** Gives back the file descriptor until there is output again. */
  readonly idle: Effect.Effect<void>
  /** For good: readers that follow come to their end. The files stay. */
  readonly close: Effect.Effect<void>
}

const PATIENCE = { schedule: Schedule.spaced("200 millis"), times: 10 }

/** How much of the output that came at `time` on `stream` is in the files. */
const storedLength = (log: LogFile.LogFile, stream: OutputStream, time: bigint) => {
  const counter = chunkCounter(time, stream)
  return Effect.map(
    LogReader.walkBackward(log, (line) => !counter.visit(line)),
    () => counter.length()
  )
}

const lossWords = (code: string): string => (code === "ENOSPC" ? "the disk is full" : code)

const lossNotice = (time: bigint, bytes: number, code: string): string =>
  `${formatTime(time)} stderr F [ironwood: ${bytes} bytes of output were lost: ${lossWords(code)}]\n`

/** The log in `directory`. Touches nothing before the first use. */
export const make = (
  directory: string,
  retention: LogRetention,
  room: DiskRoom.OutputRoom = DiskRoom.unlimited
): ProcessLog => {
  const file = LogFile.make(directory, retention)
  let lost: { readonly time: bigint; readonly bytes: number; readonly reason: string } | undefined
  const listeners = new Set<(why: string) => void>()
  // Done when the output of the process before is stored. Holds nothing of it: restarts must not pile up memory.
  let previous = Deferred.makeUnsafe<void>()
  Deferred.doneUnsafe(previous, Effect.void)

  const store = (chunk: OutputChunk): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (chunk.bytes.length === 0) return Effect.void
      const lines = formatChunk(chunk.time, chunk.stream, chunk.bytes)
      const missed = lost
      const text =
        missed === undefined
          ? lines
          : Buffer.concat([Buffer.from(lossNotice(missed.time, missed.bytes, missed.reason)), lines])
      const append = Effect.flatMap(room.has(text.length), (has) =>
        has ? file.append(text) : Effect.fail(new LogFile.LogFileFailed({ path: directory, code: "ENOSPC" }))
      )
      // While output is being dropped anyway, one try per chunk is enough to notice that there is room again.
      return (missed === undefined ? Effect.retry(append, PATIENCE) : append).pipe(
        Effect.match({
          onSuccess: () => {
            if (lost !== undefined) for (const tell of listeners) tell("")
            lost = undefined
          },
          onFailure: ({ code }) => {
            if (lost?.reason !== code) for (const tell of listeners) tell(lossWords(code))
            const bytes = (lost?.bytes ?? 0) + chunk.bytes.length
            lost = { time: lost?.time ?? chunk.time, bytes, reason: code }
          }
        })
      )
    })

  const rest = (chunk: OutputChunk): Effect.Effect<OutputChunk> =>
    Effect.map(
      // A log that cannot be read is as good as empty: better a line twice than none.
      Effect.orElseSucceed(storedLength(file, chunk.stream, chunk.time), () => 0),
      (length) => (length === 0 ? chunk : { ...chunk, bytes: chunk.bytes.subarray(length) })
    )

  const storeStream = (process: Process, stream: OutputStream) =>
    Effect.suspend(() => {
      // Only the first chunk that an earlier brain's process gives may have been served, and stored, before.
      let perhapsStored = process.adopted
      return process.consume(stream, (chunk) => {
        if (!perhapsStored) return store(chunk)
        perhapsStored = false
        return Effect.flatMap(rest(chunk), store)
      })
    })

  return {
    store,
    rest,
    onLoss: (tell) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => {
            listeners.add(tell)
            if (lost !== undefined) tell(lossWords(lost.reason))
          }),
          () => Effect.sync(() => listeners.delete(tell))
        )
      ),
    read: (options) => LogReader.read(file, options),
    idle: file.rest,
    close: file.close,
    attach: (process) =>
      Effect.suspend(() => {
        const before = previous
        const done = Deferred.makeUnsafe<void>()
        previous = done
        let open = 2
        const end = Effect.sync(() => {
          if (--open === 0) Deferred.doneUnsafe(done, Effect.void)
        })
        const storing = (stream: OutputStream) =>
          Deferred.await(before).pipe(
            Effect.andThen(storeStream(process, stream)),
            Effect.ensuring(end),
            Effect.forkScoped
          )
        return storing("stdout").pipe(Effect.andThen(storing("stderr")), Effect.as(done))
      })
  }
}
