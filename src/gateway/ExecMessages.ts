/**
 * Programs in containers on the wire: `exec`, where one call is one program's life, and `attach`, where many calls may talk to a
 * container's first process. Requests go to it as they come; its output is pulled only as fast as the client reads.
 *
 * Traps: whatever is wrong with a later request ends the call, and with it the program of an `exec`. Signals and sizes that come
 * after the end are late, not wrong. Who attaches sees what is in the log, which holds the bytes exactly as they were written.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Proto from "../../proto/generated/ironwood/v1/container_pb.ts"
import { Containers } from "../runtime/Containers.ts"
import { ExecSpec } from "../runtime/ExecSpec.ts"
import { codeOf, untilQuiet } from "../runtime/Executions.ts"
import type { OutputStream, Process } from "../taproot/Processes.ts"
import type { ProcessExit } from "../taproot/ProcessExit.ts"
import { parseSignal } from "../taproot/Signals.ts"
import { decoder, given, invalid, type InvalidRequest } from "./Request.ts"

type Response = MessageInitShape<typeof Proto.ExecContainerResponseSchema>

const decode = decoder("start", Proto.ExecStartSchema, ExecSpec)

const specFromProto = (start: Proto.ExecStart) =>
  decode(
    given({
      command: start.command,
      environment: start.environment,
      workingDirectory: start.workingDirectory || undefined,
      user: start.user || undefined,
      terminal: start.terminal && { rows: start.terminal.rows, columns: start.terminal.columns },
      stdin: start.stdin,
      detach: start.detach
    })
  )

const mostInput = 65_536

/** Whom requests are for; `detach`: how it is left alone, where that can be. */
interface Talk<E> {
  readonly process: Process
  readonly detach: Effect.Effect<void, E>
}

/** What a request after the first one asks for. */
const apply = <E>({ detach, process }: Talk<E>, request: Later["request"]): Effect.Effect<void, InvalidRequest | E> => {
  switch (request.case) {
    case "start":
      return Effect.fail(invalid("start", "comes once, and first"))
    case "stdin":
      return request.value.length > mostInput
        ? Effect.fail(invalid("stdin", `must be at most ${mostInput} bytes at a time`))
        : // A program that reads no more is its own business: its exit tells.
          Effect.ignore(process.write(request.value))
    case "stdinEnd":
      return request.value ? process.closeStdin : Effect.void
    case "resize":
      return process.resize(request.value.rows, request.value.columns)
    case "signal":
      return Option.match(parseSignal(request.value), {
        onNone: () =>
          Effect.fail(invalid("signal", `"${request.value}" is no signal: give one like SIGTERM, TERM or 15`)),
        onSome: (signal) => Effect.ignore(process.signal(signal))
      })
    case "detach":
      return request.value ? detach : Effect.void
    default:
      return Effect.fail(invalid("request", "must be set"))
  }
}

const exited = (exit: ProcessExit) => ({
  case: "exited" as const,
  value: { code: codeOf(exit), signal: exit._tag === "Signaled" ? exit.signal : "" }
})

/** A request of either kind: the same but for its start. */
type Later = Proto.ExecContainerRequest | Proto.AttachContainerRequest
type StartOf<M extends Later> = Extract<M["request"], { readonly case: "start" }>["value"]

/**
 * One call: its first request makes the process and its answers, the others go to the process. `endsInput`: the end of
 * the client's half is that of the process's standard input.
 */
