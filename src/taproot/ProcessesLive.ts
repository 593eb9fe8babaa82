/**
 * The real `Processes`: a table of taproot's entries as this brain knows them, kept by the frames that arrive. Answers
 * and ends go into the table synchronously and in the order of the channel: an exit right behind a SPAWNED, or output
 * behind a claim, always finds its entry.
 *
 * `ProcessesLive` is for the brain (descriptor 3, where taproot put the end of its socketpair); `layer` for everything
 * else that speaks the protocol.
 *
 * Trap: the heartbeat is sent from the main event loop on purpose. A loop that is blocked for longer than taproot's
 * limit is a dead brain and is treated as one.
 */
import { Socket } from "node:net"
import type { Duplex } from "node:stream"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { absurd } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { BrainFrame } from "./BrainFrame.ts"
import * as Channel from "./Channel.ts"
import type { EntryFacts } from "./Entry.ts"
import type { ProcessExit } from "./ProcessExit.ts"
import {
  ChannelLost,
  ClaimRefused,
  type ClaimRequest,
  type Hello,
  MountFailed,
  type Process,
  Processes,
  ProcessId,
  SpawnRefused,
  type SpawnRequest,
  type StopRequest,
  SuccessorRefused,
  ModuleRefused,
  UnmountFailed,
  WatchdogRefused
} from "./Processes.ts"
import { type Refusal, Requests } from "./Requests.ts"
import { run } from "./Run.ts"
import { spawnFrame } from "./SpawnFrame.ts"
import { Table } from "./Table.ts"
import { oldestProtocolVersion, protocolVersion } from "./Wire.ts"

export interface Options {
  /**
   * It is the taproot of a guest, a stranger: when an answer takes longer than this the channel counts as lost. With the channel
   * of our own taproot dies whoever stands on it, which is everybody; of a lost guest, and once the scope has closed, the
   * processes count as killed, and what is asked is refused.
   */
  readonly guestPatience?: Duration.Duration
  /** Called at the loss, before anybody who waits hears of it. */
  readonly lost?: (reason: ChannelLost) => void
}

/** More entries than any taproot has. */
const MOST_PROCESSES = 65_536

