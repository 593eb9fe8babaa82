/**
 * `Processes` for tests, without a process: the real client of `ProcessesLive` on a simulated taproot that speaks the
 * protocol in memory, records what it was asked and does what the test says. So windows, confirmations, claims and
 * losses behave as they do in life.
 *
 * ```ts
 * const layer = ProcessesRecording.layer({
 *   answer: (spawn) => (spawn.argv[0] === "crun" ? { _tag: "Ends", code: 0 } : { _tag: "Runs" })
 * })
 * // in the test
 * const taproot = yield* ProcessesRecording.SimulatedTaproot
 * const worker = yield* taproot.process("worker")
 * yield* worker.print("stdout", "ready\n")
 * yield* worker.end({ signal: "SIGSEGV" })
 * ```
 *
 * Traps: a frame takes a turn of the event loop to arrive, as in life; wait for what you expect with an effect that the
 * code under test completes. Times are made up (they count milliseconds from a fixed instant), so that results are the
 * same every time. A process that `Runs` ends by any signal except those that a process ignores unless it asks.
 */
import { type Duplex, duplexPair } from "node:stream"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { absurd } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { type BrainFrame, decodeBrainFrame, type SpawnFrame } from "./BrainFrame.ts"
import { type ExecStage, notExecutedMessage, type ProcessExit } from "./ProcessExit.ts"
import type { ChannelLost, OutputStream, Processes, RefusalReason, ShutdownAction, StopRequest } from "./Processes.ts"
import * as ProcessesLive from "./ProcessesLive.ts"
import { type SignalName, signalNumber } from "./Signals.ts"
import { encodeTaprootFrame, type TaprootFrame } from "./TaprootFrame.ts"
import { FrameSplitter, FrameWriter, limits, protocolFeatures, protocolVersion } from "./Wire.ts"

/** How a simulated process ends. */
export type End =
  | { readonly code: number }
  | { readonly signal: SignalName; readonly coreDumped?: boolean }
  | { readonly stage: ExecStage; readonly errno: number }

/** What becomes of a SPAWN. */
export type SpawnAnswer =
  /** It runs until the test or a signal ends it. */
  | { readonly _tag: "Runs" }
  /** It prints this and ends. */
  | ({ readonly _tag: "Ends"; readonly stdout?: string; readonly stderr?: string } & End)
  | { readonly _tag: "Refused"; readonly reason: RefusalReason; readonly errno?: number }

/** What becomes of a MOUNT, UNMOUNT, CLAIM, MODULE or WATCHDOG. */
export type Answer =
  | { readonly _tag: "Done" }
  | { readonly _tag: "Refused"; readonly reason: RefusalReason; readonly errno?: number }
  /** No answer, ever: a mount that hangs. */
  | { readonly _tag: "Silence" }

export interface Options {
  /** Default: every process `Runs`. */
  readonly answer?: (spawn: SpawnFrame) => SpawnAnswer
  /** Default: done. A CLAIM that is done becomes a process that runs, with the streams it asked for. */
  readonly answerOther?: (
    request: Extract<
      BrainFrame,
      { readonly _tag: "Mount" | "Unmount" | "Claim" | "Module" | "Watchdog" | "Succeed" | "Confirm" }
    >
  ) => Answer
  /** Entries of a brain before this one. */
  readonly existing?: ReadonlyArray<{ readonly label: string; readonly stdout?: string; readonly ended?: End }>
}

/** A process that is not there. */
export interface SimulatedProcess {
  readonly id: bigint
  readonly pid: number
  readonly label: string
  /** The signals that it got, in order. */
  readonly signals: ReadonlyArray<SignalName>
  /** What was written to its standard input, and whether that was closed. */
  readonly input: Effect.Effect<{ readonly text: string; readonly closed: boolean }>
  /** How many bytes of a stream the brain has confirmed. */
  readonly confirmed: (stream: OutputStream) => Effect.Effect<number>
  readonly print: (stream: OutputStream, text: string) => Effect.Effect<void>
  /** Ends it, and its output behind what was printed. */
  readonly end: (how: End) => Effect.Effect<void>
}

/** The simulated taproot of a test. */
export class SimulatedTaproot extends Context.Service<
  SimulatedTaproot,
  {
    /** All that the brain said, in order, heartbeats left out. */
    readonly frames: ReadonlyArray<BrainFrame>
    /** The spawns among them. */
    readonly spawns: ReadonlyArray<SpawnFrame>
    /** Unacknowledged entries. */
    readonly labels: Effect.Effect<ReadonlyArray<string>>
    /** The newest entry with this label; waits until there is one. */
    readonly process: (label: string) => Effect.Effect<SimulatedProcess>
    /** taproot is told to stop. */
    readonly stop: (request?: Partial<StopRequest>) => Effect.Effect<void>
    /** Waits for SHUTDOWN. */
    readonly shutdown: Effect.Effect<ShutdownAction>
    /** taproot is gone. */
    readonly vanish: Effect.Effect<void>
  }
