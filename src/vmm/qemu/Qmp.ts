/**
 * A client of the QEMU Machine Protocol on a machine's control socket: commands with deadlines, events as they come.
 *
 * QEMU serves one client at a time; others wait in silence until that one is gone. So a brain keeps one connection per machine.
 *
 * Traps:
 * - Events of before the connection are not told, and of those that come faster than they are taken the oldest are dropped:
 *   after connecting, and when one has been waited for, ask for the state.
 * - A command whose deadline has passed may be done yet. The connection is closed with it: a QEMU that does not answer one
 *   command answers no other either.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { ControlLost } from "../Hypervisor.ts"
import { type QmpEvent, QmpLines, type QmpMessage } from "./QmpLines.ts"
import { connectTo } from "../../taproot/SocketPath.ts"

export type { QmpEvent } from "./QmpLines.ts"

/** Words with the VMM that failed. */
export class QmpFailed extends Schema.TaggedError<QmpFailed>()("QmpFailed", {
  /** What was asked of it; `connect` before anything was. */
  command: Schema.String,
  /** `unreachable`: nobody listens; `closed`: it went away; `silent`: no answer in time; `refused`: it said no; `broken`: it said what the protocol does not allow. */
  reason: Schema.Literals(["unreachable", "closed", "silent", "refused", "broken"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `the VMM did not do "${this.command}" (${this.reason}): ${this.detail}`
  }
}

/** The same as whoever holds a machine is told. */
export const lost = ({ command, detail }: QmpFailed): ControlLost => new ControlLost({ command, detail })

/** It has heard the command, and will not do it. */
export const isRefused = ({ reason }: QmpFailed): boolean => reason === "refused"

export interface CommandOptions {
  readonly arguments?: Readonly<Record<string, unknown>>
  /** Default 10 seconds. */
  readonly deadline?: Duration.Input
}

export interface Qmp {
  /** QEMU's, like `7.2.22`. */
  readonly version: string
  readonly execute: (command: string, options?: CommandOptions) => Effect.Effect<unknown, QmpFailed>
  /** The same with the answer decoded. */
  readonly ask: <A, I>(
    command: string,
    answer: Schema.Codec<A, I>,
    options?: CommandOptions
  ) => Effect.Effect<A, QmpFailed>
  /** Those from now on, kept for whoever runs the stream; it ends with the connection. */
  readonly events: Effect.Effect<Stream.Stream<QmpEvent>, never, Scope.Scope>
  /** Waits for the end of the connection, and why. */
  readonly closed: Effect.Effect<QmpFailed>
}

const DEADLINE = Duration.seconds(10)
const EVENTS_KEPT = 256

const unreachable = (path: string) => (cause: unknown) =>
  new QmpFailed({
    command: "connect",
    reason: "unreachable",
    detail: `${path}: ${cause instanceof Error ? cause.message : String(cause)}`
  })

/** Connects, takes the greeting and agrees on the capabilities: none. Closed with the scope. */
export const connect = Effect.fn("Qmp.connect")(function* (
  path: string,
  deadline: Duration.Input = DEADLINE
): Effect.fn.Return<Qmp, QmpFailed, Scope.Scope> {
  const socket = yield* connectTo(path, unreachable(path))
  const lines = new QmpLines()
  const greeted = Deferred.makeUnsafe<string>()
  const closed = Deferred.makeUnsafe<QmpFailed>()
  const waiting = new Map<number, (answer: Result.Result<unknown, QmpFailed>) => void>()
  const events = yield* PubSub.sliding<QmpEvent>(EVENTS_KEPT)
  let lastId = 0

  const lose = (reason: QmpFailed["reason"], detail: string): void => {
    const failed = (command: string) => new QmpFailed({ command, reason, detail })
    if (!Deferred.doneUnsafe(closed, Exit.succeed(failed("connect")))) return
    socket.destroy()
    for (const answer of waiting.values()) answer(Result.fail(failed("")))
    waiting.clear()
  }

  const hear = (message: QmpMessage): void => {
    switch (message._tag) {
      case "Greeting":
        return void Deferred.doneUnsafe(greeted, Exit.succeed(message.version))
      case "Event":
        return void PubSub.publishUnsafe(events, message)
      default: {
        if (typeof message.id !== "number") return
        const answer = waiting.get(message.id)
        waiting.delete(message.id)
        return answer?.(
          message._tag === "Returned"
            ? Result.succeed(message.value)
            : Result.fail(
                new QmpFailed({ command: "", reason: "refused", detail: `${message.detail} (${message.kind})` })
              )
        )
      }
    }
  }

  socket.on("data", (bytes: Uint8Array) => {
    const messages = lines.push(bytes)
    if (Result.isFailure(messages)) return lose("broken", messages.failure)
    for (const message of messages.success) hear(message)
  })
  socket.on("error", (error) => lose("closed", error.message))
  socket.on("close", () => lose("closed", "the connection ended"))
  yield* Effect.addFinalizer(() => Effect.sync(() => lose("closed", "it is not wanted any more")))

  const tooLate = (command: string, after: Duration.Input) =>
    Effect.suspend(() => {
      const detail = `no answer within ${Duration.format(Duration.fromInputUnsafe(after))}`
      lose("silent", detail)
      return Effect.fail(new QmpFailed({ command, reason: "silent", detail }))
    })

  const execute: Qmp["execute"] = (command, options = {}) =>
    Effect.callback<unknown, QmpFailed>((resume) => {
      const over = Deferred.isDoneUnsafe(closed)
      if (over) {
        return resume(Effect.fail(new QmpFailed({ command, reason: "closed", detail: "the connection has ended" })))
      }
      const id = ++lastId
      waiting.set(id, (answer) =>
        resume(
          Result.match(answer, {
            onSuccess: Effect.succeed,
            onFailure: ({ detail, reason }) => Effect.fail(new QmpFailed({ command, reason, detail }))
          })
        )
      )
      const message = { execute: command, id, ...(options.arguments && { arguments: options.arguments }) }
      socket.write(`${JSON.stringify(message)}\n`)
      return Effect.sync(() => waiting.delete(id))
    }).pipe(
      Effect.timeoutOrElse({
        duration: options.deadline ?? DEADLINE,
        orElse: () => tooLate(command, options.deadline ?? DEADLINE)
      })
    )

  const version = yield* Effect.raceFirst(Deferred.await(greeted), Effect.flip(Deferred.await(closed))).pipe(
    Effect.timeoutOrElse({ duration: deadline, orElse: () => tooLate("connect", deadline) })
  )
  yield* execute("qmp_capabilities", { deadline })

  return {
    version,
    execute,
    ask: (command, answer, options) =>
      Effect.flatMap(execute(command, options), (value) =>
        Effect.mapError(
          Schema.decodeUnknownEffect(answer)(value),
          ({ message }) => new QmpFailed({ command, reason: "broken", detail: message })
        )
      ),
    events: Effect.map(PubSub.subscribe(events), (subscription) =>
      Stream.interruptWhen(Stream.fromSubscription(subscription), Deferred.await(closed))
    ),
    closed: Deferred.await(closed)
  }
})
