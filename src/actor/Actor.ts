/**
 * Actors: how to write one.
 *
 * An actor is an `Effect<void, E, R>` that a supervisor runs, watches and starts again. It is one page that reads in
 * the order of its life:
 *
 * ```ts
 * export const clock = (file: string) =>
 *   Actor.make("clock", { kind: "writer", policy: RestartPolicy.infrastructure }, Effect.gen(function*() {
 *     const handle = yield* openFile(file)                      // given back when this incarnation's scope closes
 *     yield* Actor.onStop(removeFile(file))                     // only when somebody wants it gone for good
 *     yield* Actor.ready({ file })                              // the supervisor goes on to the next sibling
 *     yield* writeTime(handle).pipe(Effect.repeat(Schedule.spaced("1 second")))
 *   }))
 *
 * const program = Root.run(Supervisor.make("init", { strategy: "rest_for_one", children: [disk, clock("/run/clock")] }))
 * ```
 *
 * **Start.** The actor is `starting` until it says {@link ready}; returning is an acknowledgement too. Ending in failure
 * before, or not being ready within `startDeadline`, is a failed start: the fiber is ended and its scope closed before
 * anybody hears of it. {@link ignore} says "nothing to do for me here": no failure, no restart.
 *
 * **End.** By itself: its `Exit` goes to the supervisor, which decides by the `RestartPolicy`: restart after a delay,
 * park, finish or escalate. By the supervisor, in one of two ways:
 * - *stop*: somebody wants it gone. The fiber is interrupted, then its scope closes: finalizers and the hooks of
 *   {@link onStop} run, newest first. After `shutdown` the running hook is interrupted and the others are skipped.
 * - *release*: the actor ends but what it manages goes on (the brain restarts, a supervisor above gave up, a sibling's
 *   crash). Finalizers run, hooks do not; the next incarnation adopts what it finds.
 *
 * **Traps.**
 * - An actor that never says `ready` holds up the ordered start of its siblings until `startDeadline`.
 * - Finalizers cannot be interrupted (only hooks can). One that hangs delays the end; 5 s after the kill the supervisor
 *   abandons the fiber, says so in the history, and goes on.
 * - Fibers forked with `Effect.forkScoped` end with the incarnation; `Effect.forkDetach` escapes supervision.
 *
 * **Where this differs from OTP**, on purpose: failures are typed; restarts have back-off; budgets are per child and
 * per supervisor, in milliseconds; giving up is a failure, not `shutdown`; children a person stopped or that are parked
 * are not revived by a sibling's crash; a slow start never holds up the restart of another under `one_for_one`.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Cause from "effect/Cause"
import { type ChildSpec, type Dependencies, type MailboxControl, noDependencies, type Provided } from "./ChildSpec.ts"
import * as ExitView from "./ExitView.ts"
import * as RestartPolicy from "./RestartPolicy.ts"
import { type Annotations, Self } from "./Self.ts"

export type { ChildSpec, Provided } from "./ChildSpec.ts"
export { type Annotations, Self } from "./Self.ts"

/** How long an end may take: `brutal-kill` runs no stop hooks at all, `infinity` waits. */
export type Shutdown = "brutal-kill" | "infinity" | Duration.Input

/** What may be said about an actor; all of it optional. */
export interface Options {
  /** Default {@link RestartPolicy.infrastructure}. */
  readonly policy?: RestartPolicy.RestartPolicy
  /** Default 5 s, as OTP's workers. */
  readonly shutdown?: Shutdown
  /** Time to acknowledge the start; default 90 s. */
  readonly startDeadline?: Duration.Input | "infinity"
  /** False: registered as `stopped` when its supervisor starts (a person's stop that is remembered). Default true. */
  readonly autoStart?: boolean
  /**
   * True: where an earlier brain left it parked it stays so until a person starts it, where it was backing off it keeps its
   * appointment, and where it had finished or failed and is not to start by itself it still shows that. For actors that
   * have nothing left to be looked after. Default false: it starts.
   */
  readonly resume?: boolean
  /**
   * True: a `temporary` actor that is over stays in the tree, finished or failed, to be looked at and started again; with
   * others of its group it is started anew like any other. Default false: it is forgotten, as OTP does.
   */
  readonly keep?: boolean
  /** Its own end may be that of its supervisor (`autoShutdown`). Not for `permanent` actors. Default false. */
  readonly significant?: boolean
  /** The siblings it needs, by id. Default none. */
  readonly dependencies?: Partial<Dependencies>
  /** Where others leave it messages: a `Mailbox`, made beside this spec and of this actor alone. Default none. */
  readonly mailbox?: { readonly control: MailboxControl }
  /** What it is, shown in the tree; default `worker`. */
  readonly kind?: string
  /** A sentence for people. */
  readonly description?: string
}