const conversation = <M extends Later, A, E, R, E2, R2, E3>(
  requests: Stream.Stream<M>,
  startOf: (message: M) => StartOf<M> | undefined,
  begin: (
    start: StartOf<M>
  ) => Effect.Effect<Talk<E3> & { readonly answers: Stream.Stream<A, E, R> }, E2, R2 | Scope.Scope>,
  endsInput: boolean
) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const first = yield* Deferred.make<StartOf<M>, InvalidRequest>()
      const running = yield* Deferred.make<Talk<E3>>()
      // done: it is left alone
      const over = yield* Deferred.make<void, InvalidRequest | E3>()
      let begun = false
      const wrongStart = invalid("start", "must come first")
      // Requests wait for the process, and those after them behind: nothing is read ahead of it.
      const listen = Stream.runForEach(requests, (message) => {
        if (begun) {
          const { request } = message
          const done = Effect.flatMap(Deferred.await(running), (talk) => apply(talk, request))
          return request.case === "detach" ? Effect.andThen(done, Deferred.succeed(over, undefined)) : done
        }
        begun = true
        const start = startOf(message)
        return start === undefined ? Deferred.fail(first, wrongStart) : Deferred.succeed(first, start)
      }).pipe(
        Effect.andThen(() => {
          if (!begun) return Deferred.fail(first, wrongStart)
          return endsInput && !Deferred.isDoneUnsafe(over)
            ? Effect.flatMap(Deferred.await(running), ({ process }) => process.closeStdin)
            : Effect.void
        })
      )
      yield* Effect.forkScoped(Effect.catch(listen, (error) => Deferred.fail(over, error)))
      const { answers, ...talk } = yield* begin(yield* Deferred.await(first))
      yield* Deferred.succeed(running, talk)
      return Stream.interruptWhen(answers, Deferred.await(over))
    })
  ).pipe(Stream.scoped)

/** Answers the requests of one program's call. */
export const exec = (requests: Stream.Stream<Proto.ExecContainerRequest>) =>
  conversation(
    requests,
    ({ request }) => (request.case === "start" ? request.value : undefined),
    Effect.fnUntraced(function* (start) {
      const spec = yield* specFromProto(start)
      if (start.name === "") return yield* invalid("start.name", "must be set")
      const { detach, output, process } = yield* (yield* Containers).exec(start.name, spec)
      const written = (stream: OutputStream) =>
        Stream.map(output(stream), (value): Response => ({ response: { case: stream, value } }))
      const started: Response = { response: { case: "started", value: { pid: process.pid } } }
      const rest = Stream.merge(written("stdout"), written("stderr")).pipe(
        Stream.concat(Stream.fromEffect(Effect.map(process.exit, (exit): Response => ({ response: exited(exit) }))))
      )
      const begun = Stream.make<[Response]>(started)
      return { process, detach, answers: spec.detach ? begun : Stream.concat(begun, rest) }
    }),
    true
  )

type AttachResponse = MessageInitShape<typeof Proto.AttachContainerResponseSchema>

const newline = Buffer.from("\n")

/** Answers the requests of one attached client. */
export const attach = (requests: Stream.Stream<Proto.AttachContainerRequest>) =>
  conversation(
    requests,
    ({ request }) => (request.case === "start" ? request.value : undefined),
    Effect.fnUntraced(function* ({ inputOnly, name, tail, terminal }) {
      if (name === "") return yield* invalid("start.name", "must be set")
      const containers = yield* Containers
      const { process, stored } = yield* containers.attach(name)
      if (terminal !== undefined) yield* process.resize(terminal.rows, terminal.columns)
      const { pty, stdin } = process.streams
      const attached: AttachResponse = { response: { case: "attached", value: { terminal: pty, stdin } } }
      const written = Stream.map(
        containers.logs(name, { follow: true, tail }),
        ({ complete, content, stream }): AttachResponse => ({
          response: { case: stream, value: complete ? Buffer.concat([content, newline]) : content }
        })
      )
      const end = Stream.fromEffect(Effect.map(process.exit, (exit): AttachResponse => ({ response: exited(exit) })))
      const output = inputOnly ? Stream.empty : untilQuiet(written, Deferred.await(stored))
      return {
        process,
        detach: Effect.void,
        answers: Stream.make<[AttachResponse]>(attached).pipe(Stream.concat(output), Stream.concat(end))
      }
    }),
    false
  )
