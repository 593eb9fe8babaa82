/**
 * A container in the foreground: its output here until it ends, Ctrl-C stops it, and its exit code becomes ours.
 *
 * It has ended when its policy does not start it again (finished, failed, parked) or when somebody stopped it. What it wrote last
 * is read once more after that, so that nothing is lost between the output and the end.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { constants } from "node:os"
import {
  type Container,
  type ContainerExit,
  ContainerService,
  ContainerState,
  type LogEntry
} from "../../proto/generated/ironwood/v1/container_pb.ts"
import { Client, orElseStatus, status } from "./Client.ts"
import * as ContainerLogs from "./ContainerLogs.ts"
import { exitCodes } from "./ExitCode.ts"
import { LogPrinter } from "./LogPrinter.ts"
import * as Output from "./Output.ts"
import { removeContainer, stopContainer } from "./Remove.ts"
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

const signalNumbers: ReadonlyMap<string, number> = new Map(Object.entries(constants.signals))

const hasEnded = ({ status }: Container): boolean => status !== undefined && over.has(status.state)

/** The exit code docker would give: its own, 128 + N for signal N, 127 and 126 without a program, 1 when it never came up else. */
const exitCodeOf = (exit: ContainerExit | undefined): number => {
  if (exit === undefined) return exitCodes.failed
  if (exit.code !== undefined) return exit.code
  const number = signalNumbers.get(exit.signal)
  return number === undefined ? exitCodes.failed : 128 + number
}

/** Shows it until it has ended; fails with {@link ContainerEnded} unless it ended with 0. */
export const attach = Effect.fnUntraced(function* (container: Container, options: { readonly remove: boolean }) {
  const client = yield* Client
  const signals = yield* (yield* Signals).claim
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
  const last = yield* Effect.raceFirst(
    ended,
    Effect.raceFirst(Effect.andThen(output(true), Effect.never), stopOnSignal)
  )
  yield* output(false)
  yield* Output.progressDone
  if (options.remove) yield* removeContainer(name, true)
  if (interrupted) return yield* new ContainerEnded({ code: exitCodes.interrupted })
  const exit = Option.getOrUndefined(last)?.status?.lastExit
  const code = exitCodeOf(exit)
  if (code === 0) return yield* Effect.void
  // the output of one that exited by itself has said what there is to say
  if (exit !== undefined && exit.tag !== "ContainerExited")
    yield* Output.remark(`ironwood: ${Text.clean(exit.message)}`)
  return yield* new ContainerEnded({ code })
}, Effect.scoped)
