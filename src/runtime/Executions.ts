/**
 * `Executions`: further programs in containers that run, each started through the OCI runtime and then a child of taproot
 * like the container's first process, so that its exit is exact and its output is pulled.
 *
 * An execution lives as long as the scope it was opened in (a client's call): when that closes, the program and what it
 * has brought forth are killed. Only a detached one goes on; it is looked after until it ends, by the next brain too.
 *
 * Traps:
 * - A new brain kills what an earlier one had under way for clients that are gone with it.
 * - Labels tell what is whose: `exec/web#3/a-1f…` belongs to a caller, `exec/web#3/d-1f…` is detached. So is one of the former kind
 *   that was left later: a file in the bundle of its run says so.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { randomBytes } from "node:crypto"
import { textOf } from "../host/SystemFiles.ts"
import type * as ProcessExit from "../taproot/ProcessExit.ts"
import type { OutputStream, Process } from "../taproot/Processes.ts"
import { ExecFailed, ExecProgramMissing, ExecProgramRefused } from "./ContainerError.ts"
import type { ContainerRun } from "./ContainerRuns.ts"
import * as ContainerUser from "./ContainerUser.ts"
import type { ExecSpec } from "./ExecSpec.ts"
import { creatorLabel, type ExecRequest, type RuntimeFailed } from "./OciRuntime.ts"
import { killAll } from "./ProcessTree.ts"
import { startFailure } from "./StartFailure.ts"
import { type System, Systems } from "./System.ts"

/** A program that runs for somebody. */
export interface Execution {
  readonly process: Process
  /** What it writes, as it comes; ends soon after the program, also when something it left behind could still write. */
  readonly output: (stream: OutputStream) => Stream.Stream<Uint8Array>
  /** From now on it goes on without whoever has started it, as one that was started detached. */
  readonly detach: Effect.Effect<void, ExecFailed>
}

export type ExecError = ExecFailed | ExecProgramMissing | ExecProgramRefused | ContainerUser.UserNotFound

export class Executions extends Context.Service<
  Executions,
  {
    readonly open: (run: ContainerRun, spec: ExecSpec) => Effect.Effect<Execution, ExecError, Scope.Scope>
    /** Takes over what an earlier brain had under way on a system. */
    readonly inherit: (system: System) => Effect.Effect<void>
  }
>()("ironwood/runtime/Executions") {}

const PREFIX = "exec/"
/** Where the runtime finds what to run, and writes its pid. */
type ExecFiles = Pick<ExecRequest, "file" | "pidFile">
const filesOf = (bundle: string, id: string): ExecFiles => ({
  file: `${bundle}/exec-${id}.json`,
  pidFile: `${bundle}/exec-${id}.pid`
})
/** Its caller has left it alone. */
const leftMark = (bundle: string, id: string) => `${bundle}/left-${id}`
const UNKILLABLE = "20 seconds"
/** How long output is waited for after the end of the program; as long as there is some it is read. */
const LINGER = "500 millis"

/** What is taken over from the bundle of a run: of our own writing (`RuntimeSpec`). */
const Bundle = Schema.fromJsonString(
  Schema.Struct({
    process: Schema.Struct({
      user: Schema.Struct({
        uid: Schema.Int,
        gid: Schema.Int,
        additionalGids: Schema.optionalKey(Schema.Array(Schema.Int))
      }),
      env: Schema.Array(Schema.String),
      cwd: Schema.String,
      capabilities: Schema.Struct({ bounding: Schema.Array(Schema.String) }),
      noNewPrivileges: Schema.Boolean,
      rlimits: Schema.optionalKey(
        Schema.Array(Schema.Struct({ type: Schema.String, soft: Schema.Int, hard: Schema.Int }))
      )
    })
  })
)
const decodeBundle = Schema.decodeUnknownEffect(Bundle)

