/**
 * Serves protobuf services written as Effects and Streams with grpc-js.
 *
 * Each RPC is made by one of {@link unary}, {@link serverStreaming}, {@link clientStreaming} and {@link bidiStreaming}
 * from its descriptor and a handler; the types of both messages come from the descriptor. {@link service} checks that no
 * RPC of a service is missing; {@link serve} runs services on an address for as long as a scope is open.
 *
 * ```ts
 * const greeter = service(Greeter, {
 *   greet: unary(Greeter.method.greet, (request) => Effect.succeed({ text: `Hello ${request.name}` })),
 *   count: serverStreaming(Greeter.method.count, (request) => Stream.map(Stream.range(1, request.to), (value) => ({ value })))
 * })
 * ```
 *
 * What a handler can rely on:
 * - It runs in a fiber of its own, which is interrupted (finalizers run) when the client cancels, goes away or its
 *   deadline passes, and when the server stops.
 * - A response stream is pulled only as fast as the client reads: at most 64 KiB, 16 messages, or one that is larger wait in
 *   the process, encoded (as objects they take several times that), plus what HTTP/2 has buffered. A client that never reads
 *   costs that much and slows nobody else.
 * - A request stream is read only as fast as the handler pulls.
 * - A failure becomes a status by the `status` function given to `serve`; a defect is logged and becomes INTERNAL without
 *   its text.
 *
 * Traps: grpc-js tells of a deadline only after everything written has been flushed, which never happens for a client
 * that does not read; hence the deadline is kept here too. On a unix socket grpc-js does not know the peer.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import type { DescMessage, DescMethod, DescService, Message, MessageInitShape, MessageShape } from "@bufbuild/protobuf"
import { Metadata, Server, ServerCredentials, status as Code } from "@grpc/grpc-js"
import type {
  sendUnaryData,
  ServerDuplexStream,
  ServerReadableStream,
  ServerUnaryCall,
  ServerWritableStream
} from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** How a call ends badly: a gRPC status code, a sentence, and (in the metadata) details for programs. */
export interface GrpcStatus {
  readonly code: Code
  readonly details: string
  readonly metadata?: Metadata
}

/** The address cannot be served: taken, too long, not allowed, its directory missing… `reason` is the system's word. */
export class BindFailed extends Schema.TaggedError<BindFailed>()("BindFailed", {
  address: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `cannot listen on ${this.address}: ${this.reason}`
  }
}

/** One RPC: its descriptor and how to put it on a server. Made by {@link unary} and its siblings. */
export interface Method<E, R> {
  readonly descriptor: DescMethod
  readonly register: (server: Server, calls: Calls<E, R>) => void
}

/** A service with all its RPCs. Made by {@link service}. */
export interface Service<E, R> {
  readonly descriptor: DescService
  readonly methods: ReadonlyArray<Method<E, R>>
}

/** The descriptor of an RPC with the types of its kind and messages. */
type MethodOf<Kind extends DescMethod["methodKind"], I extends DescMessage, O extends DescMessage> = DescMethod & {
  readonly methodKind: Kind
  readonly input: I
  readonly output: O
}

/** What of a grpc-js call matters to every kind of call. */
interface AnyCall {
  readonly cancelled: boolean
  getDeadline(): Date | number
  on(event: "cancelled" | "error", listener: () => void): unknown
}

/** Runs the effect of one call in its own fiber and tells how it ended, unless the client is gone by then. */
interface Calls<E, R> {
  readonly run: <A>(path: string, call: AnyCall, effect: Effect.Effect<A, E, R>, end: (end: CallEnd<A>) => void) => void
  /** Why a request may not reach its handler, if so: see {@link ServeOptions.refuse}. */
  readonly refuse: (method: DescMethod, request: Message) => GrpcStatus | undefined
  /** Completes when the server begins to stop: streams end then, unary calls have the grace period. */
  readonly stopping: Effect.Effect<void>
}

type CallEnd<A> =
  | { readonly _tag: "Done"; readonly value: A }
  | { readonly _tag: "Failed"; readonly status: GrpcStatus }

