/**
 * How a run of a container ends, and what that means: the part of `ContainerRuns` that ends, judges and forgets.
 *
 * Trap: what an end means is found out before it is forgotten, since that takes along the counters of its cgroup.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Match from "effect/Match"
import * as Option from "effect/Option"
import { Content } from "../storage/Content.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import { parseSignal } from "../taproot/Signals.ts"
import {
  type ContainerFailure,
  ContainerExited,
  ContainerOomKilled,
  ContainerSignaled,
  CreateFailed,
  MicroVmEnded
} from "./ContainerExit.ts"
import type { ContainerRun, ContainerRuns, Ending } from "./ContainerRuns.ts"
import { hasEnded, type KnownRuns } from "./KnownRuns.ts"
import type { ContainerRecord } from "./Records.ts"
import type { RunPauses } from "./RunPauses.ts"
import type { System } from "./System.ts"

/** A process in the kernel can keep SIGKILL waiting (dead storage); then the end is told as a failure, not waited for. */
const UNKILLABLE = "20 seconds"
const LOG_PATIENCE = "10 seconds"

/** The end of the system that it ran on, when that is why it is not there any more. */
export const endedWith = (system: System, name: string): Effect.Effect<MicroVmEnded | undefined> =>
  Effect.map(system.gone, (gone) =>
    Option.getOrUndefined(Option.map(gone, (detail) => new MicroVmEnded({ name, detail })))
  )

/** What is being forgotten is so as long as the scope. */
export const make = Effect.fnUntraced(function* (lives: KnownRuns, pauses: RunPauses) {
  const content = yield* Content
  const scope = yield* Effect.scope
  const hurried = new Set<string>()

  // --- forgetting ---

  const forgetNow = (run: ContainerRun, after: Duration.Duration) =>
    Effect.gen(function* () {
      yield* Effect.timeoutOption(Deferred.await(run.stored), LOG_PATIENCE)
      yield* Effect.sleep(after)
      yield* run.process.acknowledge
      // what is gone with its system needs no clearing away
      if (Option.isNone(yield* run.system.gone)) {
        yield* Effect.catchCause(run.system.runtime.remove(run), (cause) =>
          Effect.flatMap(run.system.gone, (gone) =>
            Option.isSome(gone)
              ? Effect.void
              : Effect.logWarning(
                  `run ${run.id} was not removed wholly; the next start of Ironwood tries again`,
                  Cause.squash(cause)
                )
          )
        )
        yield* Effect.ignore(run.system.files.remove(run.bundle))
      }
      yield* run.system.belongings.takeBack(run.id)
      yield* lives.forget(run)
    })

  /**
   * After the exit: log complete, taproot's entry given back, runtime and cgroup rid of it; what a brain that dies in between
   * leaves is cleared away by the next. Goes on behind the scenes; the fiber is for those who wait. Nothing is left of one that
   * nobody knows any more: its name may be that of the next one by then.
   */
  const forget = (run: ContainerRun, after: Duration.Duration) =>
    Effect.suspend(() => {
      const life = lives.of(run)
      if (life === undefined) return Effect.forkIn(Effect.void, scope)
      if (life.forgetting !== undefined) return Effect.succeed(life.forgetting)
      return Effect.tap(Effect.forkIn(forgetNow(run, after), scope), (fiber) =>
        Effect.sync(() => lives.note(run, { forgetting: fiber }))
      )
    })

  /** Waits until nothing of a container, or of any, is being forgotten any more. */
  const forgotten = (container?: string) =>
    Effect.suspend(() => {
      const fibers = lives.those(container).flatMap(({ forgetting }) => forgetting ?? [])
      return Effect.forEach(fibers, (fiber) => Fiber.await(fiber), { discard: true })
    })

  // --- what an end means ---

  const failureOf = Effect.fnUntraced(function* (
    record: ContainerRecord,
    run: ContainerRun,
    exit: ProcessExit.ProcessExit
  ): Effect.fn.Return<ContainerFailure> {
    const { name, resources } = record.spec
    const ended = yield* endedWith(run.system, name)
    if (ended !== undefined) return ended
    const kills = yield* run.system.cgroups.outOfMemoryKills(run.cgroup)
    if (kills > 0) {
      const limit = resources.memoryBytes
      return new ContainerOomKilled({ name, kills, ...(limit === undefined ? {} : { limit }) })
    }
    return Match.valueTags(exit, {
      Exited: ({ code }) => new ContainerExited({ name, code }),
      Signaled: ({ coreDumped, signal }) => new ContainerSignaled({ name, signal, coreDumped }),
      NotExecuted: ({ message }) => new CreateFailed({ name, detail: message })
    })
  })

  /** What an exit means: a failure, but for code 0. */
  const meaningOf = (record: ContainerRecord, run: ContainerRun, exit: ProcessExit.ProcessExit) =>
    ProcessExit.isSuccess(exit) ? Effect.void : Effect.flip(failureOf(record, run, exit))

  // --- ending ---

  const endingOf: ContainerRuns["Service"]["ending"] = (record) =>
    Effect.gen(function* () {
      const image = yield* Effect.option(content.get(record.image ?? record.spec.image))
      const fromImage = Option.match(image, { onNone: () => "", onSome: ({ config }) => config.stopSignal })
      const wanted = parseSignal(record.ending?.signal ?? record.spec.stopSignal ?? fromImage)
      return {
        signal: Option.getOrElse(wanted, () => "SIGTERM" as const),
        grace: record.ending?.gracePeriod ?? record.spec.stopGracePeriod
      }
    })

  const kill = ({ process }: ContainerRun) => Effect.ignore(process.signal("SIGKILL"))

  /** Signal, grace, kill. */
  const terminate = (run: ContainerRun, { grace, signal }: Ending) =>
    Effect.gen(function* () {
      if (yield* hasEnded(run)) return
      yield* pauses.thaw(run)
      if (!hurried.has(run.container) && Duration.toMillis(grace) > 0) {
        yield* Effect.ignore(run.process.signal(signal))
        yield* Effect.timeoutOption(run.process.exit, grace)
      }
      if (!(yield* hasEnded(run))) yield* kill(run)
      const exit = yield* Effect.timeoutOption(run.process.exit, UNKILLABLE)
      if (Option.isNone(exit)) yield* Effect.logError(`run ${run.id} does not end although it was killed`)
    })

  /** Ends one run and forgets it; how it ended. */
  const endRun = (record: ContainerRecord, run: ContainerRun, how: Ending) =>
    Effect.gen(function* () {
      lives.note(run, { isEnding: true })
      yield* terminate(run, how)
      const exit = yield* run.process.exitNow
      // before it is forgotten: with the cgroup its counters go
      const ended = Option.isNone(exit)
        ? Option.none()
        : Option.some(yield* Effect.exit(meaningOf(record, run, exit.value)))
      yield* Effect.flatMap(forget(run, Duration.zero), Fiber.await)
      return ended
    })

  /** Kills what runs, and lets whoever ends a run of it wait no longer. */
  const hurry = (container: string) =>
    Effect.suspend(() => {
      hurried.add(container)
      return Effect.forEach(lives.those(container), ({ run }) => Effect.andThen(kill(run), pauses.thaw(run)), {
        discard: true
      })
    })

  return {
    forget,
    forgotten,
    meaningOf,
    endingOf,
    terminate,
    endRun,
    hurry,
    unhurry: (container: string) => void hurried.delete(container)
  }
})