/** Says HELLO over this stream and serves `Processes` until the scope closes, which destroys the stream. */
export const make = (
  stream: Duplex,
  { guestPatience, lost: tellLost }: Options = {}
): Effect.Effect<Processes["Service"], ChannelLost, Scope.Scope> =>
  Effect.gen(function* () {
    const greeted = yield* Deferred.make<Hello, ChannelLost>()
    const lost = yield* Deferred.make<ChannelLost>()
    const stopping = yield* Deferred.make<StopRequest>()
    let hello: Hello | undefined = undefined
    let awaited = 0
    const due = new Due()

    const greet = (): void => {
      if (hello !== undefined && awaited === 0) Deferred.doneUnsafe(greeted, Exit.succeed(hello))
    }

    const onFrame = (frame: Channel.Incoming): string | undefined => {
      switch (frame._tag) {
        case "Welcome": {
          if (hello !== undefined) return "a second WELCOME"
          if (frame.version < oldestProtocolVersion || frame.version > protocolVersion)
            return `version ${frame.version} of the protocol, not ${oldestProtocolVersion} to ${protocolVersion}`
          const { brainStarts, features, instance, lastBrainEnd, role, succession, taprootPid } = frame
          if (frame.processes > MOST_PROCESSES) return `${frame.processes} processes, more than there can be`
          hello = { instance, taprootPid, role, brainStarts, lastBrainEnd, features, succession }
          awaited = frame.processes
          greet()
          return undefined
        }
        case "Process": {
          if (awaited === 0) return "a PROCESS that WELCOME did not announce"
          due.entry()
          const { exit, id, label, open, pid, startTime } = frame
          const problem = table.meet({ id: ProcessId(id), pid, startTime, label, adopted: true, open }, exit)
          if (problem !== undefined) return problem
          awaited -= 1
          greet()
          return undefined
        }
        case "Spawned":
        case "Done":
        case "Status":
        case "Refused":
          return requests.answered(frame)
        case "Exited": {
          const entry = table.get(frame.id)
          return entry === undefined ? `EXITED for process ${frame.id}, which is not there` : entry.ended(frame.exit)
        }
        // What was on its way when an entry was acknowledged, or its streams moved, finds nobody.
        case "Output": {
          const unasked = due.output()
          if (unasked !== undefined) return unasked
          const entry = table.get(frame.id)
          return (frame.stream === "stdout" ? entry?.stdout : entry?.stderr)?.arrived(frame)
        }
        case "InputTaken":
          return (
            due.inputTaken(frame.bytes, frame.closed) ?? table.get(frame.id)?.stdin?.taken(frame.bytes, frame.closed)
          )
        case "Stopping": {
          const { action, deadlineMillis, why } = frame
          return Deferred.doneUnsafe(stopping, Exit.succeed({ why, action, deadlineMillis }))
            ? undefined
            : "a second STOPPING"
        }
        default:
          return absurd(frame)
      }
    }

    /** Nobody shall wait any more. */
    const release = (reason: ChannelLost): void => {
      requests.lose(reason)
      if (guestPatience === undefined) table.lose(reason)
      else table.vanish(killedNow())
    }

    const onLost = (reason: ChannelLost): void => {
      tellLost?.(reason)
      Deferred.doneUnsafe(lost, Exit.succeed(reason))
      Deferred.doneUnsafe(greeted, Exit.fail(reason))
      // One turn later, so that the brain's main, which ends the brain, comes first.
      setImmediate(() => release(reason))
    }

    const channel = yield* Channel.open(stream, { onFrame, onLost })
    const requests = new Requests(
      (frame) => {
        due.sent(frame)
        return channel.send(frame)
      },
      guestPatience === undefined
        ? undefined
        : {
            patience: guestPatience,
            overdue: (detail) => channel.lose("silent", `${detail} within ${Duration.format(guestPatience)}`)
          }
    )
    const table = new Table(requests)
    if (guestPatience !== undefined) {
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => release(new ChannelLost({ reason: "closed", detail: "the guest was left" })))
      )
    }
    yield* requests.send({ _tag: "Hello", version: protocolVersion, oldest: oldestProtocolVersion })
    const welcome = yield* guestPatience === undefined
      ? Deferred.await(greeted)
      : Effect.timeoutOrElse(Deferred.await(greeted), {
          duration: guestPatience,
          orElse: () => new ChannelLost({ reason: "silent", detail: "no WELCOME" })
        })
    yield* Effect.forkScoped(heartbeat(requests))

    const spawn = (request: SpawnRequest): Effect.Effect<Process, SpawnRefused> =>
      Effect.uninterruptible(
        requests.ask(
          (number) => spawnFrame(number, request),
          (answer) =>
            answer._tag === "Spawned"
              ? Option.some(
                  table.add({
                    id: ProcessId(answer.id),
                    pid: answer.pid,
                    startTime: answer.startTime,
                    label: request.label,
                    adopted: false,
                    open: openStreams(request)
                  }).process
                )
              : Option.none(),
          (refusal) => new SpawnRefused({ label: request.label, ...refusal })
        )
      )

    const claim = (request: ClaimRequest): Effect.Effect<Process, ClaimRefused> =>
      Effect.suspend(() => {
        const { label, pid, startTime = 0n, streamsFrom = 0n } = request
        const source = table.get(streamsFrom)
        source?.hold()
        return requests.ask(
          (number) => ({ _tag: "Claim", request: number, pid, startTime, label, streamsFrom }),
          (answer) => {
            if (answer._tag !== "Spawned") return Option.none()
            const entry = table.add({
              id: ProcessId(answer.id),
              pid: answer.pid,
              startTime: answer.startTime,
              label,
              adopted: false,
              open: source?.process.streams ?? noStreams
            })
            if (source !== undefined) entry.takePortsOf(source)
            return Option.some(entry.process)
          },
          (refusal) => {
            source?.release()
            return new ClaimRefused({ pid, label, ...refusal })
          }
        )
      }).pipe(Effect.uninterruptible)

    const done = <E>(frame: (request: number) => BrainFrame, refuse: (refusal: Refusal) => E): Effect.Effect<void, E> =>
      requests.ask(frame, (answer) => (answer._tag === "Done" ? Option.some(undefined) : Option.none()), refuse)

    return Processes.of({
      hello: welcome,
      spawn,
      claim,
      run: (request) => run(spawn, request),
      adoptable: Effect.sync(() => table.adoptable()),
      take: (label) => Effect.sync(() => table.take(label)),
      takeAll: (prefix) => Effect.sync(() => table.takeAll(prefix)),
      mount: (mount) =>
        done(
          (request) => ({
            _tag: "Mount",
            request,
            source: mount.source,
            target: mount.target,
            type: mount.type,
            flags: mount.flags ?? 0n,
            data: mount.data ?? "",
            directory: mount.directory ?? ""
          }),
          (refusal) => new MountFailed({ source: mount.source, target: mount.target, type: mount.type, ...refusal })
        ),
      unmount: (target, flags = 0) =>
        done(
          (request) => ({ _tag: "Unmount", request, target, flags }),
          (refusal) => new UnmountFailed({ target, ...refusal })
        ),
      loadModule: (file, parameters) =>
        done(
          (request) => ({ _tag: "Module", request, file, parameters }),
          (refusal) => new ModuleRefused({ file, ...refusal })
        ),
      setWatchdog: (timeoutSeconds, patienceMillis) =>
        done(
          (request) => ({ _tag: "Watchdog", request, timeoutSeconds, patienceMillis }),
          (refusal) => new WatchdogRefused(refusal)
        ),
      succeed: ({ argv, patienceMillis, tries }) =>
        done(
          (request) => ({ _tag: "Succeed", request, patienceMillis, tries, argv }),
          (refusal) => new SuccessorRefused(refusal)
        ),
      // taproot has no reason to refuse these, ever.
      confirm: Effect.orDie(
        done(
          (request) => ({ _tag: "Confirm", request }),
          (refusal) => refusal
        )
      ),
      status: Effect.orDie(
        requests.ask(
          (request) => ({ _tag: "StatusRequest", request }),
          (answer) => (answer._tag === "Status" ? Option.some(answer) : Option.none()),
          (refusal) => refusal
        )
      ),
      requestStop: (action) =>
        welcome.features.includes("stop")
          ? requests.send({ _tag: "Stop", action })
          : // a taproot from before that frame: this brain alone knows
            Effect.sync(() =>
              Deferred.doneUnsafe(stopping, Exit.succeed({ why: "request", action, deadlineMillis: 0 }))
            ),
      stopRequested: Deferred.await(stopping),
      finish: (action) => requests.send({ _tag: "Shutdown", action }),
      lost: Deferred.await(lost)
    })
  })

