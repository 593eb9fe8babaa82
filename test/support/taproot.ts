/**
 * A real taproot for tests: `build/taproot --channel 3` as a child, and the real `Processes` on it. When the scope
 * closes the channel ends, taproot ends what is left (TERM, two seconds, KILL) and then itself, and the layer waits for
 * that: nothing stays, mounts included, because it lives in a mount namespace of its own.
 *
 * Use: `it.live("…", () => Effect.gen(…).pipe(Effect.provide(Taproot.layer())))`. With `it.effect` it works, too (the
 * missed-heartbeat limit is an hour here), but time stands still there.
 *
 * Traps: it runs what is in `build/` (`make -C src/taproot BUILD=../../build`). A test process that ignores SIGTERM
 * makes its test two seconds longer. This is the only place that may use `child_process`.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { Duplex } from "node:stream"
import { fileURLToPath } from "node:url"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { ChannelLost, Processes } from "../../src/taproot/Processes.ts"
import * as ProcessesLive from "../../src/taproot/ProcessesLive.ts"

const built = (name: string): string => fileURLToPath(new URL(`../../build/${name}`, import.meta.url))

/** The program as it ships, and the same under AddressSanitizer and UBSan when it was built. */
export const binary = built("taproot")
export const sanitized = existsSync(built("taproot-sanitized")) ? built("taproot-sanitized") : undefined

export class TaprootBroken extends Data.TaggedError("TaprootBroken")<{ readonly problem: string }> {
  override get message(): string {
    return this.problem
  }
}

export interface Options {
  /** Which program; default `binary`. */
  readonly program?: string
  /** More options, before `--channel`. */
  readonly options?: ReadonlyArray<string>
}

/** The taproot that a test has. */
export class Taproot extends Context.Service<
  Taproot,
  {
    readonly pid: number
    /** Its end of the channel that it serves. */
    readonly channel: Duplex
    /** What it has logged so far. */
    readonly log: Effect.Effect<string>
    /** Waits for its end: the exit code, or the name of the signal. */
    readonly ended: Effect.Effect<number | string>
  }
>()("ironwood/test/support/Taproot") {}

const ended = (child: ChildProcess): Effect.Effect<number | string> =>
  Effect.callback((resume) => {
    const report = (): void => resume(Effect.succeed(child.exitCode ?? child.signalCode ?? "unknown"))
    if (child.exitCode !== null || child.signalCode !== null) report()
    else child.once("exit", report)
  })

/** A test may have killed it, which is no failure; a sanitizer's SIGABRT is. */
const endsInOrder = (child: ChildProcess, logged: ReadonlyArray<string>): Effect.Effect<void> =>
  child.pid === undefined
    ? Effect.void
    : ended(child).pipe(
        Effect.timeoutOption("20 seconds"),
        Effect.flatMap((end) => {
          if (end._tag === "Some" && (end.value === 0 || end.value === "SIGKILL")) return Effect.void
          child.kill("SIGKILL")
          const how = end._tag === "None" ? "did not end" : `ended with ${end.value}`
          return Effect.die(new TaprootBroken({ problem: `taproot ${how}\n${logged.join("")}` }))
        })
      )

/** A taproot as a child of the test. */
interface Child {
  readonly child: ChildProcess
  readonly pid: number
  readonly logged: ReadonlyArray<string>
}

/** Starts the program; `end` tells it to end when the scope closes, which then waits for that. */
const startChild = (
  { options = [], program = binary }: Options,
  rest: ReadonlyArray<string>,
  end: (child: ChildProcess) => void
): Effect.Effect<Child, TaprootBroken, Scope.Scope> =>
  Effect.gen(function* () {
    const logged: Array<string> = []
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const args = ["--private-mounts", "--heartbeat", "3600000", ...options, ...rest]
        const started = spawn(program, args, { stdio: ["ignore", "inherit", "pipe", "pipe"] })
        started.on("error", (error) => logged.push(error.message))
        started.stderr?.on("data", (chunk) => logged.push(String(chunk)))
        return started
      }),
      (started) =>
        Effect.andThen(
          Effect.sync(() => end(started)),
          endsInOrder(started, logged)
        )
    )
    return child.pid === undefined
      ? yield* new TaprootBroken({ problem: `${program} did not start; build it first` })
      : { child, pid: child.pid, logged }
  })

/** Starts a taproot; closing the scope closes its channel and waits for its end. */
export const start = (options: Options = {}): Effect.Effect<Taproot["Service"], TaprootBroken, Scope.Scope> =>
  Effect.gen(function* () {
    const { child, logged, pid } = yield* startChild(options, ["--channel", "3"], ({ stdio }) => stdio[3]?.destroy())
    const channel = child.stdio[3]
    if (!(channel instanceof Duplex)) return yield* new TaprootBroken({ problem: "no channel" })
    return Taproot.of({ pid, channel, log: Effect.sync(() => logged.join("")), ended: ended(child) })
  })

/** Starts a taproot that starts this brain, over and over; closing the scope ends both. */
export const startWithBrain = (
  brain: readonly [string, ...Array<string>],
  options: Options = {}
): Effect.Effect<Omit<Taproot["Service"], "channel">, TaprootBroken, Scope.Scope> =>
  Effect.map(
    startChild(
      { ...options, options: [...(options.options ?? []), "--stop-deadline", "0"] },
      ["--", ...brain],
      (child) => child.kill("SIGTERM")
    ),
    ({ child, logged, pid }) => ({ pid, log: Effect.sync(() => logged.join("")), ended: ended(child) })
  )

/** A taproot and `Processes` on it. */
export const layer = (options: Options = {}): Layer.Layer<Processes | Taproot, ChannelLost | TaprootBroken> =>
  ProcessesLive.layer(Effect.map(Taproot, (taproot) => taproot.channel)).pipe(
    Layer.provideMerge(Layer.effect(Taproot, start(options)))
  )
