/**
 * The real `OciRuntime`: crun, runc or another runtime with their command line, run through taproot.
 *
 * Traps:
 * - What is half-made when a call fails or is interrupted is found in four places, and all are cleared: the runtime's own
 *   process group, processes of it outside (crun works in a session of its own behind the command that was called), its state
 *   directory, the cgroup.
 * - When crun's command has ended, the process that works behind it may live for a moment longer and still be the
 *   container's parent: taproot cannot be given the container before that one has ended.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { randomBytes } from "node:crypto"
import { availableParallelism } from "node:os"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import { type Process, Processes, type SpawnRequest } from "../taproot/Processes.ts"
import { Cgroups, type CgroupStuck } from "../host/Cgroups.ts"
import * as GracePeriod from "../host/GracePeriod.ts"
import { type FileFailed, ofHost as filesOfHost, type SystemFiles, textOf } from "../host/SystemFiles.ts"
import type { RuntimeMissing } from "./ContainerExit.ts"
import * as OciProbe from "./OciProbe.ts"
import {
  creatorLabel,
  OciRuntime,
  RuntimeFailed,
  type RunRequest,
  type RuntimeCandidate,
  type RuntimeFacts
} from "./OciRuntime.ts"
import * as ReadOnlyProgram from "./ReadOnlyProgram.ts"
import * as RuntimePaths from "./RuntimePaths.ts"

export interface Options {
  /** `runtime` in the state directory; made when it is not there. */
  readonly directory: string
  /** Names or paths, the best first. Default: crun, runc, and youki where there is one. */
  readonly candidates?: ReadonlyArray<string>
  /** How many calls of the runtime run at a time; default: two per processor. */
  readonly concurrency?: number
}

/** Where a runtime is called: on this host, or in a guest. */
export interface Where {
  readonly processes: Processes["Service"]
  readonly files: SystemFiles
  readonly cgroups: Cgroups["Service"]
  readonly paths: Pick<RuntimePaths.RuntimePaths, "oci" | "consoles">
  readonly facts: OciRuntime["Service"]["facts"]
  /** How the one in use is called. */
  readonly program: Effect.Effect<ReadOnlyProgram.Program, RuntimeMissing>
  readonly candidates: OciRuntime["Service"]["candidates"]
  readonly concurrency: number
  /** What is done ahead of a call; while another one is under way there is no need. */
  readonly announce: Effect.Effect<void>
}

const DEADLINE = "30 seconds"
/** A runtime that was not found is looked for again after this many milliseconds. */
const LOOK_AGAIN = 2_000
/** One that is not in use and did not work is tried again, when somebody asks, after this many milliseconds. */
const EXAMINE_AGAIN = 60_000
const STDERR_KEPT = 4_096
/** Nearly always the first claim is right; if not, the next few milliseconds bring it. */
const UNTIL_ORPHANED = {
  schedule: Schedule.min([Schedule.exponential("1 millis"), Schedule.spaced("50 millis")]),
  times: 40
}

const describeExit = (exit: Option.Option<ProcessExit.ProcessExit>): string =>
  Option.match(exit, { onNone: () => `did not end within ${DEADLINE}`, onSome: ProcessExit.describe })

/** The end of what a process wrote to its standard error. */
const lastWords = (process: Process): Effect.Effect<string> =>
  Stream.runFold(
    process.output("stderr"),
    (): Buffer => Buffer.alloc(0),
    (kept, { bytes }) => Buffer.concat([kept, bytes]).subarray(-STDERR_KEPT)
  ).pipe(
    Effect.timeoutOption("2 seconds"),
    Effect.map(Option.match({ onNone: () => "", onSome: (bytes) => bytes.toString("utf8").trim() }))
  )

/** A process that the runtime is to make, and what must be known when that fails. */
interface Making {
  /** For people: `crun run`. */
  readonly command: string
  readonly label: string
  readonly pidFile: string
  /** An argument that only calls of the runtime for this process have. */
  readonly marker: string
  readonly clear: Effect.Effect<void, CgroupStuck>
}

