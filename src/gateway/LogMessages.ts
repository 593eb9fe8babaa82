/**
 * The output of a container on the wire: entries in messages of bounded size, as many as are at hand.
 *
 * Traps: `until` is kept here, as the log itself knows only where to begin. With `follow` the stream must end when that
 * time has come even if nothing is written any more.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Proto from "../../proto/generated/ironwood/v1/container_pb.ts"
import type { Containers } from "../runtime/Containers.ts"
import type { LogOptions } from "../storage/logs/LogRetention.ts"
import type { LogEntry } from "../storage/logs/LogEntry.ts"
import { invalid } from "./Request.ts"
import type { InvalidRequest } from "./Request.ts"
import { nanosOf, timestampOfNanos } from "./Time.ts"

/** Where entries come from. */
type Logs = Containers["Service"]["logs"]

const streams = { stdout: Proto.LogStream.STDOUT, stderr: Proto.LogStream.STDERR } as const

/** An entry as it goes over the wire. */
export const entryToProto = (entry: LogEntry): MessageInitShape<typeof Proto.LogEntrySchema> => ({
  time: timestampOfNanos(entry.time),
  stream: streams[entry.stream],
  line: entry.content,
  partial: !entry.complete
})

/** Bytes of output per message: far below the largest message, and enough to make its overhead small. */
const messageBytes = 64 * 1024
/** What an entry counts beside its content. */
const entryBytes = 32

/** Entries cut into messages. A single entry is at most 16 KiB. */
export const messagesOf = (
  entries: ReadonlyArray<LogEntry>
): ReadonlyArray<MessageInitShape<typeof Proto.StreamContainerLogsResponseSchema>> => {
  const messages: Array<{ readonly entries: Array<MessageInitShape<typeof Proto.LogEntrySchema>> }> = []
  let room = 0
  for (const entry of entries) {
    const size = entry.content.length + entryBytes
    if (size > room || messages.length === 0) {
      messages.push({ entries: [] })
      room = messageBytes
    }
    messages.at(-1)?.entries.push(entryToProto(entry))
    room -= size
  }
  return messages
}

/** What is asked of the log; fails for streams that do not exist and for times in the wrong order. */
const optionsOf = (request: Proto.StreamContainerLogsRequest): Effect.Effect<LogOptions, InvalidRequest> => {
  const wanted: Array<"stdout" | "stderr"> = []
  for (const [index, stream] of request.streams.entries()) {
    if (stream === Proto.LogStream.STDOUT || stream === Proto.LogStream.UNSPECIFIED) wanted.push("stdout")
    if (stream === Proto.LogStream.STDERR || stream === Proto.LogStream.UNSPECIFIED) wanted.push("stderr")
    if (stream > Proto.LogStream.STDERR || stream < 0) {
      return Effect.fail(invalid(`streams[${index}]`, "is neither standard output nor standard error"))
    }
  }
  const since = request.since && nanosOf(request.since)
  const until = request.until && nanosOf(request.until)
  if (since !== undefined && until !== undefined && until < since) {
    return Effect.fail(invalid("until", "must not be before since"))
  }
  return Effect.succeed({
    follow: request.follow,
    ...(request.tail === undefined ? {} : { tail: request.tail }),
    ...(since === undefined ? {} : { since }),
    ...(wanted.length === 0 ? {} : { streams: wanted })
  })
}

/** Ends with the first entry that was read at `until` or later, and at the latest when that time has come. */
const endingAt =
  (until: bigint) =>
  <E, R>(entries: Stream.Stream<LogEntry, E, R>): Stream.Stream<LogEntry, E, R> =>
    entries.pipe(
      Stream.takeWhile(({ time }) => time < until),
      Stream.interruptWhen(
        Effect.flatMap(Clock.currentTimeNanos, (now) =>
          until <= now ? Effect.never : Effect.sleep(Duration.nanos(until - now))
        )
      )
    )

/** The messages that answer a request. */
export const logMessages = (logs: Logs, request: Proto.StreamContainerLogsRequest) =>
  Stream.unwrap(
    Effect.map(optionsOf(request), (options) => {
      const until = request.until && nanosOf(request.until)
      // What is followed up to a time that has passed already need not be followed at all.
      const past =
        until === undefined ? Effect.succeed(false) : Effect.map(Clock.currentTimeNanos, (now) => until <= now)
      const entries = Stream.unwrap(
        Effect.map(past, (isPast) => logs(request.name, isPast ? { ...options, follow: false } : options))
      )
      return (until === undefined ? entries : endingAt(until)(entries)).pipe(
        Stream.chunks,
        Stream.map(messagesOf),
        Stream.flattenIterable
      )
    })
  )
