/**
 * The least that can serve gRPC on Node: @grpc/grpc-js with one method that gives back what it got. What its event loop
 * stands still for under many calls at once is what the brain's cannot be below. `node BareGrpcServer.ts SOCKET`; it says
 * `up` when it listens, and is ended by a signal.
 */
import {
  type MethodDefinition,
  Server,
  ServerCredentials,
  type sendUnaryData,
  type ServerUnaryCall
} from "@grpc/grpc-js"

const same = (bytes: Buffer): Buffer => bytes

/** `bench.Echo/Call`. */
export const echo: MethodDefinition<Buffer, Buffer> = {
  path: "/bench.Echo/Call",
  requestStream: false,
  responseStream: false,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same
}

const socket = process.argv[2]
if (socket !== undefined && import.meta.main) {
  const server = new Server()
  server.addService(
    { call: echo },
    { call: ({ request }: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => done(null, request) }
  )
  server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) => {
    process.stdout.write(error === null ? "up\n" : `${error.message}\n`)
  })
}