/** The runtime's command line, called there. */
export const make = Effect.fnUntraced(function* ({
  announce,
  candidates,
  cgroups,
  concurrency,
  facts,
  files,
  paths,
  processes,
  program
}: Where): Effect.fn.Return<OciRuntime["Service"], FileFailed> {
  const calls = Semaphore.makeUnsafe(concurrency)
  let underWay = 0
  yield* Effect.all(
    [
      files.makeDirectory(paths.oci),
      // what an earlier brain left there goes first
      Effect.andThen(files.remove(paths.consoles), files.makeDirectory(paths.consoles))
    ],
    { concurrency: "unbounded" }
  )

  const exists = (path: string) => Effect.map(Effect.option(files.list(path)), Option.isSome)

  /** The runtime deletes what it can; what it leaves, or cannot read any more, goes without it. */
  const removeNow = ({ cgroup, id }: Pick<RunRequest, "id" | "cgroup">) =>
    Effect.gen(function* () {
      const state = `${paths.oci}/${id}`
      if (yield* exists(state)) {
        const deletion = Effect.flatMap(program, ({ environment, path }) =>
          processes.run({
            label: `delete:${id}`,
            argv: [path, "--root", paths.oci, "delete", "--force", id],
            environment
          })
        )
        yield* Effect.ignore(Effect.timeout(deletion, DEADLINE))
      }
      yield* cgroups.remove(cgroup)
      yield* Effect.orDie(files.remove(state))
    })

  /** Kills processes of the runtime that work on something, wherever they are. They are known by this argument. */
  const killWorkers = (marker: string) =>
    Effect.gen(function* () {
      const all = yield* files.processes()
      const workers = all.filter(({ command }) => command.split("\0").includes(marker))
      for (const { pid } of workers) yield* Effect.ignore(files.kill(pid))
    })

  /** Clears what a call that did not come to its end has left, and hears what it had to say. */
  const abandon = ({ clear, marker }: Making, creator: Process) =>
    Effect.gen(function* () {
      // Ended or not, what it forked may still be in its group.
      yield* Effect.ignore(creator.signal("SIGKILL", { group: true }))
      yield* killWorkers(marker)
      yield* Effect.timeoutOption(creator.exit, "5 seconds")
      yield* Effect.catchCause(clear, (cause) =>
        Effect.logWarning(`${creator.label} was not cleaned up`, Cause.squash(cause))
      )
      const words = yield* lastWords(creator)
      yield* creator.acknowledge
      return words
    })

  const failed = (command: string, how: string, stderr: string) => new RuntimeFailed({ command, how, stderr })

  /** Takes over the process that the runtime made, when it did. */
  const takeOver = (making: Making, creator: Process, exit: Option.Option<ProcessExit.ProcessExit>) =>
    Effect.gen(function* () {
      if (Option.isNone(exit) || !ProcessExit.isSuccess(exit.value)) {
        return yield* failed(making.command, describeExit(exit), yield* abandon(making, creator))
      }
      const claimed = yield* Effect.result(
        Effect.gen(function* () {
          const pid = Number(yield* textOf(files, making.pidFile))
          return yield* Effect.retry(processes.claim({ pid, label: making.label, streamsFrom: creator.id }), {
            while: (refused) => refused._tag === "ClaimRefused" && refused.reason === "not-a-child",
            ...UNTIL_ORPHANED
          })
        })
      )
      if (Result.isFailure(claimed)) {
        return yield* failed(making.command, claimed.failure.message, yield* abandon(making, creator))
      }
      yield* creator.acknowledge
      return claimed.success
    })

  /** Has the runtime make a process that shall be taproot's child; `options` are those of its command. */
  const makeProcess = (
    making: Making,
    options: readonly [command: string, ...Array<string>],
    stdio: Pick<SpawnRequest, "stdin" | "stdout">,
    terminal: boolean
  ) =>
    Effect.flatMap(program, ({ environment, name, path }) =>
      calls.withPermit(
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const [command, ...rest] = options
            const named = { ...making, command: `${name} ${command}` }
            const socket = terminal ? `${paths.consoles}/${randomBytes(6).toString("hex")}` : ""
            const console = { _tag: "Console", path: socket } as const
            const creator = yield* processes
              .spawn({
                label: creatorLabel(making.label),
                argv: [
                  path,
                  "--root",
                  paths.oci,
                  command,
                  "--detach",
                  ...(terminal ? ["--console-socket", socket] : []),
                  "--pid-file",
                  making.pidFile,
                  ...rest
                ],
                environment,
                ...(terminal ? { stdin: console, stdout: console } : stdio),
                stderr: { _tag: "Stream" }
              })
              .pipe(Effect.mapError((refused) => failed(named.command, refused.message, "")))
            underWay += 1
            const exit = yield* restore(Effect.timeoutOption(creator.exit, DEADLINE)).pipe(
              Effect.onInterrupt(() => abandon(named, creator)),
              Effect.ensuring(Effect.sync(() => (underWay -= 1)))
            )
            return yield* Effect.ensuring(
              takeOver(named, creator, exit),
              terminal ? Effect.ignore(files.remove(socket)) : Effect.void
            )
          })
        )
      )
    )

  const stream = (wanted: boolean) => ({ _tag: wanted ? ("Stream" as const) : ("Null" as const) })

  const makingOf = (request: RunRequest): Making => ({
    command: "run",
    label: request.label,
    pidFile: `${request.bundle}/pid`,
    marker: request.bundle,
    clear: removeNow(request)
  })

  const run: OciRuntime["Service"]["run"] = (request) =>
    makeProcess(
      makingOf(request),
      ["run", "--bundle", request.bundle, request.id],
      { stdin: stream(request.stdin), stdout: { _tag: "Stream" } },
      request.terminal
    )

  const exec: OciRuntime["Service"]["exec"] = ({ file, id, label, output, pidFile, stdin, terminal }) => {
    const clear = Effect.gen(function* () {
      const pid = Number(yield* Effect.orElseSucceed(textOf(files, pidFile), () => ""))
      if (pid > 1) yield* Effect.ignore(files.kill(pid))
    })
    return makeProcess(
      { command: "exec", label, pidFile, marker: file, clear },
      ["exec", "--process", file, id],
      { stdin: stream(stdin), stdout: stream(output) },
      terminal
    )
  }

  const control: OciRuntime["Service"]["control"] = (command, id, input) =>
    Effect.flatMap(program, ({ environment, name, path }) =>
      processes
        .run({
          label: `${command}:${id}`,
          environment,
          argv: [path, "--root", paths.oci, command, ...(input === undefined ? [] : ["--resources", "-"]), id],
          ...(input === undefined ? {} : { stdin: Buffer.from(input) })
        })
        .pipe(
          Effect.mapError(({ message }) => failed(`${name} ${command}`, message, "")),
          Effect.timeoutOrElse({
            duration: DEADLINE,
            orElse: () => Effect.fail(failed(`${name} ${command}`, describeExit(Option.none()), ""))
          }),
          Effect.flatMap(({ exit, stderr }) =>
            ProcessExit.isSuccess(exit)
              ? Effect.void
              : Effect.fail(
                  failed(`${name} ${command}`, ProcessExit.describe(exit), Buffer.from(stderr).toString().trim())
                )
          )
        )
    )

  const recover: OciRuntime["Service"]["recover"] = (request) =>
    Effect.gen(function* () {
      let found = Option.none<Process>()
      for (const creator of yield* processes.takeAll(creatorLabel(request.label))) {
        if (creator.label !== creatorLabel(request.label)) continue
        const exit = yield* Effect.timeoutOption(creator.exit, DEADLINE)
        const process = yield* Effect.option(takeOver(makingOf(request), creator, exit))
        if (Option.isSome(process)) found = process
      }
      return found
    }).pipe(Effect.uninterruptible)

  return OciRuntime.of({
    facts,
    candidates,
    run,
    announce: Effect.suspend(() => (underWay === 0 ? announce : Effect.void)),
    exec,
    control,
    recover,
    remove: (request) => calls.withPermit(removeNow(request)),
    list: Effect.orDie(Effect.map(files.list(paths.oci), (entries) => entries.map(({ name }) => name)))
  })
})

