/** Log entries as protobuf messages, batched within bounds. */
import { create, fromJson } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import { LogStream, StreamContainerLogsRequestSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import { logMessages, messagesOf } from "../../src/gateway/LogMessages.ts"
import type { LogOptions } from "../../src/storage/logs/LogRetention.ts"
import type { LogEntry } from "../../src/storage/logs/LogEntry.ts"

const entry = (millis: number, size = 5): LogEntry => ({
  time: BigInt(millis) * 1_000_000n,
  stream: "stdout",
  complete: true,
  content: new Uint8Array(size)
})

/** A log with an entry at each second from 1 to 5, which goes on for ever when followed. */
const log = (asked: Array<LogOptions>) => (_: string, options?: LogOptions) => {
  asked.push(options ?? {})
  const kept = Stream.fromIterable([1, 2, 3, 4, 5].map((second) => entry(second * 1_000)))
  return options?.follow === true ? Stream.concat(kept, Stream.never) : kept
}

const request = (fields: { follow?: boolean; since?: number; until?: number; streams?: Array<LogStream> }) =>
  create(StreamContainerLogsRequestSchema, {
    name: "web",
    follow: fields.follow ?? false,
    ...(fields.since === undefined ? {} : { since: timestampFromMs(fields.since) }),
    ...(fields.until === undefined ? {} : { until: timestampFromMs(fields.until) }),
    streams: fields.streams ?? []
  })

/** A newer client may know streams that we do not. */
const withUnknownStream = fromJson(StreamContainerLogsRequestSchema, { name: "web", streams: ["LOG_STREAM_STDOUT", 7] })

const secondsOf = (messages: ReadonlyArray<ReturnType<typeof messagesOf>[number]>) =>
  messages.flatMap(({ entries }) => (entries ?? []).map(({ time }) => Number(time?.seconds)))

describe("LogMessages", () => {
  it("messages are bounded, and nothing is lost", () => {
    const entries = Array.from({ length: 1_000 }, (_, index) => entry(index, (index * 37) % 16_384))
    const messages = messagesOf(entries)
    assert.isAbove(messages.length, 10)
    let count = 0
    for (const { entries: some = [] } of messages) {
      count += some.length
      assert.isAtMost(
        some.reduce((sum, { line }) => sum + (line?.length ?? 0), 0),
        64 * 1024
      )
    }
    assert.strictEqual(count, entries.length)
    assert.lengthOf(messagesOf([]), 0)
  })

  it.effect("hands on what is asked for", () =>
    Effect.gen(function* () {
      const asked: Array<LogOptions> = []
      const messages = yield* Stream.runCollect(
        logMessages(log(asked), request({ since: 1_500, streams: [LogStream.STDERR] }))
      )
      assert.deepStrictEqual(asked, [{ follow: false, since: 1_500_000_000n, streams: ["stderr"] }])
      assert.deepStrictEqual(secondsOf(messages), [1, 2, 3, 4, 5])
    })
  )

  it.effect("ends before a time that has passed, followed or not", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("1 minute")
      for (const follow of [false, true]) {
        const messages = yield* Stream.runCollect(logMessages(log([]), request({ follow, until: 3_000 })))
        assert.deepStrictEqual(secondsOf(messages), [1, 2])
      }
    })
  )

  it.effect("follows up to a time to come", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(
        Stream.runCollect(logMessages(log([]), request({ follow: true, until: 60_000 })))
      )
      yield* TestClock.adjust("59 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(secondsOf(yield* Fiber.join(fiber)), [1, 2, 3, 4, 5])
    })
  )

  it.effect("refuses times in the wrong order and unknown streams", () =>
    Effect.gen(function* () {
      for (const [wrong, field] of [
        [request({ since: 2, until: 1 }), "until"],
        [withUnknownStream, "streams[1]"]
      ] as const) {
        const error = yield* Effect.flip(Stream.runDrain(logMessages(log([]), wrong)))
        assert.strictEqual(error._tag === "InvalidRequest" && error.violations[0]?.field, field)
      }
    })
  )
})
