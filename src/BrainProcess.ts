/**
 * What every brain process has, the ordinary one (`main.ts`) and the rescue brain (`rescue.ts`): how it says something, how it
 * ends, and where it is on a machine that boots into Ironwood.
 *
 * Trap: {@link run} makes the process crash on what nobody caught. That is meant: a brain in an unknown state is worse than
 * the next one, which adopts everything.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import { mkdirSync, readFileSync, writeSync } from "node:fs"
import { dirname } from "node:path"
import * as KernelParameters from "./host/KernelParameters.ts"
import { fromParameters } from "./network/FromParameters.ts"
import * as SlicedScheduler from "./SlicedScheduler.ts"
import { Processes } from "./taproot/Processes.ts"

/** What the kernel of a machine was told. */
export interface Machine extends KernelParameters.KernelParameters {
  /** What it is to call itself, as `ip=` says, when nothing else says it. */
  readonly spareHostname: string | undefined
}

/** Where one Ironwood runs. */
export interface Place {
  readonly stateDirectory: string
  /** Of the API. */
  readonly socketPath: string
  /** What its kernel was told, when it is the init of a machine. */
  readonly machine?: Machine
}

/** When this brain was started, in milliseconds since 1970. */
export const startedAt = Date.now()

/** sysexits(3): what taproot and a person see of a brain that ends by itself. With 78 no other could do better. */
export const exitCodes = { usage: 64, software: 70, channelLost: 76, unusable: 78 } as const

/** A line that a full disk took only in part: the next one begins a line of its own. */
let torn = false

/**
 * Standard error is a file (that of an Ironwood which is a process like others lies in the state directory), a pipe or the
 * console; writes must be done before an exit. A line that cannot be written is dropped: a full disk, a pipe that is full or
 * that nobody reads are no reason for a brain to die.
 */
export const say = (text: string): void => {
  const line = Buffer.from(torn ? `\n${text}\n` : `${text}\n`)
  try {
    torn = writeSync(2, line) < line.length
  } catch {
    // nobody can be told
  }
}

/** The same on a machine, where standard error is the kernel's log: as an error, which the console shows even with `quiet`. */
export const sayLoudly = (text: string): void => say(`<3>${text}`)

export const end = (code: number, why?: string): never => {
  if (why !== undefined) say(`brain: ${why}`)
  process.exit(code)
}

/** The sentence of a failure; the whole cause of a defect. */
const explain = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return Cause.hasDies(cause) || !Schema.is(Schema.Struct({ message: Schema.String }))(error)
    ? Cause.pretty(cause)
    : error.message
}

/**
 * The log of a brain: lines of logfmt on standard error. Not through the console: the stream below it throws what it cannot
 * write at the process.
 */
export const logger = Logger.layer([Logger.make((options) => say(Logger.formatLogFmt.log(options)))])

/** `live`, for as long as there is a taproot. */
export const withTaproot = <E, R>(live: Effect.Effect<void, E, R>): Effect.Effect<void, E, R | Processes> =>
  Effect.gen(function* () {
    const processes = yield* Processes
    yield* Effect.raceFirst(
      live,
      // without taproot nothing can go on, and nothing can be cleaned up: no finalizer may hold this up
      Effect.flatMap(processes.lost, (lost) => Effect.sync(() => end(exitCodes.channelLost, lost.message)))
    )
  })

/** Of a machine that boots into Ironwood. */
export const machine = (): Place => {
  const said = KernelParameters.parse(readFileSync("/proc/cmdline", "utf8"))
  const { hostname: spareHostname, problems } = fromParameters(said)
  const parameters = { ...said, problems: [...said.problems, ...problems] }
  for (const problem of parameters.problems) sayLoudly(`brain: kernel command line: ${problem}`)
  return {
    stateDirectory: "/var/lib/ironwood",
    socketPath: "/run/ironwood/ironwood.sock",
    machine: { ...parameters, spareHostname }
  }
}

/** Runs a brain in its place, to the end of the process; `exitCodeOf` says with which code a failure ends it. */
export const run = <E>(
  place: Place,
  brain: Effect.Effect<void, E>,
  exitCodeOf: (error: unknown) => number = () => exitCodes.software
): void => {
  for (const needed of [place.stateDirectory, dirname(place.socketPath)]) {
    mkdirSync(needed, { recursive: true, mode: 0o700 })
  }
  // what packages write there by themselves (warnings) is dropped like our own lines
  process.stderr.on("error", () => {})
  // let it crash: a fault that nobody caught leaves this brain in an unknown state, and the next one adopts everything
  process.on("uncaughtException", (error) => end(exitCodes.software, `uncaught: ${error.stack ?? error.message}`))
  process.on("unhandledRejection", (reason) => end(exitCodes.software, `unhandled rejection: ${String(reason)}`))

  const fiber = Effect.runFork(brain, { scheduler: SlicedScheduler.make() })
  fiber.addObserver((exit) => {
    if (exit._tag === "Success") return end(0)
    return end(exitCodeOf(Cause.squash(exit.cause)), explain(exit.cause))
  })
}
