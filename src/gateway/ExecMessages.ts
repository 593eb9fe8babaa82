/**
 * A program in a container on the wire: one call is one program's life. Requests go to it as they come; its output is
 * pulled only as fast as the client reads.
 *
 * Traps: whatever is wrong with a later request ends the call, and with it the program. Signals and sizes that come after the
 * program's end are late, not wrong.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Proto from "../../proto/generated/ironwood/v1/container_pb.ts"
import { Containers } from "../runtime/Containers.ts"
import { ExecSpec } from "../runtime/ExecSpec.ts"
import { codeOf, type Execution } from "../runtime/Executions.ts"
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

/** What a request after the first one asks for. */
const apply = (
  { process }: Execution,
  { request }: Proto.ExecContainerRequest
): Effect.Effect<void, InvalidRequest> => {
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
    default:
      return Effect.fail(invalid("request", "must be set"))
  }
}

const exited = (exit: ProcessExit): Response => ({
  response: {
    case: "exited",
    value: { code: codeOf(exit), signal: exit._tag === "Signaled" ? exit.signal : "" }
  }
})

/** What becomes of a program, as answers: it runs, it writes, it has ended. */
export const answers = (execution: Execution): Stream.Stream<Response> => {
  const { output, process } = execution
  const written = (stream: "stdout" | "stderr") =>
    Stream.map(output(stream), (value): Response => ({ response: { case: stream, value } }))
  return Stream.make<[Response]>({ response: { case: "started", value: { pid: process.pid } } }).pipe(
    Stream.concat(Stream.merge(written("stdout"), written("stderr"))),
    Stream.concat(Stream.fromEffect(Effect.map(process.exit, exited)))
  )
}

/** Answers the requests of one call. */
export const exec = (requests: Stream.Stream<Proto.ExecContainerRequest>) =>
  Stream.unwrap(
    Effect.gen(function* () {
      const containers = yield* Containers
      const first = yield* Deferred.make<Proto.ExecStart, InvalidRequest>()
      const running = yield* Deferred.make<Execution>()
      let begun = false
      const wrongStart = invalid("start", "must come first")
      // Requests wait for the program, and those after them behind: nothing is read ahead of it.
      const listen = Stream.runForEach(requests, (message) => {
        if (begun) return Effect.flatMap(Deferred.await(running), (execution) => apply(execution, message))
        begun = true
        return message.request.case === "start"
          ? Deferred.succeed(first, message.request.value)
          : Deferred.fail(first, wrongStart)
      }).pipe(
        Effect.andThen(() =>
          begun
            ? Effect.flatMap(Deferred.await(running), ({ process }) => process.closeStdin)
            : Deferred.fail(first, wrongStart)
        ),
        Effect.andThen(Effect.never)
      )
      const broken = yield* Deferred.make<never, InvalidRequest>()
      yield* Effect.forkScoped(Effect.catch(listen, (error) => Deferred.fail(broken, error)))
      const start = yield* Effect.raceFirst(Deferred.await(first), Deferred.await(broken))
      const spec = yield* specFromProto(start)
      if (start.name === "") return yield* invalid("start.name", "must be set")
      const execution = yield* containers.exec(start.name, spec)
      yield* Deferred.succeed(running, execution)
      if (spec.detach) return Stream.take(answers(execution), 1)
      return Stream.interruptWhen(answers(execution), Deferred.await(broken))
    })
  ).pipe(Stream.scoped)
