/**
 * The gRPC client: calls as Effects, server streams as Streams, typed by the generated descriptors.
 *
 * `client.call(TreeService.method.getTree, {…})` and `client.stream(TreeService.method.watchTree, {…})` are all there is.
 * A call that fails is a {@link Failure} with the exit code, the fields that are wrong and the next step; its `status` is the
 * gRPC code, for those who handle one of them (see `orElseStatus`). Interrupting a call or a stream cancels it on the
 * server. A stream is pulled: a reader that stands still fills the HTTP/2 window and then stops the server.
 *
 * A brain that hangs or dies is replaced within seconds. The commands' own {@link Client} waits for the next one and asks it
 * again, where the call may be repeated (reads, checks, and changes with a request id) and the taproot of this machine lives on.
 *
 * Traps: connecting is lazy and an address where nobody listens fails the first call, not `make`. Streams do not wait: who
 * follows one knows where it was.
 */
import {
  type DescMessage,
  type DescMethodClientStreaming,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type Message,
  type MessageInitShape,
  type MessageShape,
  create,
  fromBinary,
  toBinary
} from "@bufbuild/protobuf"
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as grpc from "@grpc/grpc-js"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Address from "./Address.ts"
import { exitCodes } from "./ExitCode.ts"
import { changed, Failure, failure } from "./Failure.ts"
import { AddressSetting } from "./Globals.ts"
import * as StatusDetails from "./StatusDetails.ts"
import { runsAt } from "./Taproot.ts"
import * as Text from "./Text.ts"

/** A connection to one Ironwood. */
export interface Connection {
  /** Where it is, e.g. `unix:/run/ironwood/ironwood.sock`. */
  readonly address: string
  /**
   * A unary call. Fails with DEADLINE_EXCEEDED after `timeout` (default: 30 seconds); with `once` it is not asked again when
   * its connection breaks.
   */
  readonly call: <I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options?: { readonly timeout?: Duration.Input; readonly once?: boolean }
  ) => Effect.Effect<MessageShape<O>, Failure>
  /**
   * Streams both ways: `requests` are sent as fast as the server takes them, and end with the answers; if they fail, the call is
   * cancelled. No deadline.
   */
  readonly exchange: <I extends DescMessage, O extends DescMessage, E>(
    method: DescMethodBiDiStreaming<I, O>,
    requests: Stream.Stream<MessageInitShape<I>, E>
  ) => Stream.Stream<MessageShape<O>, Failure | E>
  /** A server stream. No deadline. */
  readonly stream: <I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>
  ) => Stream.Stream<MessageShape<O>, Failure>
  /** A client stream: the requests one after the other, as fast as they are taken. No deadline. */
  readonly send: <I extends DescMessage, O extends DescMessage>(
    method: DescMethodClientStreaming<I, O>,
    requests: ReadonlyArray<() => MessageInitShape<I>>
  ) => Effect.Effect<MessageShape<O>, Failure>
}

/** The connection the commands use: that of `--address`. */
export class Client extends Context.Service<Client, Connection>()("ironwood/cli/Client") {}

/** The gRPC status codes commands tell apart, as the plain numbers a {@link Failure} carries. */
export const status = {
  cancelled: 1,
  invalidArgument: 3,
  notFound: 5,
  alreadyExists: 6,
  failedPrecondition: 9,
  internal: 13,
  unavailable: 14
} as const

const exitCodeOf = (code: grpc.status): Failure["exitCode"] => {
  switch (code) {
    case grpc.status.INVALID_ARGUMENT:
    case grpc.status.OUT_OF_RANGE:
      return exitCodes.usage
    case grpc.status.NOT_FOUND:
      return exitCodes.notFound
    case grpc.status.ALREADY_EXISTS:
    case grpc.status.FAILED_PRECONDITION:
    case grpc.status.ABORTED:
      return exitCodes.conflict
    case grpc.status.UNAVAILABLE:
      return exitCodes.unavailable
    case grpc.status.PERMISSION_DENIED:
    case grpc.status.UNAUTHENTICATED:
      return exitCodes.denied
    case grpc.status.DEADLINE_EXCEEDED:
      return exitCodes.timeout
    case grpc.status.RESOURCE_EXHAUSTED:
      return exitCodes.exhausted
    default:
      return exitCodes.failed
  }
}

const isServiceError = (error: unknown): error is grpc.ServiceError =>
  error instanceof Error && "code" in error && "details" in error && typeof error.details === "string"

