/**
 * A container's output, entry by entry, over as many connections as it takes.
 *
 * {@link stream} follows a log through restarts of Ironwood's brain: it remembers the time of the last entry and how many
 * entries had that time (all lines read at once share one), asks again from that time, and leaves those out. So nothing is
 * shown twice and nothing is lost. Without `follow` it reads to the end and is done.
 *
 * Traps: with `follow` an address where nobody ever listened is tried for ever; ask for the container first. The stream reads
 * ahead: who stops it and wants to read on later keeps a {@link Cursor} of his own, moved ({@link after}) over the entries he
 * is done with, not over those that were on their way to him.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { Timestamp } from "@bufbuild/protobuf/wkt"
import { ContainerService, type LogEntry, type LogStream } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { type Connection, status } from "./Client.ts"
import type { Failure } from "./Failure.ts"

/** Which output to read. */
export interface Options {
  readonly name: string
  readonly follow: boolean
  readonly tail?: number
  readonly since?: Timestamp
  readonly until?: Timestamp
  readonly streams: ReadonlyArray<LogStream>
}

/** Where a reader is: the time of the last entry and how many entries of that time it has had. */
export interface Cursor {
  readonly time: Timestamp | undefined
  readonly count: number
}

/** Before the first entry. */
export const start: Cursor = { time: undefined, count: 0 }

const sameTime = (a: Timestamp | undefined, b: Timestamp | undefined): boolean =>
  a !== undefined && b !== undefined && a.seconds === b.seconds && a.nanos === b.nanos

/** The cursor behind these entries too. */
export const after = (cursor: Cursor, entries: ReadonlyArray<LogEntry>): Cursor =>
  entries.reduce<Cursor>(
    ({ count, time }, entry) => ({ time: entry.time, count: sameTime(entry.time, time) ? count + 1 : 1 }),
    cursor
  )

/** Entries after the cursor from one call. */
const once = (connection: Connection, options: Options, { count, time }: Cursor): Stream.Stream<LogEntry, Failure> =>
  Stream.suspend(() => {
    let skip = count
    const { tail, since, ...rest } = options
    return connection
      .stream(ContainerService.method.streamContainerLogs, {
        ...rest,
        streams: [...options.streams],
        ...(time === undefined
          ? { ...(tail === undefined ? {} : { tail }), ...(since === undefined ? {} : { since }) }
          : { since: time })
      })
      .pipe(
        Stream.flatMap(({ entries }) => Stream.fromIterable(entries)),
        Stream.filter((entry) => {
          if (skip === 0 || !sameTime(entry.time, time)) return true
          skip--
          return false
        })
      )
  })

/**
 * The entries. With `follow`, until interrupted or until the container is removed; a lost connection is tried again for as long as
 * it takes. Those before the cursor are left out.
 */
export const stream = (
  connection: Connection,
  options: Options,
  cursor: Cursor = start
): Stream.Stream<LogEntry, Failure> => {
  if (!options.follow) return once(connection, options, cursor)
  return Stream.callback<LogEntry, Failure>(
    (queue) =>
      Effect.gen(function* () {
        // what the queue has: this stream goes on from there when a connection is lost
        let queued = cursor
        for (let attempt = 0; ; attempt++) {
          const error = yield* once(connection, options, queued).pipe(
            Stream.runForEach((entry) => {
              attempt = 0
              queued = after(queued, [entry])
              return Queue.offer(queue, entry)
            }),
            Effect.as("end" as const),
            Effect.catch((error) => Effect.succeed(error))
          )
          if (error === "end") return yield* Queue.end(queue)
          const mends = error.status === status.unavailable || error.status === status.cancelled
          if (!mends) return yield* Queue.fail(queue, error)
          yield* Effect.sleep(Math.min(2000, 50 * 2 ** Math.min(attempt, 10)))
        }
      }),
    { bufferSize: 256 }
  )
}