>()("ironwood/taproot/ProcessesRecording/SimulatedTaproot") {}

/** `Processes` on a new simulated taproot. */
export const layer = (options: Options = {}): Layer.Layer<Processes | SimulatedTaproot, ChannelLost> =>
  Layer.unwrap(
    Effect.sync(() => {
      const [brainSide, taprootSide] = duplexPair()
      const simulation = new Simulation(taprootSide, options)
      return Layer.merge(
        Layer.succeed(SimulatedTaproot, simulation.service),
        ProcessesLive.layer(Effect.succeed(brainSide))
      )
    })
  )

const unmoved: ReadonlySet<SignalName> = new Set([
  "SIGCHLD",
  "SIGCONT",
  "SIGURG",
  "SIGWINCH",
  "SIGSTOP",
  "SIGTSTP",
  "SIGTTIN",
  "SIGTTOU"
] satisfies Array<SignalName>)

/** The made-up clock: nanoseconds, one millisecond on with every look. */
class Time {
  #now = 1_700_000_000_000_000_000n
  next(): bigint {
    return (this.#now += 1_000_000n)
  }
}

const exitOf = (end: End, time: bigint): ProcessExit => {
  const usage = { time, userMicroseconds: 0, systemMicroseconds: 0, maxRssKib: 0 }
  if ("code" in end) return { _tag: "Exited", code: end.code, ...usage }
  if ("signal" in end) {
    const { coreDumped = false, signal } = end
    return { _tag: "Signaled", signal, number: signalNumber(signal), coreDumped, ...usage }
  }
  const { errno, stage } = end
  return { _tag: "NotExecuted", stage, errno, message: notExecutedMessage(stage, errno), ...usage }
}

/** One output stream: printed chunks from the first unconfirmed one on. A chunk is served whole. */
class SimulatedOutput {
  readonly chunks: Array<{ readonly time: bigint; readonly bytes: Uint8Array }> = []
  confirmed = 0n
  wanted = false
  ended = false
}

class Simulated {
  readonly id: bigint
  readonly pid: number
  readonly label: string
  readonly signals: Array<SignalName> = []
  readonly input: Array<Uint8Array> = []
  inputClosed = false
  open = { stdin: false, stdout: false, stderr: false, pty: false }
  output = { stdout: new SimulatedOutput(), stderr: new SimulatedOutput() }
  exit: ProcessExit | undefined = undefined

  constructor(id: bigint, pid: number, label: string) {
    this.id = id
    this.pid = pid
    this.label = label
  }
}

class Simulation {
  readonly #stream: Duplex
  readonly #options: Options
  readonly #time = new Time()
  readonly #writer = new FrameWriter()
  readonly #frames: Array<BrainFrame> = []
  readonly #spawns: Array<SpawnFrame> = []
  readonly #processes = new Map<bigint, Simulated>()
  readonly #shutdown = Deferred.makeUnsafe<ShutdownAction>()
  /** Who waits for a process with a label. */
  readonly #awaited = new Map<string, Deferred.Deferred<SimulatedProcess>>()
  #lastId = 4_096n

  constructor(stream: Duplex, options: Options) {
    this.#stream = stream
    this.#options = options
    for (const { ended, label, stdout } of options.existing ?? []) {
      const process = this.#make(label)
      process.open.stdout = stdout !== undefined
      if (stdout !== undefined) this.#print(process, "stdout", stdout)
      if (ended !== undefined) this.#end(process, ended, false)
    }
    const splitter = new FrameSplitter((bytes) =>
      Result.map(decodeBrainFrame(bytes), (frame) => {
        if (frame._tag !== "Heartbeat") this.#frames.push(frame)
        this.#hear(frame)
      })
    )
    stream.on("data", (chunk: Uint8Array) => {
      const heard = splitter.push(chunk)
      if (Result.isFailure(heard)) this.#fault(heard.failure.message)
    })
    stream.on("error", () => {})
    stream.on("end", () => stream.end())
  }