/** The one of this host, once it has been found out which works. */
const ofHost = Effect.fnUntraced(function* (options: Options) {
  const processes = yield* Processes
  const cgroups = yield* Cgroups
  const paths = RuntimePaths.make(options.directory, options.directory)
  const candidates = options.candidates ?? (yield* OciProbe.known)
  const search = Semaphore.makeUnsafe(1)

  let known: { readonly at: number; readonly found: Result.Result<RuntimeFacts, RuntimeMissing> } | undefined
  const facts = search.withPermit(
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      if (known === undefined || (Result.isFailure(known.found) && now - known.at > LOOK_AGAIN)) {
        const found = yield* Effect.result(OciProbe.find({ processes, cgroups, paths }, candidates))
        known = { at: yield* Clock.currentTimeMillis, found }
      }
      return yield* Effect.fromResult(known.found)
    })
  )

  const examined = new Map<string, { readonly at: number; readonly found: RuntimeCandidate }>()
  // Not that of the search: a runtime that hangs and that nobody uses holds up no container.
  const survey = Semaphore.makeUnsafe(1)
  const surveyed = Effect.gen(function* () {
    const used = yield* Effect.option(facts)
    const others = survey.withPermit(
      Effect.forEach(candidates, (candidate) =>
        Effect.gen(function* () {
          const now = yield* Clock.currentTimeMillis
          const seen = examined.get(candidate)
          // one that did not serve may have been mended since, but whoever asks often shall not have it tried as often
          if (seen !== undefined && (seen.found.problem === undefined || now - seen.at < EXAMINE_AGAIN))
            return seen.found
          const found = yield* OciProbe.examine({ processes, cgroups, paths }, candidate)
          examined.set(candidate, { at: now, found })
          return found
        })
      )
    )
    if (Option.isNone(used)) return yield* others
    const inUse = { ...used.value, problem: undefined, inUse: true }
    return [inUse, ...(yield* others).filter(({ path }) => path !== inUse.path)]
  })

  return yield* Effect.orDie(
    make({
      processes,
      files: filesOfHost,
      cgroups,
      paths,
      facts,
      program: yield* ReadOnlyProgram.make(processes, facts, paths.program),
      candidates: surveyed,
      concurrency: options.concurrency ?? availableParallelism() * 2,
      announce: yield* GracePeriod.make(cgroups.layout)
    })
  )
})

export const layer = (options: Options): Layer.Layer<OciRuntime, never, Processes> =>
  Layer.effect(OciRuntime, ofHost(options)).pipe(Layer.provide(Cgroups.layer))
