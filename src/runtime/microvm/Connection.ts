/**
 * From a virtual machine monitor that is there to a guest that answers, and from then on a watch over both. What is connected
 * goes on until its end, whoever asked for it.
 *
 * Traps:
 * - The watch begins with the connection, and kills the VMM: with it every wait for the guest is over, also that of somebody
 *   who cannot be interrupted and who never gets as far as to see it.
 * - What is given up half-way leaves its VMM: that is its caller's to clear away.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Content } from "../../storage/Content.ts"
import type { ProcessLog } from "../../storage/logs/ProcessLog.ts"
import { connect } from "../../taproot/GuestPort.ts"
import * as ProcessExit from "../../taproot/ProcessExit.ts"
import type { ChannelLost, Process } from "../../taproot/Processes.ts"
import * as ProcessesLive from "../../taproot/ProcessesLive.ts"
import type { GuestState, Hypervisor } from "../../vmm/Hypervisor.ts"
import { MicroVmFailed } from "../ContainerExit.ts"
import type { HostPaths } from "../HostPaths.ts"
import type { Secrets } from "../Secrets.ts"
import type { System } from "../System.ts"
import * as GuestSystem from "./GuestSystem.ts"

/** A microVM whose guest answers. */
export interface MicroVm {
  readonly process: Process
  readonly system: System
  /** The release of its guest's kernel, as the guest says. */
  readonly kernel: string
  /** Waits for its end: why. */
  readonly ended: Effect.Effect<string>
}

export interface Live extends MicroVm {
  readonly scope: Scope.Closeable
  /** From here on what is in it counts as gone: it is about to be ended. */
  readonly leave: Effect.Effect<void>
  /** Done when all that it has said is in its log. */
  readonly stored: Deferred.Deferred<void>
  /** Done when, after its end, nothing of it is left. */
  readonly cleared: Deferred.Deferred<void>
}

/** The socket of the port to the guest's taproot, in its VMM's directory. */
export const SOCKET = "guest"

/** How long a guest's taproot may take with an answer: below what any actor has for its end. */
const SILENT = Duration.seconds(30)
/** Between two questions whether it is well. */
const BETWEEN_LOOKS = Duration.seconds(5)

/** Of the console, told when a guest does not come up. */
const LAST_LINES = 3
const MOST_OF_LINE = 200

const over: Partial<Record<GuestState, string>> = {
  "powered-off": "its guest powered off",
  panicked: "the kernel of its guest panicked",
  hung: "its guest hung",
  stalled: "its host has no room left for its disk"
}

const lossWords = ({ detail, reason }: ChannelLost): string => {
  if (reason === "closed") return "its guest could not be reached any more"
  return reason === "silent" ? `its guest was silent: ${detail}` : `its guest broke the protocol: ${detail}`
}