  readonly service = SimulatedTaproot.of({
    frames: this.#frames,
    spawns: this.#spawns,
    labels: Effect.sync(() => Array.from(this.#processes.values(), (process) => process.label)),
    process: (label) =>
      Effect.suspend(() => {
        const newest = Array.from(this.#processes.values()).findLast((process) => process.label === label)
        if (newest !== undefined) return Effect.succeed(this.#handle(newest))
        const awaited = this.#awaited.get(label) ?? Deferred.makeUnsafe<SimulatedProcess>()
        this.#awaited.set(label, awaited)
        return Deferred.await(awaited)
      }),
    stop: (request) =>
      Effect.sync(() =>
        this.#say({ _tag: "Stopping", why: "signal", action: "end", deadlineMillis: 60_000, ...request })
      ),
    shutdown: Deferred.await(this.#shutdown),
    vanish: Effect.sync(() => this.#stream.end())
  })

  #say(frame: TaprootFrame): void {
    const encoded = encodeTaprootFrame(this.#writer, frame)
    this.#stream.write(this.#writer.take())
    if (Result.isFailure(encoded)) this.#fault(`the simulation made ${encoded.failure.message}`)
  }

  #fault(text: string): void {
    this.#say({ _tag: "Fault", text })
    this.#stream.end()
  }

  #hear(frame: BrainFrame): void {
    switch (frame._tag) {
      case "Hello":
        return this.#welcome()
      case "Heartbeat":
        return
      case "Spawn":
        return this.#spawn(frame)
      case "Claim":
        return this.#claim(frame)
      case "Signal":
        return this.#signal(frame)
      case "Mount":
      case "Unmount":
      case "Module":
      case "Watchdog":
      case "Succeed":
      case "Confirm": {
        const answer = this.#options.answerOther?.(frame) ?? { _tag: "Done" }
        if (answer._tag === "Refused") this.#refuse(frame.request, answer.reason, answer.errno)
        if (answer._tag === "Done") this.#say({ _tag: "Done", request: frame.request })
        return
      }
      case "Input": {
        const process = this.#processes.get(frame.id)
        process?.input.push(frame.bytes)
        const closed = process?.open.stdin !== true || process.exit !== undefined
        return this.#say({ _tag: "InputTaken", id: frame.id, bytes: frame.bytes.length, closed })
      }
      case "InputEnd": {
        const process = this.#processes.get(frame.id)
        if (process !== undefined) process.inputClosed = true
        return
      }
      case "Read":
        return this.#read(frame)
      case "WindowSize":
        return
      case "Acknowledge":
        if (this.#processes.get(frame.id)?.exit !== undefined) this.#processes.delete(frame.id)
        return
      case "Shutdown":
        Deferred.doneUnsafe(this.#shutdown, Exit.succeed(frame.action))
        this.#stream.end()
        return
      case "Stop":
        return this.#say({ _tag: "Stopping", why: "request", action: frame.action, deadlineMillis: 120_000 })
      case "StatusRequest": {
        const entries = Array.from(this.#processes.values())
        const exited = entries.filter((process) => process.exit !== undefined).length
        const figures = {
          processes: entries.length,
          exited,
          capacity: 4_096,
          descriptors: 8,
          orphansReaped: 0,
          refused: 0
        }
        return this.#say({ _tag: "Status", request: frame.request, ...figures })
      }
      default:
        return absurd(frame)
    }
  }

  #welcome(): void {
    this.#say({
      _tag: "Welcome",
      version: protocolVersion,
      instance: "00112233445566778899aabbccddeeff",
      taprootPid: 1,
      role: "parent",
      brainStarts: 1,
      lastBrainEnd: { how: "none", value: 0, time: 0n },
      features: protocolFeatures,
      succession: { state: "none", fault: "none", end: { how: "none", value: 0, time: 0n } },
      processes: this.#processes.size
    })
    for (const { exit, id, label, open, pid } of this.#processes.values()) {
      this.#say({ _tag: "Process", id, pid, startTime: BigInt(pid), open, label, exit })
    }
  }

  #make(label: string): Simulated {
    const id = (this.#lastId += 1n)
    const process = new Simulated(id, Number(id), label)
    this.#processes.set(id, process)
    return process
  }

  /** Answers a SPAWN or CLAIM, and those of the test that wait for the process. */
  #made(request: number, process: Simulated): void {
    const { id, label, pid } = process
    this.#say({ _tag: "Spawned", request, id, pid, startTime: BigInt(pid) })
    const awaited = this.#awaited.get(label)
    this.#awaited.delete(label)
    if (awaited !== undefined) Deferred.doneUnsafe(awaited, Exit.succeed(this.#handle(process)))
  }

  #refuse(request: number, reason: RefusalReason, errno = 0): void {
    this.#say({ _tag: "Refused", request, reason, errno, text: "simulated" })
  }

  #spawn(frame: SpawnFrame): void {
    this.#spawns.push(frame)
    const answer = this.#options.answer?.(frame) ?? { _tag: "Runs" }
    if (answer._tag === "Refused") return this.#refuse(frame.request, answer.reason, answer.errno)
    const process = this.#make(frame.label)
    const pty = frame.stdin._tag === "Pty" || frame.stdin._tag === "Console"
    process.open = {
      stdin: pty || frame.stdin._tag === "Stream",
      stdout: pty || frame.stdout._tag === "Stream",
      stderr: frame.stderr._tag === "Stream",
      pty
    }
    this.#made(frame.request, process)
    if (answer._tag === "Runs") return
    this.#print(process, "stdout", answer.stdout ?? "")
    this.#print(process, "stderr", answer.stderr ?? "")
    this.#end(process, answer, true)
  }

  #claim(frame: Extract<BrainFrame, { readonly _tag: "Claim" }>): void {
    const answer = this.#options.answerOther?.(frame) ?? { _tag: "Done" }
    if (answer._tag === "Refused") this.#refuse(frame.request, answer.reason, answer.errno)
    if (answer._tag !== "Done") return
    const id = (this.#lastId += 1n)
    const process = new Simulated(id, frame.pid, frame.label)
    this.#processes.set(id, process)
    const source = this.#processes.get(frame.streamsFrom)
    if (source !== undefined) {
      process.open = source.open
      process.output = source.output
      source.open = { stdin: false, stdout: false, stderr: false, pty: false }
      source.output = { stdout: new SimulatedOutput(), stderr: new SimulatedOutput() }
    }
    this.#made(frame.request, process)
  }

  #signal(frame: Extract<BrainFrame, { readonly _tag: "Signal" }>): void {
    const process = this.#processes.get(frame.id)
    if (process === undefined || process.exit !== undefined) return this.#refuse(frame.request, "no-such-process")
    process.signals.push(frame.signal)
    this.#say({ _tag: "Done", request: frame.request })
    if (!unmoved.has(frame.signal)) this.#end(process, { signal: frame.signal }, true)
  }

  #print(process: Simulated, stream: OutputStream, text: string): void {
    const bytes = Buffer.from(text)
    const output = process.output[stream]
    for (let at = 0; at < bytes.length; at += limits.windowBytes) {
      output.chunks.push({ time: this.#time.next(), bytes: bytes.subarray(at, at + limits.windowBytes) })
    }
    this.#serve(process, stream)
  }

  #end(process: Simulated, how: End, tell: boolean): void {
    if (process.exit !== undefined) return
    const exit = exitOf(how, this.#time.next())
    process.exit = exit
    if (tell) this.#say({ _tag: "Exited", id: process.id, exit })
    for (const stream of ["stdout", "stderr"] as const) {
      process.output[stream].ended = true
      this.#serve(process, stream)
    }
  }

  #read(frame: Extract<BrainFrame, { readonly _tag: "Read" }>): void {
    const process = this.#processes.get(frame.id)
    if (process === undefined) return this.#fault(`READ of process ${frame.id}, which is not there`)
    const output = process.output[frame.stream]
    const inHand = output.chunks[0]
    const consumed = frame.consumed === 0n ? output.confirmed : frame.consumed
    if (inHand !== undefined && consumed === output.confirmed + BigInt(inHand.bytes.length)) {
      output.chunks.shift()
      output.confirmed = consumed
    }
    if (consumed !== output.confirmed) return this.#fault(`READ confirms ${consumed}, served up to ${output.confirmed}`)
    output.wanted = true
    this.#serve(process, frame.stream)
  }

  #serve(process: Simulated, stream: OutputStream): void {
    const output = process.output[stream]
    const chunk = output.chunks[0]
    const end = chunk === undefined && (output.ended || !process.open[stream])
    if (!output.wanted || (chunk === undefined && !end)) return
    output.wanted = false
    const { bytes, time } = chunk ?? { bytes: new Uint8Array(0), time: this.#time.next() }
    this.#say({ _tag: "Output", id: process.id, stream, offset: output.confirmed, time, end, bytes })
  }

  #handle(process: Simulated): SimulatedProcess {
    const { id, label, pid, signals } = process
    return {
      id,
      pid,
      label,
      signals,
      input: Effect.sync(() => ({ text: Buffer.concat(process.input).toString(), closed: process.inputClosed })),
      confirmed: (stream) => Effect.sync(() => Number(process.output[stream].confirmed)),
      print: (stream, text) => Effect.sync(() => this.#print(process, stream, text)),
      end: (how) => Effect.sync(() => this.#end(process, how, true))
    }
  }
}