/** What a gRPC error means to the person who sees it. */
export const failureOf = (error: unknown, address: string): Failure => {
  if (!isServiceError(error)) return failure(`the connection to ${address} failed (${Text.clean(String(error))})`)
  const message = Text.clean(
    error.details.trim() === "" ? `the server answered ${grpc.status[error.code]}` : error.details
  )
  const raw = error.metadata?.get(StatusDetails.trailer)[0]
  const said = raw instanceof Uint8Array ? StatusDetails.decode(raw) : undefined
  // a status with details was made by the server: all others of UNAVAILABLE come from the connection
  if (error.code === grpc.status.UNAVAILABLE && said === undefined) return unreachable(message, address)
  const common = {
    status: error.code,
    exitCode: error.code === grpc.status.UNAVAILABLE ? exitCodes.failed : exitCodeOf(error.code),
    ...(said?.differing === undefined ? {} : { differing: said.differing }),
    ...(said?.resource === undefined ? {} : { about: said.resource })
  }
  if (error.code === grpc.status.UNIMPLEMENTED) {
    return new Failure({
      ...common,
      summary: `the Ironwood at ${address} does not know this request`,
      details: [],
      next: "See `ironwood version`: it may be the rescue brain, which answers little, or client and server differ"
    })
  }
  // the message repeats what the violations say, without their fields
  const fields = (said?.violations ?? []).filter(({ field }) => field !== "" && field !== "path")
  if (error.code === grpc.status.INVALID_ARGUMENT && fields.length > 0) {
    return new Failure({
      ...common,
      violations: fields,
      summary: fields.length === 1 ? "the request is wrong" : `the request is wrong in ${fields.length} places`,
      details: fields.map(({ description, field }) => Text.clean(`${field}: ${description}`))
    })
  }
  const more = fields.filter(({ description, field }) => !message.includes(description) && !message.includes(field))
  return new Failure({
    ...common,
    ...withoutHint(message, said?.hint),
    details: more.map(({ description, field }) => Text.clean(`${field}: ${description}`))
  })
}

/** The advice at the end of a message as the next step, which a command that knows better replaces. */
const withoutHint = (message: string, hint = ""): { readonly summary: string; readonly next?: string } =>
  hint === "" || !message.endsWith(hint)
    ? { summary: message }
    : {
        summary: message.slice(0, -hint.length).replace(/[;:,]?\s*$/, ""),
        next: `${hint.slice(0, 1).toUpperCase()}${hint.slice(1)}`
      }

/** What is to be said when the connection itself fails. */
const unreachable = (message: string, address: string): Failure => {
  const common = { status: grpc.status.UNAVAILABLE, exitCode: exitCodes.unavailable, details: [] }
  if (message.includes("EACCES")) {
    return new Failure({
      ...common,
      exitCode: exitCodes.denied,
      summary: `${address} is not open to you`,
      next: "Run the command as the user who started Ironwood (often root)"
    })
  }
  return /ENOENT|ECONNREFUSED|No connection established|Name resolution failed/.test(message)
    ? new Failure({
        ...common,
        summary: `no Ironwood answers at ${address}`,
        next: "Start one with `ironwood up`, or name another with --address"
      })
    : new Failure({
        ...common,
        summary: `the connection to ${address} was lost (${message})`,
        next: "Try again; `ironwood tree` shows what is running"
      })
}

const deadlineOf = (timeout: Duration.Input): number => Date.now() + Duration.toMillis(timeout)

/** The largest message taken from a server: a snapshot of a tree with 100,000 actors fits. */
const maximumMessageBytes = 256 * 1024 * 1024