const pathOf = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`

const serialize =
  <O extends DescMessage>(output: O) =>
  (message: MessageShape<O>): Buffer => {
    const bytes = toBinary(output, message)
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

/** For streams, which hand over bytes: see {@link writeAll}. */
const serialized = (bytes: Buffer): Buffer => bytes

const deserialize =
  <I extends DescMessage>(input: I) =>
  (bytes: Buffer): MessageShape<I> =>
    fromBinary(input, bytes)

/** One request, one response. */
export const unary = <I extends DescMessage, O extends DescMessage, E, R>(
  method: MethodOf<"unary", I, O>,
  handler: (request: MessageShape<I>) => Effect.Effect<MessageInitShape<O>, E, R>
): Method<E, R> => ({
  descriptor: method,
  register: (server, calls) =>
    void server.register(
      pathOf(method),
      (call: ServerUnaryCall<MessageShape<I>, MessageShape<O>>, callback: sendUnaryData<MessageShape<O>>) => {
        const end = answer(method.output, callback)
        const status = calls.refuse(method, call.request)
        if (status !== undefined) return end({ _tag: "Failed", status })
        return calls.run(
          pathOf(method),
          call,
          Effect.suspend(() => handler(call.request)),
          end
        )
      },
      serialize(method.output),
      deserialize(method.input),
      "unary"
    )
})

/** One request, a stream of responses. */
export const serverStreaming = <I extends DescMessage, O extends DescMessage, E, R>(
  method: MethodOf<"server_streaming", I, O>,
  handler: (request: MessageShape<I>) => Stream.Stream<MessageInitShape<O>, E, R>
): Method<E, R> => ({
  descriptor: method,
  register: (server, calls) =>
    void server.register(
      pathOf(method),
      (call: ServerWritableStream<MessageShape<I>, Buffer>) => {
        const end = finish(call)
        const status = calls.refuse(method, call.request)
        if (status !== undefined) return end({ _tag: "Failed", status })
        return calls.run(
          pathOf(method),
          call,
          Effect.suspend(() => writeAll(method.output, call, handler(call.request), calls.stopping)),
          end
        )
      },
      serialized,
      deserialize(method.input),
      "serverStream"
    )
})

/** A stream of requests, one response. */
export const clientStreaming = <I extends DescMessage, O extends DescMessage, E, R>(
  method: MethodOf<"client_streaming", I, O>,
  handler: (requests: Stream.Stream<MessageShape<I>>) => Effect.Effect<MessageInitShape<O>, E, R>
): Method<E, R> => ({
  descriptor: method,
  register: (server, calls) =>
    void server.register(
      pathOf(method),
      (call: ServerReadableStream<MessageShape<I>, MessageShape<O>>, callback: sendUnaryData<MessageShape<O>>) =>
        calls.run(
          pathOf(method),
          call,
          Effect.suspend(() => handler(requestsOf<MessageShape<I>>(call))),
          answer(method.output, callback)
        ),
      serialize(method.output),
      deserialize(method.input),
      "clientStream"
    )
})

/** A stream of requests and a stream of responses, each at its own pace. */
export const bidiStreaming = <I extends DescMessage, O extends DescMessage, E, R>(
  method: MethodOf<"bidi_streaming", I, O>,
  handler: (requests: Stream.Stream<MessageShape<I>>) => Stream.Stream<MessageInitShape<O>, E, R>
): Method<E, R> => ({
  descriptor: method,
  register: (server, calls) =>
    void server.register(
      pathOf(method),
      (call: ServerDuplexStream<MessageShape<I>, Buffer>) =>
        calls.run(
          pathOf(method),
          call,
          Effect.suspend(() =>
            writeAll(method.output, call, handler(requestsOf<MessageShape<I>>(call)), calls.stopping)
          ),
          finish(call)
        ),
      serialized,
      deserialize(method.input),
      "bidi"
    )
})

/** What a method or service can fail with. */
export type ErrorOf<M> = M extends Method<infer E, unknown> | Service<infer E, unknown> ? E : never

/** What a method or service needs. */
export type ServicesOf<M> = M extends Method<unknown, infer R> | Service<unknown, infer R> ? R : never

/** A service with every one of its RPCs; the compiler names a missing one. */
export function service<
  S extends DescService,
  const M extends { readonly [Name in keyof S["method"]]: Method<unknown, unknown> }
>(descriptor: S, methods: M): Service<ErrorOf<M[keyof M]>, ServicesOf<M[keyof M]>>
export function service<E, R>(
  descriptor: DescService,
  methods: { readonly [name: string]: Method<E, R> }
): Service<E, R> {
  return { descriptor, methods: Object.values(methods) }
}

/** The end of a call with a single response. */
const answer =
  <O extends DescMessage>(output: O, callback: sendUnaryData<MessageShape<O>>) =>
  (end: CallEnd<MessageInitShape<O>>): void =>
    end._tag === "Done" ? callback(null, create(output, end.value)) : callback(end.status)

/** The end of a call with a stream of responses. grpc-js takes the status of a bad end as an `error` event. */
const finish =
  (call: { end(): void; emit(event: "error", status: GrpcStatus): unknown }) =>
  (end: CallEnd<void>): void =>
    void (end._tag === "Done" ? call.end() : call.emit("error", end.status))

/** What may wait for a client to read it: bytes, and what a message counts at least. */
const responsesAhead = { bytes: 64 * 1024, perMessage: 4 * 1024 }

/** Writes a stream to a call, pulling the next message only when there is room for it. */
const writeAll = <O extends DescMessage, E, R>(
  output: O,
  call: { write(message: Buffer, passedOn: () => void): unknown },
  responses: Stream.Stream<MessageInitShape<O>, E, R>,
  stopping: Effect.Effect<void>
): Effect.Effect<void, E, R> => {
  const encode = serialize(output)
  let waiting = 0
  let wake = (): void => {}
  const room = Effect.callback<void>((resume) => {
    wake = () => {
      if (waiting < responsesAhead.bytes) resume(Effect.void)
    }
    // there may be room by now
    wake()
  })
  return Effect.raceFirst(
    Stream.runForEach(responses, (response) =>
      Effect.suspend(() => {
        const message = encode(create(output, response))
        const weight = Math.max(message.length, responsesAhead.perMessage)
        waiting += weight
        call.write(message, () => {
          waiting -= weight
          wake()
        })
        return waiting < responsesAhead.bytes ? Effect.void : room
      })
    ),
    Effect.andThen(stopping, Effect.interrupt)
  )
}

/** The requests of a call. Reading pauses when the handler does not keep up; the stream ends with the client's half. */
const requestsOf = <I>(call: {
  on(event: "data", listener: (request: I) => void): unknown
  on(event: "end", listener: () => void): unknown
  pause(): unknown
  resume(): unknown
}): Stream.Stream<I> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const requests = yield* Queue.bounded<I, Cause.Done>(requestsAhead)
      call.on("data", (request) => {
        Queue.offerUnsafe(requests, request)
        // One offer above the mark is still kept: grpc-js hands over a message that it had already read.
        if (Queue.sizeUnsafe(requests) >= requestsAhead / 2) call.pause()
      })
      call.on("end", () => void Queue.endUnsafe(requests))
      const next = Effect.tap(Queue.take(requests), () =>
        Effect.sync(() => {
          if (Queue.sizeUnsafe(requests) < requestsAhead / 2) call.resume()
        })
      )
      return Stream.fromEffectRepeat(next)
    })
  )

/** Room for requests that a handler has not taken yet. Reading stops at half of it. */
const requestsAhead = 32

/** How {@link serve} serves. Sizes in bytes. */
export interface ServeOptions<E> {
  /** The status of a failure. */
  readonly status: (error: E) => GrpcStatus
  /** Looks at every request that comes alone (not in a stream) before its handler does. Default: lets all pass. */
  readonly refuse?: (method: DescMethod, request: Message) => GrpcStatus | undefined
  /** The largest request taken. Default: 2 MiB, so that what one request asks for fits into one response. */
  readonly maxRequestBytes?: number
  /** How long unary calls may go on once the server stops. Default: 2 seconds. */
  readonly grace?: Duration.Input
}

/** What a client is told of a bug of ours: nothing of its text, which can hold anything. */
const internal: GrpcStatus = { code: Code.INTERNAL, details: "internal error: see Ironwood's log" }
const unavailable: GrpcStatus = { code: Code.UNAVAILABLE, details: "Ironwood is stopping: try again when it is back" }
const deadlineExceeded: GrpcStatus = { code: Code.DEADLINE_EXCEEDED, details: "deadline exceeded" }

/**
 * grpc-js' settings: what a client may cost, and how soon a dead one is noticed. Channelz stays on: without it
 * `forceShutdown` of grpc-js 1.14 forgets the connections it should cut.
 */
const channelOptions = (maxRequestBytes: number) => ({
  "grpc.max_receive_message_length": maxRequestBytes,
  // What clients take by default.
  "grpc.max_send_message_length": 4 * 1024 * 1024,
  "grpc.max_concurrent_streams": 1_000,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.keepalive_permit_without_calls": 1
})

/**
 * Serves services on an address in grpc-js' notation (`unix:/run/x.sock`, `127.0.0.1:8080`) until the scope closes: then
 * streams end with UNAVAILABLE, unary calls have the grace period, and what is left is cut off.
 */
export function serve<const S extends ReadonlyArray<Service<unknown, unknown>>>(
  address: string,
  services: S,
  options: ServeOptions<ErrorOf<S[number]>>
): Effect.Effect<{ readonly port: number }, BindFailed, ServicesOf<S[number]> | Scope.Scope>
export function serve<E, R>(
  address: string,
  services: ReadonlyArray<Service<E, R>>,
  options: ServeOptions<E>
): Effect.Effect<{ readonly port: number }, BindFailed, R | Scope.Scope> {
  return serveAll(address, services, options)
}

const serveAll = Effect.fn("EffectGrpc.serve")(function* <E, R>(
  address: string,
  services: ReadonlyArray<Service<E, R>>,
  options: ServeOptions<E>
): Effect.fn.Return<{ readonly port: number }, BindFailed, R | Scope.Scope> {
  const server = new Server(channelOptions(options.maxRequestBytes ?? 2 * 1024 * 1024))
  const stopping = yield* Deferred.make<void>()
  const fibers = yield* FiberSet.make<void, never>()
  const fork = yield* FiberSet.runtime(fibers)<R>()

  const statusOf = (cause: Cause.Cause<E>): GrpcStatus => {
    const failure = cause.reasons.find(Cause.isFailReason)
    if (Cause.hasDies(cause)) return internal
    return failure === undefined ? unavailable : options.status(failure.error)
  }
  const calls: Calls<E, R> = {
    refuse: options.refuse ?? (() => undefined),
    stopping: Deferred.await(stopping),
    run: (path, call, effect, end) => {
      const whole = withDeadline(call, effect).pipe(
        Effect.exit,
        Effect.tap((exit) =>
          Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? Effect.logError(`${path} died`, exit.cause) : Effect.void
        ),
        Effect.map((exit) => {
          if (call.cancelled) return
          if (Exit.isFailure(exit)) end({ _tag: "Failed", status: statusOf(exit.cause) })
          else if (exit.value === timedOut) end({ _tag: "Failed", status: deadlineExceeded })
          else end({ _tag: "Done", value: exit.value })
        })
      )
      // Without a listener an "error" event of a call that the client cut off would end the process.
      call.on("error", () => {})
      // Many calls arrive in one read of the connection: each begins when it is its turn.
      const fiber: Fiber.Fiber<void> = fork(Effect.andThen(Effect.yieldNow, whole))
      call.on("cancelled", () => fiber.interruptUnsafe())
    }
  }
  for (const { methods } of services) for (const method of methods) method.register(server, calls)

  yield* Effect.addFinalizer(() =>
    Effect.gen(function* () {
      yield* Deferred.succeed(stopping, undefined)
      yield* Effect.timeoutOption(
        // Finalizers are not interruptible, and what is not cannot be timed out.
        Effect.interruptible(Effect.callback<void>((resume) => server.tryShutdown(() => resume(Effect.void)))),
        options.grace ?? "2 seconds"
      )
      server.forceShutdown()
    })
  )
  const port = yield* Effect.callback<number, BindFailed>((resume) =>
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) =>
      resume(error === null ? Effect.succeed(bound) : Effect.fail(new BindFailed({ address, reason: error.message })))
    )
  )
  return { port }
})

const timedOut = Symbol("deadline exceeded")

/** The effect, interrupted at the call's deadline. */
const withDeadline = <A, E, R>(
  call: AnyCall,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A | typeof timedOut, E, R> => {
  const deadline = Number(call.getDeadline())
  if (!Number.isFinite(deadline)) return effect
  return Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.timeoutOrElse(effect, {
      duration: Duration.millis(Math.max(0, deadline - now)),
      orElse: () => Effect.succeed(timedOut)
    })
  )
}
