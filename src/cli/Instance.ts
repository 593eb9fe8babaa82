/**
 * An Ironwood as processes of this machine: starting taproot with its brain, waiting until the API answers, ending it in order.
 *
 * taproot gets a session of its own, so that Ctrl-C in the terminal reaches only the command line, which then ends it in
 * order. With a lifeline (a pipe held open by us) taproot also ends in order when this process dies, however it dies; without one
 * (`--detach`) it stays. What both print goes to `brain.log` in the state directory; when they do not come up, its end is told.
 *
 * Trap: another Ironwood on the same state directory answers at the same socket. The one that answers counts as ours only if
 * it says that its taproot has our child's pid.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Schedule from "effect/Schedule"
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, statSync } from "node:fs"
import { dirname, relative, resolve } from "node:path"
import { HostService } from "../../proto/generated/ironwood/v1/host_pb.ts"
import * as Address from "./Address.ts"
import { type Connection, make as connect } from "./Client.ts"
import { exitCodes } from "./ExitCode.ts"
import { type Failure, failure } from "./Failure.ts"
import * as HumanText from "./HumanText.ts"
import * as Output from "./Output.ts"
import type { Screen } from "./Screen.ts"
import * as Text from "./Text.ts"

/** How taproot ended. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A running Ironwood that this process started. */
export interface Instance {
  readonly address: string
  readonly stateDirectory: string
  readonly connection: Connection
  /** Of taproot. */
  readonly pid: number
  /** Waits for taproot's end. */
  readonly ended: Effect.Effect<Ended>
  /** Asks it to end in order and waits; fails with the end of the log when that did not go well. */
  readonly stop: Effect.Effect<void, Failure, Screen>
  /** From here on it outlives this process and the scope. */
  readonly release: Effect.Effect<void>
}

/** What taproot says when another one holds the state directory (sysexits' EX_CANTCREAT). */
const lockedExitCode = 73

/** What taproot says when it may not have a mount namespace (sysexits' EX_NOPERM). */
const noRightExitCode = 77

/** What taproot says when the first brain could not use what is in the state directory (sysexits' EX_CONFIG). */
const unusableExitCode = 78

/**
 * Node's for the brain. It mostly waits: a small young generation and a single malloc arena save it 9 MB of memory.
 * SIGUSR1 would open the inspector.
 */
const brainFlags = ["--disable-warning=ExperimentalWarning", "--disable-sigusr1", "--max-semi-space-size=2"]
const brainEnvironment = { MALLOC_ARENA_MAX: "1" }

/** A log longer than this is put aside at the next start. */
const maximumLogBytes = 16 * 1024 * 1024

/**
 * Brains that may end before the first one answers. taproot would go on for a minute, which is right for a host that lost its
 * disk for a moment and wrong for a person who waits: what makes four in a row end, makes the fifth.
 */
const brainsTried = 4

/**
 * How long a stop in order may take. Every container has its own grace (a day at most), so this only bounds a tree that would
 * never end; a brain that hangs is noticed by its heartbeat.
 */
const stopDeadlineMilliseconds = 25 * 60 * 60 * 1000

/** How long taproot and brain may take until the API answers. */
const readyDeadlineMilliseconds = 60_000

/** The directory with `taproot` and `brain.cjs`: IRONWOOD_BUILD, else the one this program was bundled into, else the checkout's. */
const buildDirectory = Effect.gen(function* () {
  const files = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const named = process.env["IRONWOOD_BUILD"] ?? ""
  const own = path.dirname(process.argv[1] ?? ".")
  const candidates = named === "" ? [own, path.resolve(own, "../../build")] : [path.resolve(named)]
  for (const candidate of candidates) {
    if (yield* Effect.orElseSucceed(files.exists(path.join(candidate, "taproot")), () => false)) return candidate
  }
  return yield* failure(`taproot is not in ${candidates.join(" or ")}`, {
    next: "Run scripts/setup in the checkout, or say where it is with IRONWOOD_BUILD"
  })
})

const endedOf = (child: ChildProcess): Effect.Effect<Ended> =>
  Effect.callback((resume) => {
    const done = () => resume(Effect.succeed({ code: child.exitCode, signal: child.signalCode }))
    if (child.exitCode !== null || child.signalCode !== null) return done()
    child.once("exit", done)
    return Effect.sync(() => void child.off("exit", done))
  })

/** The last lines that were written to the log since `from` bytes. */
const logTail = (log: string, from: number, lines: number): Effect.Effect<ReadonlyArray<string>> =>
  Effect.sync(() => {
    try {
      const text = readFileSync(log).subarray(from).toString("utf8").trim()
      return text === "" ? [] : text.split("\n").slice(-lines).map(Text.clean)
    } catch {
      return []
    }
  })