const environmentOf = (present: ReadonlyArray<string>, spec: ExecSpec): ReadonlyArray<string> => {
  const variables = new Map(
    present.map((variable) => {
      const equals = variable.indexOf("=")
      return [variable.slice(0, equals), variable.slice(equals + 1)] as const
    })
  )
  if (spec.terminal !== undefined && !variables.has("TERM")) variables.set("TERM", "xterm")
  // Another user has another home: the runtime looks it up.
  if (spec.user !== undefined) variables.delete("HOME")
  for (const [name, value] of Object.entries(spec.environment)) variables.set(name, value)
  return [...variables].map(([name, value]) => `${name}=${value}`)
}

/** A stream of what comes at once when there is some: ends when, after `end`, nothing has come for a while. */
export const untilQuiet = <A, E, R>(
  stream: Stream.Stream<A, E, R>,
  end: Effect.Effect<unknown>
): Stream.Stream<A, E, R> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const pull = yield* Stream.toPull(stream)
      const quiet = end.pipe(Effect.andThen(Effect.sleep(LINGER)), Effect.andThen(Cause.done()))
      return Stream.fromPull(Effect.succeed(Effect.raceFirst(pull, quiet)))
    })
  ).pipe(Stream.scoped)

const make = Effect.gen(function* () {
  const systems = yield* Systems
  const scope = yield* Effect.scope

  const removeFiles = ({ files }: System, { file, pidFile }: ExecFiles) =>
    Effect.andThen(Effect.ignore(files.remove(file)), Effect.ignore(files.remove(pidFile)))

  /** Kills it with what it has brought forth, if it lives, and gives its entry back. */
  const end = ({ files, processes }: System, process: Process) =>
    Effect.gen(function* () {
      if (Option.isNone(yield* process.exitNow)) {
        yield* killAll(files, process.pid, processes.hello.taprootPid)
        const ended = yield* Effect.timeoutOption(process.exit, UNKILLABLE)
        if (Option.isNone(ended)) yield* Effect.logError(`${process.label} does not end although it was killed`)
      }
      yield* process.acknowledge
    })

  /** Waits for its end; what it still writes is dropped. */
  const lookAfter = (process: Process) =>
    Effect.gen(function* () {
      const drain = (stream: OutputStream) => Stream.runDrain(process.output(stream))
      yield* Effect.forkChild(Effect.all([drain("stdout"), drain("stderr")], { concurrency: "unbounded" }))
      yield* process.exit
      yield* process.acknowledge
    })

  /** What runs in it was made for: it stays as it was for all of the run. */
  const bundles = new WeakMap<ContainerRun, typeof Bundle.Type>()
  const bundleOf = Effect.fnUntraced(function* (run: ContainerRun) {
    const seen = bundles.get(run)
    if (seen !== undefined) return seen
    const text = yield* run.system.files.read(`${run.bundle}/config.json`)
    const bundle = yield* decodeBundle(text.toString("utf8"))
    bundles.set(run, bundle)
    return bundle
  })

  /** Writes what the runtime reads. */
  const prepare = Effect.fnUntraced(function* (run: ContainerRun, file: string, spec: ExecSpec) {
    const { files, readInRoot } = run.system
    const failed = (detail: string) => new ExecFailed({ name: run.container, detail })
    const { process } = yield* Effect.mapError(bundleOf(run), ({ message }) => failed(message))
    const { user } = spec
    const who =
      user === undefined
        ? process.user
        : yield* ContainerUser.lookUp(`/proc/${run.process.pid}/root`, user, readInRoot).pipe(
            Effect.map(({ gid, groups, uid }) => ({
              uid,
              gid,
              ...(groups.length > 0 ? { additionalGids: groups } : {})
            })),
            Effect.catchTag("RootedFileRefused", ({ message }) => Effect.fail(failed(message)))
          )
    const { bounding } = process.capabilities
    const held = who.uid === 0 ? bounding : []
    const content = {
      terminal: spec.terminal !== undefined,
      ...(spec.terminal === undefined
        ? {}
        : { consoleSize: { height: spec.terminal.rows, width: spec.terminal.columns } }),
      user: who,
      args: spec.command,
      env: environmentOf(process.env, spec),
      cwd: spec.workingDirectory ?? process.cwd,
      capabilities: { bounding, effective: held, permitted: held },
      noNewPrivileges: process.noNewPrivileges,
      ...(process.rlimits === undefined ? {} : { rlimits: process.rlimits })
    }
    yield* Effect.mapError(files.write(file, JSON.stringify(content)), ({ message }) => failed(message))
  })

  const failureOf = (name: string, program: string, error: RuntimeFailed): ExecError => {
    const failure = startFailure(name, program, error)
    if (failure._tag === "ProgramNotFound") return new ExecProgramMissing({ name, program })
    if (failure._tag === "ProgramNotExecutable")
      return new ExecProgramRefused({ name, program, detail: failure.detail })
    return new ExecFailed({ name, detail: error.stderr === "" ? error.message : error.stderr })
  }

  const start = (run: ContainerRun, spec: ExecSpec, id: string) => {
    const { runtime } = run.system
    const files = filesOf(run.bundle, id)
    return Effect.andThen(runtime.announce, prepare(run, files.file, spec)).pipe(
      Effect.andThen(
        runtime.exec({
          id: run.id,
          ...files,
          label: `${PREFIX}${run.id}/${id}`,
          terminal: spec.terminal !== undefined,
          stdin: spec.stdin,
          output: !spec.detach
        })
      ),
      Effect.catchTags({
        RuntimeMissing: ({ message }) => Effect.fail(new ExecFailed({ name: run.container, detail: message })),
        RuntimeFailed: (error) => Effect.fail(failureOf(run.container, spec.command[0] ?? "", error))
      }),
      // behind the scenes: whoever waits for the first byte should not wait for this; what stays goes with the run
      Effect.ensuring(Effect.forkIn(removeFiles(run.system, files), scope))
    )
  }

  const output = (process: Process) => (stream: OutputStream) =>
    Stream.map(untilQuiet(process.output(stream), process.exit), ({ bytes }) => bytes)

  // --- what an earlier brain has left ---

  const inherit = Effect.fnUntraced(function* (system: System) {
    const { files, paths, processes } = system
    for (const process of yield* processes.takeAll(PREFIX)) {
      const [run = "", id = ""] = process.label.slice(PREFIX.length).split("/")
      const left = yield* Effect.option(files.read(leftMark(`${paths.bundles}/${run}`, id)))
      const detached = id.startsWith("d-") || Option.isSome(left)
      yield* Effect.forkIn(detached ? lookAfter(process) : end(system, process), scope)
    }
    for (const creator of yield* processes.takeAll(creatorLabel(PREFIX))) {
      const [run = "", id = ""] = creator.label.slice(creatorLabel(PREFIX).length).split("/")
      const its = filesOf(`${paths.bundles}/${run}`, id)
      const clear = Effect.gen(function* () {
        yield* end(system, creator)
        const pid = Number(yield* Effect.orElseSucceed(textOf(files, its.pidFile), () => ""))
        if (pid > 1) yield* killAll(files, pid, processes.hello.taprootPid)
        yield* removeFiles(system, its)
      })
      yield* Effect.forkIn(clear, scope)
    }
  })
  yield* inherit(systems.host)

  return Executions.of({
    inherit,
    open: Effect.fnUntraced(function* (run, spec) {
      const id = `${spec.detach ? "d" : "a"}-${randomBytes(6).toString("hex")}`
      let isDetached = spec.detach
      const process = yield* Effect.acquireRelease(start(run, spec, id), (process) =>
        isDetached ? Effect.forkIn(lookAfter(process), scope) : end(run.system, process)
      )
      const detach = run.system.files.write(leftMark(run.bundle, id), "").pipe(
        Effect.andThen(Effect.sync(() => void (isDetached = true))),
        Effect.mapError(({ message }) => new ExecFailed({ name: run.container, detail: message }))
      )
      return { process, output: output(process), detach }
    })
  })
})

export const layer = Layer.effect(Executions, make)

/** The code that a shell gives for the end of a program: its own, or 128 and the signal's number. */
export const codeOf = (exit: ProcessExit.ProcessExit): number =>
  exit._tag === "Exited" ? exit.code : exit._tag === "Signaled" ? 128 + exit.number : 126
