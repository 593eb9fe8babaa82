/**
 * A container in the foreground: its output here until it ends, Ctrl-C stops it, and its exit code becomes ours.
 *
 * It has ended when its policy does not start it again (finished, failed, parked) or when somebody stopped it. What it wrote last
 * is read once more after that, so that nothing is lost between the output and the end. One whose program is not there is
 * removed again, as nothing of it has run.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import {
  type AttachContainerRequestSchema,
  type Container,
  ContainerService,
  ContainerState,
  type LogEntry
} from "../../proto/generated/ironwood/v1/container_pb.ts"
import { Client, orElseStatus, status } from "./Client.ts"
import { exitCodeOf } from "./ContainerExitCode.ts"
import * as ContainerLogs from "./ContainerLogs.ts"
import { exitCodes } from "./ExitCode.ts"
import { withNext } from "./Failure.ts"
import * as Interactive from "./Interactive.ts"
import { Keyboard } from "./Keyboard.ts"
import { LogPrinter } from "./LogPrinter.ts"
import * as Output from "./Output.ts"
import { removeContainer, stopContainer } from "./Remove.ts"
import { Screen } from "./Screen.ts"
import { Signals } from "./Signals.ts"
import * as Text from "./Text.ts"
import * as Watch from "./Watch.ts"

/** The container ended with another exit code than 0. Nothing more is printed for it. */
export class ContainerEnded extends Schema.TaggedError<ContainerEnded>()("ContainerEnded", { code: Schema.Int }) {
  override readonly [Runtime.errorExitCode] = this.code
  override get message() {
    return `the container ended with ${this.code}`
  }
}

const over: ReadonlySet<ContainerState> = new Set([
  ContainerState.STOPPED,
  ContainerState.FINISHED,
  ContainerState.FAILED,
  ContainerState.PARKED
])

const hasEnded = ({ status }: Container): boolean => status !== undefined && over.has(status.state)

/** Its program was not there, or could not be executed, and so nothing of it has ever run. */
const programMissing = (container: Container | undefined): boolean => {
  const status = container?.status
  const tag = status?.lastExit?.tag
  return (tag === "ProgramNotFound" || tag === "ProgramNotExecutable") && status?.restarts === 0
}

/** Shows it until it has ended; fails with {@link ContainerEnded} unless it ended with 0. */
export const attach = Effect.fnUntraced(function* (
  container: Container,
  options: {
    readonly remove: boolean
    readonly input: boolean
    readonly terminal: boolean
    readonly detachKeys: ReadonlyArray<number>
  }
) {
  const client = yield* Client
  const keyboard = yield* Keyboard
  const screen = yield* Screen
  const name = container.spec?.name ?? ""
  const printer = yield* LogPrinter.make({ timestamps: false })
  let printed = ContainerLogs.start
  // uninterruptible: what is printed and what is noted as printed stay the same when the end of the container comes between
  const print = (entries: ReadonlyArray<LogEntry>) =>
    Effect.uninterruptible(
      Effect.tap(printer.print(entries), () =>
        Effect.sync(() => void (printed = ContainerLogs.after(printed, entries)))
      )
    )
  const output = (follow: boolean) =>
    Stream.suspend(() => ContainerLogs.stream(client, { name, follow, streams: [] }, printed)).pipe(
      Stream.runForEachArray(print)
    )
  const look = client.call(ContainerService.method.getContainer, { name }).pipe(
    Effect.map(({ container }) => Option.filter(Option.fromUndefinedOr(container), hasEnded)),
    // the watch tells when it is back
    orElseStatus(status.unavailable, () => Effect.succeedNone)
  )
  const ended = Watch.follow(client, { path: container.actorPath }).pipe(
    Stream.mapEffect(() => look),
    Stream.filter(Option.isSome),
    Stream.runHead,
    Effect.map(Option.flatten)
  )
  const typing = options.input && options.terminal
  const size = yield* Interactive.windowSize
  const sized = options.terminal && screen.isTerminal
  const said = yield* Interactive.said({
    input: options.input,
    terminal: sized,
    detachable: typing && options.detachKeys
  })
  if (typing) yield* keyboard.raw
  // the latest claim gets them: here they mean more than to be passed on
  const signals = yield* (yield* Signals).claim
  const start: MessageInitShape<typeof AttachContainerRequestSchema> = {
    request: { case: "start", value: { name, inputOnly: true, ...(sized ? { terminal: size } : {}) } }
  }
  const talk = client
    .exchange(
      ContainerService.method.attachContainer,
      Stream.concat(
        Stream.make<[typeof start]>(start),
        Stream.map(said, (request): typeof start => ({ request }))
      )
    )
    .pipe(
      Stream.runDrain,
      // how it ends is told by the watch; but who types shall not type into the void
      Effect.catchTag("Failure", (error) =>
        typing && error.status !== status.failedPrecondition && error.status !== status.notFound
          ? Effect.fail(withNext(error, `\`ironwood attach ${Text.clean(name)}\` comes back to it`))
          : Effect.void
      ),
      Effect.catchTag("Impatient", () => Effect.void),
      Effect.andThen(Effect.never)
    )
  const listening = options.input || options.terminal ? talk : Effect.never
  let interrupted = false
  const stopOnSignal = Effect.gen(function* () {
    yield* Queue.take(signals)
    interrupted = true
    yield* Output.progress(`stopping ${Text.clean(name)}…`)
    yield* stopContainer(name)
    yield* Queue.take(signals)
    yield* Output.remark(`${Text.clean(name)} is still stopping; \`ironwood stop -t 0 ${Text.clean(name)}\` kills it`)
    return yield* Effect.never
  })
  const shown = Effect.andThen(output(true), Effect.never)
  const last = yield* ended.pipe(
    Effect.raceFirst(shown),
    Effect.raceFirst(stopOnSignal),
    Effect.raceFirst(listening),
    Effect.catchTag("Detached", () => Effect.succeed("detached" as const))
  )
  if (last === "detached") {
    return yield* Output.remark(`detached; \`ironwood attach ${Text.clean(name)}\` comes back to it`)
  }
  yield* output(false)
  yield* Output.progressDone
  const mistyped = programMissing(Option.getOrUndefined(last))
  // one that never ran is of no use to anybody: the next try is typed anew, often with the same name
  if (options.remove || mistyped) yield* removeContainer(name, true)
  if (interrupted) return yield* new ContainerEnded({ code: exitCodes.interrupted })
  const exit = Option.getOrUndefined(last)?.status?.lastExit
  const code = exitCodeOf(exit)
  if (code === 0) return yield* Effect.void
  // the output of one that exited by itself has said what there is to say
  if (exit !== undefined && exit.tag !== "ContainerExited")
    yield* Output.remark(`ironwood: ${Text.clean(exit.message)}`)
  if (mistyped && container.spec?.command[0]?.startsWith("-") === true) {
    yield* Output.remark(
      "What stands behind IMAGE is its command: flags of `ironwood run` come before it. The container is removed again."
    )
  }
  return yield* new ContainerEnded({ code })
}, Effect.scoped)