const endWords = ({ code, signal }: Ended): string =>
  signal === null ? `it ended with exit code ${code ?? "?"}` : `it was ended by ${signal}`

/** Starts an Ironwood; it is stopped in order when the scope closes, unless released. */
export const start = Effect.fnUntraced(function* (options: {
  readonly stateDirectory: string
  readonly lifeline: boolean
}) {
  const files = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  if (process.geteuid?.() !== 0) {
    return yield* failure("only root can start Ironwood: containers take its rights", {
      exitCode: exitCodes.denied,
      next: `Run \`${asRoot()}\``
    })
  }
  const build = yield* buildDirectory
  const stateDirectory = path.resolve(options.stateDirectory)
  const log = path.join(stateDirectory, "brain.log")
  const { logStart, made } = yield* prepare(files, stateDirectory, log)
  const address = Address.ofStateDirectory(stateDirectory)
  const connection = yield* connect(address)
  let released = false

  const child = yield* Effect.acquireRelease(
    launch({ build, stateDirectory, log, lifeline: options.lifeline }),
    (child) => (released ? Effect.void : Effect.ignore(stopChild(child, log, logStart)))
  )
  const ended = endedOf(child)
  const pid = child.pid ?? -1
  const instance: Instance = {
    address,
    stateDirectory,
    connection,
    pid,
    ended,
    stop: stopChild(child, log, logStart),
    release: Effect.sync(() => {
      released = true
      child.unref()
    })
  }
  yield* Effect.raceFirst(
    untilReady(instance, log, logStart),
    Effect.flatMap(ended, (how) =>
      how.code === noRightExitCode ? noRight(files, made, log, logStart) : notStarted(instance, how, log, logStart)
    )
  ).pipe(Effect.ensuring(Output.progressDone))
  return instance
})

/**
 * Makes a directory and those above it that are missing; gives the topmost that was not there before, if any. One by one:
 * Node's own `recursive` never returns where the kernel lets nobody make any (`/proc/x`).
 */
const makeDirectories = (directory: string): string | undefined => {
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() === true) return undefined
  const above = dirname(directory) === directory ? undefined : makeDirectories(dirname(directory))
  mkdirSync(directory, { mode: 0o700 })
  return above ?? directory
}

/** Makes the state directory; gives the topmost directory that was not there before, if any, and the length of the log so far. */
const prepare = Effect.fnUntraced(function* (files: FileSystem.FileSystem, directory: string, log: string) {
  const made = yield* Effect.try({
    try: () => makeDirectories(directory),
    catch: (error) =>
      failure(`the state directory ${directory} cannot be made (${error instanceof Error ? error.message : "?"})`, {
        next: "Choose another with --state-dir"
      })
  })
  const length = yield* Effect.orElseSucceed(
    Effect.map(files.stat(log), ({ size }) => Number(size)),
    () => 0
  )
  if (length <= maximumLogBytes) return { logStart: length, made }
  yield* Effect.ignore(files.rename(log, `${log}.1`))
  return { logStart: 0, made }
})

/** A word as a shell takes it. */
const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)

/** The command that was typed, as root: of `npm start`, or of this program where it is. */
const asRoot = (): string => {
  if (process.env["npm_lifecycle_event"] === "start") return "sudo npm start"
  const [, program = "", ...words] = process.argv
  const checkout = relative(".", resolve(dirname(program), "../ironwood"))
  const name = !existsSync(checkout) ? "ironwood" : checkout.startsWith("..") ? resolve(checkout) : `./${checkout}`
  return `sudo ${[name, ...words].map(quoted).join(" ")}`
}

/** Root, but not all of its rights: as in a container. Leaves no directory that was made for this start. */
const noRight = Effect.fnUntraced(function* (
  files: FileSystem.FileSystem,
  made: string | undefined,
  log: string,
  from: number
) {
  const last = yield* logTail(log, from, 1)
  // nothing has been in it but the log and the lock
  if (made !== undefined) yield* Effect.ignore(files.remove(made, { recursive: true }))
  return yield* failure("Ironwood has not the rights that containers take", {
    exitCode: exitCodes.denied,
    details: last,
    next: "Run it on the host itself, or in a container that has them (`docker run --privileged`)"
  })
})