/** Looks after the VMM of a sandbox until its guest answers; what it is then goes on until its end, or that of `scope`. */
export const make = Effect.fnUntraced(function* (input: {
  readonly sandbox: string
  readonly process: Process
  /** Those who serve directories to it. */
  readonly servers: ReadonlyArray<Process>
  /** Of its VMM. */
  readonly directory: string
  /** What the console and the VMM say. */
  readonly log: ProcessLog
  readonly patience: Duration.Duration
  readonly scope: Scope.Scope
  readonly hypervisor: Hypervisor["Service"]
  readonly content: Content["Service"]
  readonly hostPaths: HostPaths
  readonly secrets: Secrets["Service"]
  /** The sandbox has another one soon, told before this one has ended. */
  readonly expected: Effect.Effect<void>
  /** The names of the containers that it was started for, if it was just now. */
  readonly containers?: ReadonlySet<string>
  /** What to add when it does not come up. */
  readonly advice?: string
}): Effect.fn.Return<Live, MicroVmFailed> {
  const {
    advice = "",
    containers,
    content,
    directory,
    expected,
    hostPaths,
    hypervisor,
    log,
    patience,
    process,
    sandbox,
    scope,
    secrets,
    servers
  } = input
  const failed = (detail: string) => new MicroVmFailed({ name: sandbox, detail })
  const begun = yield* Clock.currentTimeNanos
  /** The last that was on its console since then. */
  const lastWords = Effect.map(
    Stream.runCollect(log.read({ lines: LAST_LINES, since: begun })).pipe(
      Effect.timeoutOption("2 seconds"),
      Effect.orElseSucceed(() => Option.none())
    ),
    (entries) =>
      Option.getOrElse(entries, () => [])
        .map(({ complete, content: bytes }) => Buffer.from(bytes).toString("latin1") + (complete ? "\n" : ""))
        .join("")
        .split("\n")
        .map((line) => line.trim())
        .filter((line) => line !== "")
        .slice(-LAST_LINES)
        .map((line) => line.slice(0, MOST_OF_LINE))
        .join(" / ")
  )
  const own = yield* Scope.fork(scope)
  const inOwn = <A, E, R>(effect: Effect.Effect<A, E, R>) => Scope.provide(effect, own)
  yield* inOwn(Effect.addFinalizer(() => log.close))
  const stored = yield* inOwn(log.attach(process))
  const ended = yield* Deferred.make<string>()
  let isGone = false
  const end = (why: string) =>
    Effect.suspend(() => {
      isGone = true
      return Deferred.succeed(ended, why)
    })
  const exited = Effect.map(process.exit, (exit) => `its virtual machine monitor ${ProcessExit.describe(exit)}`)
  /** Ends the connection, and everybody's wait for the guest with it. */
  let hangUp = Effect.void

  const reached = Effect.gen(function* () {
    const control = yield* Effect.mapError(inOwn(hypervisor.control(directory, process)), ({ message }) =>
      failed(message)
    )
    const events = yield* inOwn(control.events)
    const state = Effect.orElseSucceed(control.state, (): GuestState => "running")
    if ((yield* state) === "created") {
      yield* Effect.mapError(control.resume, ({ message }) => failed(message))
    }
    /** Waits until the guest has come to an end that its VMM has seen. */
    const isOver = Effect.flatMap(state, (now) => {
      const why = over[now]
      return why === undefined ? Effect.never : Effect.succeed(why)
    })
    const watched = Effect.raceFirst(
      isOver,
      Stream.runHead(
        events.pipe(
          Stream.mapEffect(() => state),
          Stream.map((now) => over[now]),
          Stream.filter((why) => why !== undefined)
        )
      ).pipe(Effect.flatMap((found) => (Option.isSome(found) ? Effect.succeed(found.value) : Effect.never)))
    )
    const socket = yield* inOwn(connect(`${directory}/${SOCKET}`)).pipe(
      Effect.raceFirst(Effect.flatMap(Effect.raceFirst(exited, watched), (why) => Effect.fail(failed(why)))),
      Effect.timeoutOrElse({
        duration: patience,
        orElse: () => Effect.fail(failed(`its guest did not answer within ${Duration.format(patience)}`))
      })
    )
    hangUp = Effect.sync(() => {
      socket.destroy()
    })
    const guest = yield* inOwn(
      ProcessesLive.make(socket, {
        guestPatience: SILENT,
        lost: () => {
          isGone = true
        }
      })
    ).pipe(Effect.mapError((lost) => failed(lossWords(lost))))
    /** Asks whether it is well, again and again: no answer is the loss of the channel. */
    const asked = Effect.andThen(
      Effect.ignoreCause(Effect.repeat(guest.status, Schedule.spaced(BETWEEN_LOOKS))),
      Effect.never
    )
    const lost = Effect.flatMap(guest.lost, (reason) =>
      // the VMM's end, which closes the port, says more
      Effect.delay(Effect.succeed(lossWords(reason)), "1 second")
    )
    const unserved = servers.map(({ exit }) =>
      // they end with the VMM, whose end says more
      Effect.delay(
        Effect.map(exit, (how) => `virtiofsd, which shares a directory with it, ${ProcessExit.describe(how)}`),
        "1 second"
      )
    )
    yield* Effect.raceAllFirst([exited, watched, lost, asked, ...unserved, Deferred.await(ended)]).pipe(
      Effect.flatMap(end),
      Effect.andThen(Effect.ignore(process.signal("SIGKILL", { group: true }))),
      Effect.andThen(hangUp),
      Effect.forkIn(own)
    )

    const gone = Effect.suspend(() => (isGone ? Effect.asSome(Deferred.await(ended)) : Effect.succeedNone))
    let isRenewed = false
    const renew = (container: string) =>
      Effect.suspend(() => {
        isRenewed = true
        // before anybody asks for it again
        return Effect.andThen(expected, end(`it is started anew, with what ${container} has`))
      })
    const broken = (detail: string) => Effect.asVoid(end(`its guest broke the protocol: ${detail}`))
    const made = GuestSystem.make({
      processes: guest,
      content,
      hostPaths,
      secrets,
      containers,
      gone,
      insert: control.insertDisk,
      renew,
      isRenewed: Effect.sync(() => isRenewed),
      broken
    })
    const { kernel, system } = yield* inOwn(made).pipe(
      Effect.mapError(({ message }) => failed(message)),
      Effect.raceFirst(Effect.flatMap(Deferred.await(ended), (why) => Effect.fail(failed(why)))),
      Effect.timeoutOrElse({
        duration: patience,
        orElse: () => Effect.fail(failed(`its guest was not ready within ${Duration.format(patience)}`))
      })
    )
    const cleared = yield* Deferred.make<void>()
    const leave = Effect.sync(() => {
      isGone = true
    })
    return { process, system, kernel, leave, stored, cleared, scope: own, ended: Deferred.await(ended) }
  })
  return yield* reached.pipe(
    Effect.catch((error) =>
      Effect.flatMap(lastWords, (said) =>
        Effect.fail(
          failed(`${error.detail}; its console ${said === "" ? "stayed empty" : `ended with: ${said}`}${advice}`)
        )
      )
    ),
    Effect.onError(() =>
      Effect.andThen(
        Effect.suspend(() => hangUp),
        Scope.close(own, Exit.void)
      )
    )
  )
})
