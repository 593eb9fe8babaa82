/** The adapter over real connections: four kinds of calls, cancel, deadline, slow readers, forced ends. */
import { assert, describe, it } from "@effect/vitest"
import { status as Code } from "@grpc/grpc-js"
import type { CallOptions, Client, ServiceError } from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { EchoService } from "../../proto/generated/ironwood/test/v1/echo_pb.ts"
import { bidiStreaming, clientStreaming, serve, serverStreaming, service, unary } from "../../src/gateway/EffectGrpc.ts"
import { eventually } from "../support/eventually.ts"
import { call, collect, connect, exchange, open, send } from "./client.ts"

class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String }) {
  override get message() {
    return `refused: ${this.why}`
  }
}

/** What the handlers saw, for the tests to look at. */
interface Seen {
  counted: number
  running: number
  interrupted: number
}

/** The texts that make `Say` do something else than answer. */
const echo = (seen: Seen) => {
  const { method } = EchoService
  const lasting = Effect.acquireUseRelease(
    Effect.sync(() => void (seen.running += 1)),
    () => Effect.never,
    () => Effect.sync(() => void (seen.running -= 1))
  ).pipe(Effect.onInterrupt(() => Effect.sync(() => void (seen.interrupted += 1))))
  return service(EchoService, {
    say: unary(method.say, ({ text }) => {
      if (text === "wait") return lasting
      if (text === "slow") return Effect.delay(Effect.succeed({ text }), "300 millis")
      if (text === "die") return Effect.die(new Error("a secret"))
      if (text === "fail") return Effect.fail(new Refused({ why: "you said so" }))
      return Effect.succeed({ text })
    }),
    count: serverStreaming(method.count, ({ padding, to }) =>
      Stream.range(1, to).pipe(
        Stream.rechunk(1),
        Stream.tap(() => Effect.sync(() => void (seen.counted += 1))),
        Stream.map((value) => ({ value, padding: new Uint8Array(padding) })),
        Stream.concat(to === 0 ? Stream.fromEffect(lasting) : Stream.empty),
        Stream.ensuring(Effect.sync(() => void (seen.interrupted += 1)))
      )
    ),
    sum: clientStreaming(method.sum, (requests) =>
      Effect.map(
        Stream.runFold(
          requests,
          () => 0,
          (sum, { value }) => sum + value
        ),
        (sum) => ({ sum })
      )
    ),
    shout: bidiStreaming(method.shout, (requests) =>
      Stream.mapEffect(requests, ({ text }) =>
        text === "fail" ? Effect.fail(new Refused({ why: text })) : Effect.succeed({ text: text.toUpperCase() })
      )
    )
  })
}

/** A server on a free port of the loopback, a client of it, and what its handlers saw. */
const start = Effect.gen(function* () {
  const seen: Seen = { counted: 0, running: 0, interrupted: 0 }
  const { port } = yield* serve("127.0.0.1:0", [echo(seen)], {
    status: (error) => ({ code: Code.FAILED_PRECONDITION, details: error.message }),
    grace: "1 second"
  })
  const address = `127.0.0.1:${port}`
  return { seen, address, client: yield* connect(address) }
})

const { method } = EchoService

/** A stream of which nothing is read after the first message (grpc-js reads on and on where nobody ever reads at all). */
const openUnread = (
  client: Client,
  request: { readonly to: number; readonly padding: number },
  options?: CallOptions
) => {
  const stream = open(client, method.count, request, options)
  stream.once("data", () => void stream.pause())
  return stream
}

/** Waits until no more is produced. */
const halt = (seen: Seen) => {
  let before = -1
  return eventually(
    "production comes to a halt",
    Effect.delay(
      Effect.sync(() => {
        const halted = seen.counted > 0 && seen.counted === before
        before = seen.counted
        return halted
      }),
      "500 millis"
    )
  )
}