const launch = (options: {
  readonly build: string
  readonly stateDirectory: string
  readonly log: string
  readonly lifeline: boolean
}): Effect.Effect<ChildProcess, Failure> =>
  Effect.callback((resume) => {
    const taproot = `${options.build}/taproot`
    const cannot = (error: Error) =>
      resume(
        Effect.fail(
          failure(`taproot cannot be started: ${error.message}`, { next: "Run scripts/setup in the checkout" })
        )
      )
    try {
      const output = openSync(options.log, "a", 0o600)
      const child = spawn(
        taproot,
        [
          "--lock",
          `${options.stateDirectory}/lock`,
          "--private-mounts",
          "--stop-deadline",
          String(stopDeadlineMilliseconds),
          ...(options.lifeline ? ["--lifeline", "0"] : []),
          "--",
          process.execPath,
          ...brainFlags,
          `${options.build}/brain.cjs`,
          "--state-dir",
          options.stateDirectory
        ],
        {
          stdio: [options.lifeline ? "pipe" : "ignore", output, output],
          detached: true,
          env: { ...process.env, ...brainEnvironment }
        }
      )
      closeSync(output)
      // the lifeline breaks when taproot ends before us
      child.stdin?.on("error", () => {})
      child.once("error", cannot)
      child.once("spawn", () => resume(Effect.succeed(child)))
    } catch (error) {
      cannot(error instanceof Error ? error : new Error(String(error)))
    }
  })

/** Asks again and again, 20 times a second, until our taproot's brain answers or enough brains have ended. */
const untilReady = Effect.fnUntraced(function* (instance: Instance, log: string, from: number) {
  const began = yield* Clock.currentTimeMillis
  for (;;) {
    const answer = yield* Effect.option(
      instance.connection.call(HostService.method.getVersion, {}, { timeout: "2 seconds" })
    )
    if (answer._tag === "Some" && answer.value.taprootPid === instance.pid) return yield* Effect.void
    const waited = (yield* Clock.currentTimeMillis) - began
    const lines = yield* logTail(log, from, 1000)
    // another one has its turn after one that was given up
    const deaths = lines.slice(lines.findLastIndex(isGivenUp) + 1).filter(isBrainDeath).length
    if (deaths >= brainsTried) return yield* notUp(`its brain ended ${deaths} times`, log, from)
    if (waited > readyDeadlineMilliseconds) {
      return yield* failure(`Ironwood did not answer within ${HumanText.span(readyDeadlineMilliseconds)}`, {
        exitCode: exitCodes.timeout,
        next: `Its log is ${log}`
      })
    }
    yield* Output.progress(`starting Ironwood in ${instance.stateDirectory}… ${HumanText.shortSpan(waited)}`)
    yield* Effect.sleep("50 millis")
  }
})

/** taproot's line about a brain that it will start again. */
const isBrainDeath = (line: string): boolean => /^taproot: the brain .*starting it again/.test(line)

const isGivenUp = (line: string): boolean => line.startsWith("taproot: the brain that took over is given up: ")

/** The failure with what the log says, each line once. */
const notUp = Effect.fnUntraced(function* (why: string, log: string, from: number) {
  const tail = new Set((yield* logTail(log, from, 100)).filter((line) => !isBrainDeath(line)))
  return yield* failure(`Ironwood did not come up: ${why}`, {
    details: tail.size === 0 ? ["(it has logged nothing)"] : [...tail].slice(-15),
    next: `The whole log is ${log}`
  })
})

const notStarted = Effect.fnUntraced(function* (instance: Instance, how: Ended, log: string, from: number) {
  if (how.code === unusableExitCode) {
    const said = (yield* logTail(log, from, 100)).filter((line) => line.startsWith("brain: "))
    return yield* failure(`Ironwood cannot start on ${instance.stateDirectory}`, {
      details: said.map((line) => line.slice("brain: ".length))
    })
  }
  if (how.code !== lockedExitCode) return yield* notUp(endWords(how), log, from)
  const tail = yield* logTail(log, from, 15)
  return yield* failure(`another Ironwood runs on ${instance.stateDirectory}`, {
    exitCode: exitCodes.conflict,
    details: tail.filter((line) => line.startsWith("taproot:")),
    next: `\`ironwood --address ${instance.address} tree\` shows it and \`down\` ends it; --state-dir starts a second one elsewhere`
  })
})

/** Asks taproot to end in order, tells how long it has taken so far, and waits. */
const stopChild = (child: ChildProcess, log: string, from: number) =>
  Effect.gen(function* () {
    const began = yield* Clock.currentTimeMillis
    child.kill("SIGTERM")
    const tell = Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Output.progress(`stopping everything in order… ${HumanText.span(now - began)}`)
    )
    const how = yield* Effect.raceFirst(
      endedOf(child),
      Effect.andThen(Effect.repeat(tell, Schedule.spaced("200 millis")), Effect.never)
    )
    yield* Output.progressDone
    if (how.code === 0) return yield* Effect.void
    return yield* failure(`Ironwood did not end well: ${endWords(how)}`, {
      details: yield* logTail(log, from, 10),
      next: `The whole log is ${log}`
    })
  })