/** Milliseconds of a `shutdown` option; 0 is the brutal kill. */
export const shutdownMillis = (shutdown: Shutdown): number =>
  shutdown === "brutal-kill" ? 0 : shutdown === "infinity" ? Number.POSITIVE_INFINITY : Duration.toMillis(shutdown)

/** All three lists, from those that were given. */
export const dependenciesOf = (given: Partial<Dependencies> | undefined): Dependencies =>
  given === undefined ? noDependencies : { ...noDependencies, ...given }

/**
 * A worker: the spec of an actor that runs `run`. Every incarnation gets a fresh scope, its {@link Self} and the `Tree`.
 * What is wrong with a spec is told by whoever is to start it; see `SpecProblems`.
 */
export function make<E, R>(
  id: string,
  options: Options,
  run: Effect.Effect<void, E, R>
): ChildSpec<E, Exclude<R, Provided>>
export function make<E, R>(id: string, options: Options, run: Effect.Effect<void, E, R | Provided>): ChildSpec<E, R> {
  return {
    id,
    kind: options.kind ?? "worker",
    description: options.description ?? "",
    policy: options.policy ?? RestartPolicy.infrastructure,
    shutdown: shutdownMillis(options.shutdown ?? 5_000),
    startDeadline: options.startDeadline === undefined ? 90_000 : shutdownMillis(options.startDeadline),
    autoStart: options.autoStart ?? true,
    resume: options.resume ?? false,
    keep: options.keep ?? false,
    significant: options.significant ?? false,
    dependencies: dependenciesOf(options.dependencies),
    mailbox: options.mailbox?.control,
    behaviour: { _tag: "Worker", run }
  }
}

const none: Annotations = {}

/**
 * Acknowledges the start: the supervisor goes on to the next sibling. The facts given become annotations in the tree.
 * `runningFor`: for how long that runs already which it has started; the tree shows that start.
 */
export const ready = (
  annotations: Annotations = none,
  runningFor: Duration.Duration = Duration.zero
): Effect.Effect<void, never, Self> =>
  Effect.map(Self, (self) => self.acknowledge(annotations, Duration.toMillis(runningFor), false))

/**
 * Acknowledges like {@link ready} that it took over what an earlier incarnation, or another brain, had started, and that
 * has run for `runningFor` already: the history tells it apart from a start, the tree shows when that was, and a back-off is
 * reset after a healthy run as if nobody had been replaced.
 */
export const adopted = (annotations: Annotations, runningFor: Duration.Duration): Effect.Effect<void, never, Self> =>
  Effect.map(Self, (self) => self.acknowledge(annotations, Duration.toMillis(runningFor), true))

/** Adds facts shown with this actor in the tree; an empty string takes one away. They last as long as the incarnation. */
export const annotate = (annotations: Annotations): Effect.Effect<void, never, Self> =>
  Effect.map(Self, (self) => self.annotate(annotations))

/** Says in the tree that it runs but not well, and why; an empty reason takes it back. */
export const degraded = (reason: string): Effect.Effect<void, never, Self> => annotate({ degraded: reason })

/** Ends this incarnation as "nothing to do here": `finished`, no restart, and no failure for an ordered start. */
export const ignore: Effect.Effect<never, never, Self> = Effect.flatMap(Self, (self) => {
  self.ignore()
  return Effect.interrupt
})

/** Tells, in a stop hook, how what the actor looks after has ended: its last exit in the tree, which decides nothing. */
export const stopped = <E>(exit: Exit.Exit<void, E>): Effect.Effect<void, never, Self> =>
  Effect.gen(function* () {
    const self = yield* Self
    self.stopped(ExitView.fromExit(yield* Clock.currentTimeMillis, exit, false))
  })

/**
 * Registers what has to be done when the ending is *stop*, never on a crash or *release*. Hooks and finalizers run
 * newest first. A hook is interrupted when the shutdown deadline passes; its failure is told in the history.
 */
export const onStop = <E, R>(hook: Effect.Effect<unknown, E, R>): Effect.Effect<void, never, Self | Scope.Scope | R> =>
  Effect.gen(function* () {
    const self = yield* Self
    const scope = yield* Effect.scope
    const context = yield* Effect.context<R>()
    const runHook = Effect.suspend(() => {
      if (!self.hooksWanted()) return Effect.void
      // The actor's own fiber is interrupted already, so the hook needs a fiber that the deadline can interrupt.
      const fiber = Effect.runForkWith(context)(hook)
      self.hookRuns(() => fiber.interruptUnsafe())
      return Effect.map(Fiber.await(fiber), (exit) => {
        self.hookRuns(undefined)
        if (Exit.isFailure(exit)) self.hookFailed(Cause.pretty(exit.cause))
      })
    })
    yield* Scope.addFinalizer(scope, runHook)
  })
