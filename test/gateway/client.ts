/**
 * A plain grpc-js client of any service, typed by its descriptors: what the gateway's tests talk to it with. It has
 * nothing of the gateway's own adapter, so that a fault in one does not hide a fault in the other.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import type { DescMessage, DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf"
import { anyUnpack } from "@bufbuild/protobuf/wkt"
import { Client, credentials, Metadata } from "@grpc/grpc-js"
import type { CallOptions, ClientReadableStream, ServiceError } from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema
} from "../../proto/generated/google/rpc/error_details_pb.ts"
import { StatusSchema } from "../../proto/generated/google/rpc/status_pb.ts"

type MethodOf<I extends DescMessage, O extends DescMessage> = DescMethod & { readonly input: I; readonly output: O }

const pathOf = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`
const encoder =
  <I extends DescMessage>(input: I) =>
  (message: MessageShape<I>): Buffer =>
    Buffer.from(toBinary(input, message))
const decoder =
  <O extends DescMessage>(output: O) =>
  (bytes: Buffer): MessageShape<O> =>
    fromBinary(output, bytes)

/** A client of an address, with a connection of its own; closed with the scope. */
export const connect = (address: string) =>
  Effect.acquireRelease(
    Effect.sync(() => new Client(address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 })),
    (client) => Effect.sync(() => client.close())
  )

/** A call with one request and one response. Interrupting it cancels the call. */
export const call = <I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: MethodOf<I, O>,
  request: MessageInitShape<I>,
  options: CallOptions = {}
): Effect.Effect<MessageShape<O>, ServiceError> =>
  Effect.callback((resume) => {
    const running = client.makeUnaryRequest(
      pathOf(method),
      encoder(method.input),
      decoder(method.output),
      create(method.input, request),
      new Metadata(),
      options,
      (error, value) => {
        if (error !== null) resume(Effect.fail(error))
        else if (value !== undefined) resume(Effect.succeed(value))
      }
    )
    return Effect.sync(() => running.cancel())
  })

/** A call with one request and a stream of responses, as grpc-js gives it. Errors do not end the process. */
export const open = <I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: MethodOf<I, O>,
  request: MessageInitShape<I>,
  options: CallOptions = {}
): ClientReadableStream<MessageShape<O>> => {
  const running = client.makeServerStreamRequest(
    pathOf(method),
    encoder(method.input),
    decoder(method.output),
    create(method.input, request),
    new Metadata(),
    options
  )
  running.on("error", () => {})
  return running
}

/** All responses of a stream until `enough`, or until it ends. */
export const collect = <I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: MethodOf<I, O>,
  request: MessageInitShape<I>,
  enough: (sofar: ReadonlyArray<MessageShape<O>>) => boolean = () => false,
  options: CallOptions = {}
): Effect.Effect<ReadonlyArray<MessageShape<O>>, ServiceError> =>
  Effect.callback((resume) => {
    const running = open(client, method, request, options)
    const seen: Array<MessageShape<O>> = []
    running.on("data", (response: MessageShape<O>) => {
      seen.push(response)
      if (enough(seen)) {
        resume(Effect.succeed(seen))
        running.cancel()
      }
    })
    running.on("end", () => resume(Effect.succeed(seen)))
    running.on("error", (error: ServiceError) => resume(Effect.fail(error)))
    return Effect.sync(() => running.cancel())
  })

/** A call with a stream of requests and one response. */
export const send = <I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: MethodOf<I, O>,
  requests: ReadonlyArray<MessageInitShape<I>>
): Effect.Effect<MessageShape<O>, ServiceError> =>
  Effect.callback((resume) => {
    const running = client.makeClientStreamRequest(
      pathOf(method),
      encoder(method.input),
      decoder(method.output),
      new Metadata(),
      (error, value) => {
        if (error !== null) resume(Effect.fail(error))
        else if (value !== undefined) resume(Effect.succeed(value))
      }
    )
    for (const request of requests) running.write(create(method.input, request))
    running.end()
    return Effect.sync(() => running.cancel())
  })

/** A call with streams both ways: sends all requests and collects the responses. */
export const exchange = <I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: MethodOf<I, O>,
  requests: ReadonlyArray<MessageInitShape<I>>
): Effect.Effect<ReadonlyArray<MessageShape<O>>, ServiceError> =>
  Effect.callback((resume) => {
    const running = client.makeBidiStreamRequest(pathOf(method), encoder(method.input), decoder(method.output))
    const seen: Array<MessageShape<O>> = []
    running.on("data", (response: MessageShape<O>) => seen.push(response))
    running.on("end", () => resume(Effect.succeed(seen)))
    running.on("error", (error: ServiceError) => resume(Effect.fail(error)))
    for (const request of requests) running.write(create(method.input, request))
    running.end()
    return Effect.sync(() => running.cancel())
  })

/** What a status says beside its message. */
export const detailsOf = (metadata: Metadata | undefined) => {
  const [bytes] = metadata?.get("grpc-status-details-bin") ?? []
  const status = Buffer.isBuffer(bytes) ? fromBinary(StatusSchema, bytes) : undefined
  const unpack = <D extends DescMessage>(schema: D): MessageShape<D> | undefined => {
    for (const detail of status?.details ?? []) {
      const message = anyUnpack(detail, schema)
      if (message !== undefined) return message
    }
    return undefined
  }
  return {
    code: status?.code,
    message: status?.message,
    info: unpack(ErrorInfoSchema),
    retry: unpack(RetryInfoSchema),
    resource: unpack(ResourceInfoSchema),
    fields: unpack(BadRequestSchema)?.fieldViolations ?? [],
    blockers: unpack(PreconditionFailureSchema)?.violations ?? []
  }
}
