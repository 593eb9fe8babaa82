/**
 * A real gRPC server in this process, on a unix socket of its own, that answers with what a test says.
 *
 * `serve` takes handlers by method descriptor; what has none answers UNIMPLEMENTED. A handler that throws a {@link GrpcFailure}
 * answers with its status and, in the trailer, its google.rpc details.
 */
import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary
} from "@bufbuild/protobuf"
import { anyPack } from "@bufbuild/protobuf/wkt"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { BadRequestSchema } from "../../proto/generated/google/rpc/error_details_pb.ts"
import { StatusSchema } from "../../proto/generated/google/rpc/status_pb.ts"

/** An error answer. */
export class GrpcFailure extends Error {
  readonly code: grpc.status
  readonly violations: ReadonlyArray<{ readonly field: string; readonly description: string }>

  constructor(code: grpc.status, message: string, violations: GrpcFailure["violations"] = []) {
    super(message)
    this.code = code
    this.violations = violations
  }
}

/** Adds one method to a server. */
export type Registration = (server: grpc.Server) => void

const errorOf = (error: unknown): Partial<grpc.StatusObject> => {
  if (!(error instanceof GrpcFailure)) return { code: grpc.status.INTERNAL, details: String(error) }
  const metadata = new grpc.Metadata()
  const status = create(StatusSchema, {
    code: error.code,
    message: error.message,
    details:
      error.violations.length === 0
        ? []
        : [anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations: [...error.violations] }))]
  })
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)))
  return { code: error.code, details: error.message, metadata }
}

const pathOf = (method: { readonly parent: { readonly typeName: string }; readonly name: string }) =>
  `/${method.parent.typeName}/${method.name}`

/** A unary method. */
export const unary =
  <I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    handler: (request: MessageShape<I>) => MessageInitShape<O>
  ): Registration =>
  (server) => {
    server.register<MessageShape<I>, MessageShape<O>>(
      pathOf(method),
      (call: grpc.ServerUnaryCall<MessageShape<I>, MessageShape<O>>, callback: grpc.sendUnaryData<MessageShape<O>>) => {
        try {
          callback(null, create(method.output, handler(call.request)))
        } catch (error) {
          callback(errorOf(error))
        }
      },
      (message) => Buffer.from(toBinary(method.output, message)),
      (bytes) => fromBinary(method.input, bytes),
      "unary"
    )
  }

/** What a streaming handler writes to. */
export interface Sink<O extends DescMessage> {
  readonly send: (message: MessageInitShape<O>) => void
  readonly end: () => void
  readonly fail: (failure: GrpcFailure) => void
}

/** A server-streaming method. */
export const streaming =
  <I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    handler: (request: MessageShape<I>, sink: Sink<O>) => void
  ): Registration =>
  (server) => {
    server.register<MessageShape<I>, MessageShape<O>>(
      pathOf(method),
      (call: grpc.ServerWritableStream<MessageShape<I>, MessageShape<O>>) => {
        call.on("error", () => {})
        handler(call.request, {
          send: (message) => void call.write(create(method.output, message)),
          end: () => call.end(),
          fail: (failure) => call.emit("error", errorOf(failure))
        })
      },
      (message) => Buffer.from(toBinary(method.output, message)),
      (bytes) => fromBinary(method.input, bytes),
      "serverStream"
    )
  }

/** A server on `path`, until the scope closes. */
export const serveAt = (path: string, registrations: ReadonlyArray<Registration>) =>
  Effect.acquireRelease(
    Effect.callback<grpc.Server>((resume) => {
      const server = new grpc.Server()
      for (const register of registrations) register(server)
      server.bindAsync(`unix:${path}`, grpc.ServerCredentials.createInsecure(), (error) =>
        resume(error === null ? Effect.succeed(server) : Effect.die(error))
      )
    }),
    (server) => Effect.sync(() => server.forceShutdown())
  )

/** A path for a socket in a directory of its own, removed with the scope. */
export const socket = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-cli-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  ),
  (directory) => join(directory, "ironwood.sock")
)

/** A server on a socket of its own; the address to give as `--address`. */
export const serve = (...registrations: ReadonlyArray<Registration>) =>
  Effect.gen(function* () {
    const path = yield* socket
    yield* serveAt(path, registrations)
    return `unix:${path}`
  })
