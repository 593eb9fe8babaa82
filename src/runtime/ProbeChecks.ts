/**
 * Asks a container once whether it is well: by a program in it, or over its own loopback. For that taproot's `enter` goes into its
 * network namespace and carries the bytes; what they mean is read here.
 *
 * Answers are a stranger's: no more is read of them than it takes, and whoever is interrupted (by the probe's timeout) leaves no
 * process behind.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as http2 from "node:http2"
import { Duplex } from "node:stream"
import * as tls from "node:tls"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { Process } from "../taproot/Processes.ts"
import type { ContainerRun } from "./ContainerRuns.ts"
import { codeOf, Executions } from "./Executions.ts"
import { type Check, Unwell } from "./Probes.ts"
import type { Probe } from "./ProbeSpec.ts"

const unwell = (why: string) => new Unwell({ why })

const MOST_HEAD = 4_096
const MOST_WORDS = 200

/** The end of what somebody wrote, in one line. */
const lastLine = (text: string): string => text.trim().split("\n").at(-1)?.trim().slice(-MOST_WORDS) ?? ""

const fold = (stream: Stream.Stream<Uint8Array>, enough: (text: string) => boolean) =>
  Stream.runFold(
    Stream.takeUntil(
      Stream.mapAccum(
        stream,
        () => "",
        (sofar, bytes) => {
          const text = sofar + Buffer.from(bytes).toString("latin1")
          return [text, [text]]
        }
      ),
      (text) => text.length >= MOST_HEAD || enough(text)
    ),
    () => "",
    (_, text) => text
  )

/** The end of a stream, all of which is read. */
const ending = (stream: Stream.Stream<Uint8Array>) =>
  Stream.runFold(
    stream,
    () => "",
    (kept, bytes) => (kept + Buffer.from(bytes).toString()).slice(-MOST_HEAD)
  )

/** The process's streams as node wants a connection. */
const duplexOf = (process: Process, run: (effect: Effect.Effect<unknown, unknown>) => void): Duplex =>
  new Duplex({
    read: () => {},
    write: (chunk, _, done) =>
      run(
        process.write(chunk).pipe(
          Effect.matchEffect({
            onSuccess: () => Effect.sync(() => done()),
            onFailure: (error) => Effect.sync(() => done(error))
          })
        )
      ),
    final: (done) =>
      run(
        Effect.andThen(
          process.closeStdin,
          Effect.sync(() => done())
        )
      )
  })

const SERVING = 1

/** A `HealthCheckRequest` for a service, with its length before it. */
const healthRequest = (service: string): Buffer => {
  const name = Buffer.from(service)
  const message = name.length === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.from([0x0a, name.length]), name])
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}

/** Asks over a connection of HTTP/2; answers with the status of grpc.health.v1, or with what went wrong. */
const health = (connection: Duplex, service: string) =>
  Effect.callback<number, Unwell>((resume) => {
    const session = http2.connect("http://localhost", { createConnection: () => connection })
    const fail = (why: string) => resume(Effect.fail(unwell(why)))
    session.on("error", (error) => fail(error.message))
    const call = session.request({
      ":method": "POST",
      ":path": "/grpc.health.v1.Health/Check",
      "content-type": "application/grpc",
      te: "trailers"
    })
    let body = Buffer.alloc(0)
    let status = ""
    const told = (headers: http2.IncomingHttpHeaders) => (status = String(headers["grpc-status"] ?? status))
    call.on("response", (headers) => {
      told(headers)
      if (headers[":status"] !== 200) fail(`HTTP status ${headers[":status"]}`)
    })
    call.on("trailers", told)
    call.on("data", (bytes: Buffer) => {
      if (body.length < MOST_HEAD) body = Buffer.concat([body, bytes])
    })
    call.on("error", (error) => fail(error.message))
    call.on("end", () => {
      if (status !== "0")
        return fail(status === "12" || status === "5" ? "it has no such service" : `gRPC status ${status}`)
      // field 1, a varint; an empty message is UNKNOWN
      return resume(Effect.succeed(body[5] === 0x08 ? (body[6] ?? 0) : 0))
    })
    call.end(healthRequest(service))
    return Effect.sync(() => session.destroy())
  })

/** Enough of an answer to know its status. */
const isHead = (text: string): boolean => text.includes("\n")

/** Asks over TLS, and gives the beginning of the answer. Whose certificate it is is nobody's question: nothing of this leaves the host. */
const secureHead = (connection: Duplex, request: string) =>
  Effect.callback<string, Unwell>((resume) => {
    const socket = tls.connect({ socket: connection, rejectUnauthorized: false, ALPNProtocols: ["http/1.1"] })
    let head = ""
    socket.on("secureConnect", () => socket.write(request))
    socket.on("data", (bytes: Buffer) => {
      head += bytes.toString("latin1")
      if (head.length >= MOST_HEAD || isHead(head)) resume(Effect.succeed(head))
    })
    socket.on("error", ({ message }) => resume(Effect.fail(unwell(`TLS: ${message}`))))
    socket.on("end", () => resume(Effect.succeed(head)))
    return Effect.sync(() => socket.destroy())
  })