/** How a process ended of which nothing will be heard any more. */
const killedNow = (): ProcessExit => ({
  _tag: "Signaled",
  signal: "SIGKILL",
  number: 9,
  coreDumped: false,
  time: BigInt(Date.now()) * 1_000_000n,
  userMicroseconds: 0,
  systemMicroseconds: 0,
  maxRssKib: 0
})

/**
 * What the other side owes us: it says nothing by itself that is not bounded by what it was asked. So one that floods breaks
 * the protocol, and costs no more than the time until it has done so.
 */
class Due {
  #outputs = 0
  #inputBytes = 0
  #closings = 0

  sent(frame: BrainFrame): void {
    if (frame._tag === "Read") this.#outputs++
    else if (frame._tag === "Spawn" || frame._tag === "Claim") this.#closings++
    else if (frame._tag === "Input") {
      this.#inputBytes += frame.bytes.length
      this.#closings++
    }
  }

  /** An entry that was there before. */
  entry(): void {
    this.#closings++
  }

  output(): string | undefined {
    return --this.#outputs < 0 ? "OUTPUT that nobody asked for" : undefined
  }

  inputTaken(bytes: number, closed: boolean): string | undefined {
    this.#inputBytes -= bytes
    if (closed) this.#closings--
    if (bytes === 0 && !closed) return "INPUT_TAKEN that says nothing"
    return this.#inputBytes < 0 || this.#closings < 0 ? "INPUT_TAKEN of what was not sent" : undefined
  }
}

/** `Processes` over a byte stream that `open` gives. */
export const layer = <E, R>(open: Effect.Effect<Duplex, E, R>) => Layer.effect(Processes, Effect.flatMap(open, make))

/** The brain's `Processes`: over descriptor 3. */
export const ProcessesLive: Layer.Layer<Processes, ChannelLost> = layer(
  Effect.try({
    try: () => new Socket({ fd: 3, readable: true, writable: true }),
    catch: () =>
      new ChannelLost({ reason: "closed", detail: "descriptor 3 is no socket: it is taproot that starts a brain" })
  })
)

/** "The main loop is alive": at once and then every second. */
const heartbeat = (requests: Requests): Effect.Effect<void> =>
  Effect.suspend(() => {
    let sequence = 0n
    return Effect.suspend(() => requests.send({ _tag: "Heartbeat", sequence: (sequence += 1n) })).pipe(
      Effect.repeat(Schedule.spaced("1 second")),
      Effect.asVoid
    )
  })

const noStreams: EntryFacts["open"] = { stdin: false, stdout: false, stderr: false, pty: false }

/** The streams of a process that taproot will serve. */
const openStreams = ({ stderr, stdin, stdout }: SpawnRequest): EntryFacts["open"] => {
  const pty = stdin?._tag === "Pty" || stdin?._tag === "Console"
  return {
    stdin: pty || stdin?._tag === "Stream",
    stdout: pty || stdout?._tag === "Stream",
    stderr: stderr?._tag === "Stream",
    pty
  }
}