describe("EffectGrpc", () => {
  it.live("serves all four kinds of calls", () =>
    Effect.gen(function* () {
      const { client } = yield* start
      assert.strictEqual((yield* call(client, method.say, { text: "hello" })).text, "hello")
      const counted = yield* collect(client, method.count, { to: 1_000 })
      assert.deepStrictEqual(
        counted.map(({ value }) => value),
        Array.from({ length: 1_000 }, (_, index) => index + 1)
      )
      const numbers = Array.from({ length: 1_000 }, (_, index) => ({ value: index - 300 }))
      assert.strictEqual((yield* send(client, method.sum, numbers)).sum, 199_500)
      const shouted = yield* exchange(
        client,
        method.shout,
        ["a", "b", "c"].map((text) => ({ text }))
      )
      assert.deepStrictEqual(
        shouted.map(({ text }) => text),
        ["A", "B", "C"]
      )
      assert.deepStrictEqual(yield* exchange(client, method.shout, []), [])
    })
  )

  it.live("maps failures to statuses, also in the middle of a stream", () =>
    Effect.gen(function* () {
      const { client } = yield* start
      const unaryError = yield* Effect.flip(call(client, method.say, { text: "fail" }))
      assert.strictEqual(unaryError.code, Code.FAILED_PRECONDITION)
      assert.strictEqual(unaryError.details, "refused: you said so")
      const streamError = yield* Effect.flip(exchange(client, method.shout, [{ text: "a" }, { text: "fail" }]))
      assert.strictEqual(streamError.code, Code.FAILED_PRECONDITION)
    })
  )

  it.live("logs a defect and keeps its text from the client", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const capture = Logger.layer([
        Logger.make(({ cause, message }) => void lines.push(`${String(message)} ${String(cause)}`))
      ])
      const error = yield* Effect.provide(
        Effect.gen(function* () {
          const { client } = yield* start
          return yield* Effect.flip(call(client, method.say, { text: "die" }))
        }),
        capture
      )
      assert.strictEqual(error.code, Code.INTERNAL)
      assert.notInclude(error.details, "secret")
      assert.isTrue(lines.some((line) => line.includes("/ironwood.test.v1.EchoService/Say") && line.includes("secret")))
    })
  )

  it.live("interrupts the handler when the client cancels", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* start
      const fiber = yield* Effect.forkChild(call(client, method.say, { text: "wait" }))
      yield* eventually("the call runs", () => seen.running === 1)
      yield* Fiber.interrupt(fiber)
      yield* eventually("its finalizers ran", () => seen.running === 0 && seen.interrupted === 1)
    })
  )

  it.live("interrupts the handler when the client goes away", () =>
    Effect.gen(function* () {
      const { address, seen } = yield* start
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(connect(address), scope)
      const stream = open(client, method.count, { to: 0 })
      yield* eventually("the stream runs", () => seen.running === 1)
      stream.cancel()
      yield* Scope.close(scope, Exit.void)
      yield* eventually("its finalizers ran", () => seen.running === 0)
    })
  )

  it.live("interrupts the handler at the client's deadline", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* start
      const deadline = () => ({ deadline: Date.now() + 200 })
      const error = yield* Effect.flip(call(client, method.say, { text: "wait" }, deadline()))
      assert.strictEqual(error.code, Code.DEADLINE_EXCEEDED)
      yield* eventually("its finalizers ran", () => seen.running === 0 && seen.interrupted === 1)
      const streamError = yield* Effect.flip(collect(client, method.count, { to: 0 }, undefined, deadline()))
      assert.strictEqual(streamError.code, Code.DEADLINE_EXCEEDED)
      yield* eventually("its finalizers ran", () => seen.running === 0)
    })
  )

  it.live("produces no more than a client reads, and serves the others meanwhile", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* start
      const padding = 64 * 1024
      const stream = openUnread(client, { to: 100_000, padding })
      yield* Effect.addFinalizer(() => Effect.sync(() => stream.cancel()))
      yield* halt(seen)
      // What HTTP/2 windows and both ends' buffers hold: some megabytes, and not what was asked for.
      assert.isBelow(seen.counted * padding, 16 * 1024 * 1024)
      assert.strictEqual((yield* call(client, method.say, { text: "still here" })).text, "still here")
      const others = yield* collect(client, method.count, { to: 100, padding: 1024 })
      assert.lengthOf(others, 100)
      const finished = seen.interrupted
      stream.cancel()
      yield* eventually("its finalizers ran", () => seen.interrupted === finished + 1)
    })
  )

  it.live("keeps few messages for a client that does not read, the fewer the larger they are", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* start
      const stream = open(client, method.count, { to: 1_000, padding: 60 * 1024 })
      let read = 0
      stream.on("data", () => void (++read === 5 && stream.pause()))
      yield* Effect.addFinalizer(() => Effect.sync(() => stream.cancel()))
      yield* halt(seen)
      // beside the 5 the client has taken 16 ahead; the rest is in HTTP/2's window or waits
      assert.isBelow(seen.counted, 28)
    })
  )

  it.live("ends a stream at its deadline also when nobody reads it", () =>
    Effect.gen(function* () {
      const { client, seen } = yield* start
      const stream = openUnread(client, { to: 100_000, padding: 64 * 1024 }, { deadline: Date.now() + 300 })
      yield* eventually("its finalizers ran", () => seen.interrupted === 1)
      stream.cancel()
    })
  )

  it.live("refuses a request that is too large", () =>
    Effect.gen(function* () {
      const { client } = yield* start
      const error = yield* Effect.flip(call(client, method.say, { text: "x".repeat(5 * 1024 * 1024) }))
      assert.strictEqual(error.code, Code.RESOURCE_EXHAUSTED)
      assert.strictEqual((yield* call(client, method.say, { text: "after" })).text, "after")
    })
  )

  it.live("lets unary calls finish and ends streams when it stops", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { client, seen } = yield* Scope.provide(start, scope)
      const streamEnded = yield* Deferred.make<ServiceError>()
      const stream = open(client, method.count, { to: 0 })
      stream.on("error", (error: ServiceError) => Deferred.doneUnsafe(streamEnded, Effect.succeed(error)))
      yield* eventually("the stream runs", () => seen.running === 1)
      const slow = yield* Effect.forkChild(Effect.exit(call(client, method.say, { text: "slow" })))
      const waiting = yield* Effect.forkChild(Effect.exit(call(client, method.say, { text: "wait" })))
      yield* eventually("the calls run", () => seen.running === 2)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Deferred.await(streamEnded)).code, Code.UNAVAILABLE)
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(slow)))
      assert.isTrue(Exit.isFailure(yield* Fiber.join(waiting)))
      assert.strictEqual(seen.running, 0)
    })
  )

  it.live("says what is wrong with an address it cannot serve", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        serve("unix:/nonexistent/directory/socket", [echo({ counted: 0, running: 0, interrupted: 0 })], {
          status: () => ({ code: Code.UNKNOWN, details: "" })
        })
      )
      assert.strictEqual(error._tag, "BindFailed")
      assert.include(error.message, "/nonexistent/directory/socket")
    })
  )
})
