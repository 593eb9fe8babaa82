/**
 * A client of a hypervisor's REST API on a unix socket: one request, one connection, one answer, each with a deadline.
 *
 * The hypervisor is the first thing that a hostile guest takes over, so its words are a stranger's: an answer is bounded in size
 * and time (however slowly it comes), and what is no JSON of the expected shape is an error, as is any status but success.
 *
 * Trap: a request whose deadline has passed may be done yet.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as http from "node:http"
import type { Socket } from "node:net"
import { connectTo } from "../taproot/SocketPath.ts"
import { ControlLost } from "./Hypervisor.ts"

/** Words with the VMM that failed. */
export class RestFailed extends Schema.TaggedError<RestFailed>()("RestFailed", {
  /** What was asked of it, like `PUT /actions`. */
  request: Schema.String,
  /** `unreachable`: nobody listens; `closed`: it went away; `silent`: no whole answer in time; `refused`: it said no; `broken`: it said what the API does not allow. */
  reason: Schema.Literals(["unreachable", "closed", "silent", "refused", "broken"]),
  detail: Schema.String,
  /** Of an answer that says no. */
  status: Schema.optionalKey(Schema.Int)
}) {
  override get message(): string {
    return `the VMM did not do "${this.request}" (${this.reason}): ${this.detail}`
  }
}

/** The same as whoever holds a machine is told. */
export const lost = ({ detail, request }: RestFailed): ControlLost => new ControlLost({ command: request, detail })

export interface Options {
  /** Absolute. */
  readonly path: string
  /** What paths of requests begin with. */
  readonly root?: string
  /** The words in the body of an answer that says no. */
  readonly fault: (body: string) => string
  /** Default 10 seconds. */
  readonly deadline?: Duration.Input
}

export interface RequestOptions {
  readonly body?: unknown
  /** Default: the socket's. */
  readonly deadline?: Duration.Input
}

export interface RestSocket {
  /** Asks for something to be done. */
  readonly send: (method: "PUT" | "PATCH", path: string, options?: RequestOptions) => Effect.Effect<void, RestFailed>
  /** Asks for something to be told. */
  readonly ask: <A, I>(
    path: string,
    answer: Schema.Codec<A, I>,
    options?: RequestOptions
  ) => Effect.Effect<A, RestFailed>
}

const DEADLINE = Duration.seconds(10)
/** The longest body of an answer, in bytes. */
const LONGEST_BODY = 1_048_576
/** The longest head of an answer, in bytes. */
const LONGEST_HEAD = 16_384

interface Answer {
  readonly status: number
  readonly body: string
}

/** The answer on a connection of its own, which ends with it. */
const exchange = (
  socket: Socket,
  name: string,
  method: string,
  path: string,
  body: unknown
): Effect.Effect<Answer, RestFailed> =>
  Effect.callback((resume) => {
    const fail = (reason: RestFailed["reason"], detail: string) => {
      socket.destroy()
      resume(Effect.fail(new RestFailed({ request: name, reason, detail })))
    }
    const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body))
    const request = http.request({
      createConnection: () => socket,
      method,
      path,
      maxHeaderSize: LONGEST_HEAD,
      headers: {
        host: "localhost",
        accept: "application/json",
        ...(bytes === undefined ? {} : { "content-type": "application/json", "content-length": bytes.length })
      }
    })
    request.on("error", (error: NodeJS.ErrnoException) =>
      // the parser of HTTP has codes of its own
      fail(error.code?.startsWith("HPE_") === true ? "broken" : "closed", error.message)
    )
    request.on("response", (response) => {
      const pieces: Array<Buffer> = []
      let length = 0
      response.on("data", (piece: Buffer) => {
        length += piece.length
        if (length > LONGEST_BODY) fail("broken", `an answer of more than ${LONGEST_BODY} bytes`)
        else pieces.push(piece)
      })
      response.on("error", () => fail("closed", "the connection ended within the answer"))
      response.on("end", () => {
        socket.destroy()
        resume(Effect.succeed({ status: response.statusCode ?? 0, body: Buffer.concat(pieces).toString("utf8") }))
      })
    })
    request.end(bytes)
    return Effect.sync(() => {
      request.destroy()
      socket.destroy()
    })
  })

/** No connection is kept: one that hangs takes no other request along. */
export const make = ({ deadline = DEADLINE, fault, path: socketPath, root = "" }: Options): RestSocket => {
  const run = (method: string, path: string, { body, deadline: own = deadline }: RequestOptions) => {
    const name = `${method} ${path}`
    const unreachable = (cause: unknown) =>
      new RestFailed({
        request: name,
        reason: "unreachable",
        detail: cause instanceof Error ? cause.message : String(cause)
      })
    return connectTo(socketPath, unreachable).pipe(
      Effect.flatMap((socket) => exchange(socket, name, method, `${root}${path}`, body)),
      Effect.scoped,
      Effect.timeoutOrElse({
        duration: own,
        orElse: () =>
          new RestFailed({
            request: name,
            reason: "silent",
            detail: `no answer within ${Duration.format(Duration.fromInputUnsafe(own))}`
          })
      }),
      Effect.filterOrFail(
        ({ status }) => status >= 200 && status < 300,
        ({ body, status }) =>
          new RestFailed({
            request: name,
            reason: status >= 400 ? "refused" : "broken",
            detail: `${fault(body).slice(0, 2_000)} (status ${status})`,
            status
          })
      )
    )
  }
  return {
    send: (method, path, options = {}) => Effect.asVoid(run(method, path, options)),
    ask: (path, answer, options = {}) =>
      Effect.flatMap(run("GET", path, options), ({ body }) =>
        Effect.mapError(
          Schema.decodeUnknownEffect(Schema.fromJsonString(answer))(body),
          ({ message }) => new RestFailed({ request: `GET ${path}`, reason: "broken", detail: message.slice(0, 2_000) })
        )
      )
  }
}