/** Opens a connection; it is closed with the scope. */
export const make = (address: string): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(
        () =>
          new grpc.Client(address, grpc.credentials.createInsecure(), {
            "grpc.max_receive_message_length": maximumMessageBytes,
            "grpc.enable_http_proxy": 0,
            // a brain is back within a second: whoever follows it should be, too
            "grpc.initial_reconnect_backoff_ms": 50,
            "grpc.max_reconnect_backoff_ms": 200
          })
      ),
      (client) => Effect.sync(() => client.close())
    ),
    (client): Connection => ({
      address,
      call: (method, request, options) =>
        Effect.callback((resume) => {
          const call = client.makeUnaryRequest(
            `/${method.parent.typeName}/${method.name}`,
            (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
            (bytes) => fromBinary(method.output, bytes),
            create(method.input, request),
            new grpc.Metadata(),
            { deadline: deadlineOf(options?.timeout ?? "30 seconds") },
            (error, response) => {
              if (error !== null) return resume(Effect.fail(failureOf(error, address)))
              return resume(
                response === undefined ? Effect.die(`${method.name}: no answer and no error`) : Effect.succeed(response)
              )
            }
          )
          return Effect.sync(() => call.cancel())
        }),
      send: (method, requests) =>
        Effect.callback((resume) => {
          const call = client.makeClientStreamRequest(
            `/${method.parent.typeName}/${method.name}`,
            (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
            (bytes) => fromBinary(method.output, bytes),
            (error, response) => {
              ended = true
              if (error !== null) return resume(Effect.fail(failureOf(error, address)))
              return resume(
                response === undefined ? Effect.die(`${method.name}: no answer and no error`) : Effect.succeed(response)
              )
            }
          )
          let ended = false
          // the answer says what went wrong
          call.on("error", () => {})
          const next = (index: number): void => {
            const request = requests[index]
            if (ended) return
            if (request === undefined) return void call.end()
            call.write(create(method.input, request()), () => next(index + 1))
          }
          next(0)
          return Effect.sync(() => call.cancel())
        }),
      exchange: <I extends DescMessage, O extends DescMessage, E>(
        method: DescMethodBiDiStreaming<I, O>,
        requests: Stream.Stream<MessageInitShape<I>, E>
      ) =>
        Stream.unwrap(
          Effect.gen(function* () {
            const call = yield* Effect.acquireRelease(
              Effect.sync(() => {
                const call = client.makeBidiStreamRequest(
                  `/${method.parent.typeName}/${method.name}`,
                  (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
                  (bytes) => fromBinary(method.output, bytes)
                )
                call.on("error", () => {})
                return call
              }),
              (call) => Effect.sync(() => call.cancel())
            )
            const broken = yield* Deferred.make<never, E>()
            const send = (request: MessageInitShape<I>) =>
              Effect.callback<void>(
                (resume) => void call.write(create(method.input, request), () => resume(Effect.void))
              )
            yield* Stream.runForEach(requests, send).pipe(
              Effect.andThen(Effect.sync(() => call.end())),
              Effect.catch((error) => Deferred.fail(broken, error)),
              Effect.forkScoped
            )
            const responses = NodeStream.fromReadable<MessageShape<O>, Failure>({
              evaluate: () => call,
              onError: (error) => failureOf(error, address)
            })
            return Stream.interruptWhen(responses, Deferred.await(broken))
          })
        ).pipe(Stream.scoped),
      stream: (method, request) =>
        Stream.unwrap(
          Effect.map(
            Effect.acquireRelease(
              Effect.sync(() => {
                const call = client.makeServerStreamRequest(
                  `/${method.parent.typeName}/${method.name}`,
                  (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
                  (bytes) => fromBinary(method.output, bytes),
                  create(method.input, request)
                )
                // cancel() makes the readable emit an error when nobody listens any more
                call.on("error", () => {})
                return call
              }),
              (call) => Effect.sync(() => call.cancel())
            ),
            (call) =>
              NodeStream.fromReadable<MessageShape<typeof method.output>, Failure>({
                evaluate: () => call,
                onError: (error) => failureOf(error, address),
                chunkSize: 64
              })
          )
        )
    })
  )

/** Handles one gRPC status of a failure, leaves the others. */
export const orElseStatus =
  <B, E2, R2>(code: number, f: (error: Failure) => Effect.Effect<B, E2, R2>) =>
  <A, E, R>(self: Effect.Effect<A, E | Failure, R>): Effect.Effect<A | B, E | Failure | E2, R | R2> =>
    Effect.catchIf(self, (error): error is Failure => error instanceof Failure && error.status === code, f)

/** How long the next brain is waited for: a machine that is busy takes a while to start one. */
const patienceMilliseconds = 20_000

/** May the same request be made twice? */
const isRepeatable = (method: DescMethodUnary, message: Message): boolean => {
  const fields = new Map(Object.entries(message))
  return (
    /^(Get|List|Explain|Validate)/.test(method.name) ||
    ["requestId", "validateOnly"].some((field) => Boolean(fields.get(field)))
  )
}

/** The same connection, whose calls outlive the brain that they were made to. */
const patient = (connection: Connection): Connection => ({
  ...connection,
  call: (method, request, options) => {
    const { address } = connection
    const message = create(method.input, request)
    const ask = connection.call(method, message, options)
    if (options?.once === true || !isRepeatable(method, message)) return ask
    const again = (until: number): typeof ask =>
      ask.pipe(
        Effect.catchIf(
          ({ exitCode }) => exitCode === exitCodes.unavailable && runsAt(address),
          (error) =>
            Effect.flatMap(Clock.currentTimeMillis, (now) =>
              now > until
                ? Effect.fail(notBack(error, address))
                : Effect.andThen(
                    Effect.sleep("100 millis"),
                    Effect.suspend(() => again(until))
                  )
            )
        )
      )
    return Effect.flatMap(Clock.currentTimeMillis, (now) => again(now + patienceMilliseconds))
  }
})

const notBack = (error: Failure, address: string): Failure =>
  changed(error, {
    summary: `the Ironwood at ${address} runs, but its API has not come back within ${patienceMilliseconds / 1000}s`,
    next: "Its brain is being restarted, or its gateway was stopped: `brain.log` in its state directory says more"
  })

/** The client of `--address` (see Address.ts). */
export const layer = Layer.effect(
  Client,
  Effect.gen(function* () {
    const address = yield* Address.resolve(yield* AddressSetting)
    return patient(yield* make(address))
  })
)