/** Asks of the container whose run this is. */
export const make = Effect.gen(function* () {
  const executions = yield* Executions
  const context = yield* Effect.context<never>()

  /** A connection to a port of the container's loopback; ends with the scope. */
  const connect = (run: ContainerRun, port: number) =>
    Effect.acquireRelease(
      run.system.processes
        .spawn({
          label: `probe:${run.id}`,
          argv: [run.system.helper("enter"), String(run.process.pid), String(port)],
          stdin: { _tag: "Stream" },
          stdout: { _tag: "Stream" },
          stderr: { _tag: "Stream" }
        })
        .pipe(Effect.mapError(({ message }) => unwell(message))),
      (process) => Effect.andThen(Effect.ignore(process.signal("SIGKILL")), process.acknowledge)
    )

  const bytesOf = (process: Process) => Stream.map(process.output("stdout"), ({ bytes }) => bytes)

  /** Why there was no answer: `enter` says when there was no connection either. */
  const silence = (process: Process) =>
    Effect.gen(function* () {
      const words = yield* ending(Stream.map(process.output("stderr"), ({ bytes }) => bytes))
      return unwell(words.trim() === "" ? "it closed the connection without an answer" : lastLine(words))
    })

  /** A connection as node wants it, fed as long as the scope; `over`: its end, as a failure that says why. */
  const nodeConnection = (process: Process) =>
    Effect.gen(function* () {
      const connection = duplexOf(process, (effect) => void Effect.runForkWith(context)(Effect.ignore(effect)))
      const feeding = yield* Effect.forkScoped(
        Stream.runForEach(bytesOf(process), (bytes) => Effect.sync(() => void connection.push(bytes)))
      )
      const over = Effect.flatMap(Fiber.await(feeding), () => Effect.flatMap(silence(process), Effect.fail))
      // what has come is read first
      return { connection, over: Effect.delay(over, "100 millis") }
    })

  const http = (run: ContainerRun, { host, path, port, scheme }: NonNullable<Probe["http"]>) =>
    Effect.gen(function* () {
      const process = yield* connect(run, port)
      const request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: ironwood-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n`
      const plain = Effect.andThen(Effect.ignore(process.write(Buffer.from(request))), fold(bytesOf(process), isHead))
      const overTls = Effect.flatMap(nodeConnection(process), ({ connection, over }) =>
        Effect.raceFirst(secureHead(connection, request), over)
      )
      const head = yield* scheme === "https" ? overTls : plain
      const status = /^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1]
      if (status === undefined) return yield* head === "" ? yield* silence(process) : unwell("its answer is no HTTP")
      if (Number(status) < 200 || Number(status) >= 400) return yield* unwell(`HTTP status ${status}`)
    }).pipe(Effect.scoped)

  const tcp = (run: ContainerRun, port: number) =>
    run.system.processes
      .run({
        label: `probe:${run.id}`,
        argv: [run.system.helper("enter"), String(run.process.pid), String(port), "check"]
      })
      .pipe(
        Effect.mapError(({ message }) => unwell(message)),
        Effect.flatMap(({ exit, stderr }) =>
          ProcessExit.isSuccess(exit)
            ? Effect.void
            : Effect.fail(unwell(lastLine(Buffer.from(stderr).toString()) || ProcessExit.describe(exit)))
        )
      )

  const grpc = (run: ContainerRun, { port, service }: { port: number; service: string }) =>
    Effect.gen(function* () {
      const process = yield* connect(run, port)
      const { connection, over } = yield* nodeConnection(process)
      const status = yield* Effect.raceFirst(health(connection, service), over)
      if (status !== SERVING) return yield* unwell("it is not SERVING")
    }).pipe(Effect.scoped)

  const exec = (run: ContainerRun, command: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const spec = { command, environment: {}, stdin: false, detach: false }
      const { output, process } = yield* Effect.mapError(executions.open(run, spec), ({ message }) => unwell(message))
      const words = yield* Effect.all([ending(output("stdout")), ending(output("stderr"))], { concurrency: 2 })
      const exit = yield* process.exit
      if (codeOf(exit) !== 0) {
        const said = lastLine(words.join("\n"))
        return yield* unwell(`its program ${ProcessExit.describe(exit)}${said === "" ? "" : `: ${said}`}`)
      }
    }).pipe(Effect.scoped)

  return (run: ContainerRun): Check =>
    (probe) => {
      if (probe.exec !== undefined) return exec(run, probe.exec.command)
      if (probe.http !== undefined) return http(run, probe.http)
      if (probe.tcp !== undefined) return tcp(run, probe.tcp.port)
      if (probe.grpc !== undefined) return grpc(run, probe.grpc)
      return Effect.void
    }
})
