/**
 * How the life of a virtual machine ends, and what that means: the part of `VmRuns` that ends, judges and clears away.
 *
 * A life is ended in steps: the power button for its guest, the end of its hypervisor, which may write back what it has of its
 * disks, then the kill. What it means is found out before it is cleared away, since that takes along the counters of its cgroup.
 *
 * Trap: one whose memory is in another life has nothing to write back, and would not even end when it is told to.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Match from "effect/Match"
import * as Option from "effect/Option"
import * as fs from "node:fs/promises"
import { Cgroups } from "../host/Cgroups.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import { parseSignal } from "../taproot/Signals.ts"
import * as Hold from "./Hold.ts"
import { Hypervisor } from "./Hypervisor.ts"
import { hasEnded, type KnownRuns } from "./KnownRuns.ts"
import type { VmRecord } from "./Records.ts"
import * as VmExit from "./VmExit.ts"
import type { VmRun } from "./VmRuns.ts"
import * as VmSpec from "./VmSpec.ts"

/** A process in the kernel can keep SIGKILL waiting (dead storage). */
const UNKILLABLE = "20 seconds"
/** A hypervisor that is told to end writes back what it has of its disks. */
const WRITING_BACK = "10 seconds"
/** One that is asked how it is before it is ended. */
const ANSWERING = "1 second"
const LOG_PATIENCE = "10 seconds"
/** A guest that is just starting does not hear the power button: it is pressed again. */
const PRESS_AGAIN = Duration.seconds(3)

/** The signals by which people and init systems end programs. */
const byHand: ReadonlySet<string> = new Set(["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])

/** The power button, until the guest has come to its end or its time is over. */
const askGuest = (run: VmRun, grace: Duration.Duration) =>
  Effect.gen(function* () {
    const control = yield* run.hold.get
    const state = yield* control.state
    if (state === "created" || state === "paused" || state === "stalled") yield* control.resume
    const press = Effect.andThen(control.powerButton, Effect.sleep(PRESS_AGAIN))
    return yield* Effect.raceFirst(run.hold.follow(Hold.silent), Effect.forever(press))
  }).pipe(Effect.option, Effect.timeoutOption(grace), Effect.map(Option.flatten))

/** What is being cleared away is so as long as the scope. */
export const make = Effect.fnUntraced(function* (lives: KnownRuns) {
  const hypervisor = yield* Hypervisor
  const cgroups = yield* Cgroups
  const scope = yield* Effect.scope
  const hurried = new Set<string>()

  // --- ending ---

  /** Whether it has nothing to write back. */
  const isEmpty = (run: VmRun) => {
    const life = lives.of(run)
    return life?.successor !== undefined || life?.isUncounted === true
      ? Effect.succeed(true)
      : run.hold.get.pipe(
          Effect.flatMap(({ memory }) => memory?.isSent ?? Effect.succeed(false)),
          Effect.timeoutOrElse({ duration: ANSWERING, orElse: () => Effect.succeed(false) }),
          Effect.orElseSucceed(() => false),
          Effect.raceFirst(Effect.as(run.process.exit, false))
        )
  }

  /** Ends the hypervisor itself: it may write back what it has of its disks, then it is killed. */
  const endProcess = (run: VmRun) =>
    Effect.gen(function* () {
      if (!hurried.has(run.name) && !(yield* isEmpty(run))) {
        yield* Effect.ignore(run.process.signal("SIGTERM"))
        yield* Effect.timeoutOption(run.process.exit, WRITING_BACK)
      }
      if (!(yield* hasEnded(run))) yield* Effect.ignore(run.process.signal("SIGKILL"))
      const exit = yield* Effect.timeoutOption(run.process.exit, UNKILLABLE)
      if (Option.isNone(exit)) yield* Effect.logError(`${run.process.label} does not end although it was killed`)
    })

  const clearNow = (run: VmRun) =>
    Effect.gen(function* () {
      yield* endProcess(run)
      yield* run.hold.release
      if (lives.of(run)?.isUncounted !== true) yield* Effect.timeoutOption(Deferred.await(run.stored), LOG_PATIENCE)
      yield* hypervisor.release(run.directory, run.cgroup)
      yield* run.process.acknowledge
      yield* Effect.catchCause(cgroups.remove(run.cgroup), (cause) =>
        Effect.logWarning(`the cgroup of ${run.process.label} is still there`, Cause.squash(cause))
      )
      if (run.life.move > 0) {
        yield* Effect.ignore(Effect.tryPromise(() => fs.rm(run.directory, { recursive: true, force: true })))
      }
      yield* lives.forget(run)
    })

  /** Goes on behind the scenes; the fiber is for those who wait. Nothing is left of one that nobody knows any more. */
  const clear = (run: VmRun) =>
    Effect.suspend(() => {
      const life = lives.of(run)
      if (life === undefined) return Effect.forkIn(Effect.void, scope)
      if (life.clearing !== undefined) return Effect.succeed(life.clearing)
      return Effect.tap(Effect.forkIn(clearNow(run), scope), (fiber) =>
        Effect.sync(() => lives.note(run, { clearing: fiber }))
      )
    })

  /** Waits until nothing of a machine, or of any, is being cleared away any more. */
  const cleared = (name?: string) =>
    Effect.suspend(() => {
      const fibers = lives.those(name).flatMap(({ clearing }) => clearing ?? [])
      return Effect.forEach(fibers, (fiber) => Fiber.await(fiber), { discard: true })
    })

  // --- what an end means ---

  /** Of a hypervisor that ended by itself, or by somebody. */
  const ofProcess = Effect.fnUntraced(function* (
    record: VmRecord,
    run: VmRun,
    exit: ProcessExit.ProcessExit
  ): Effect.fn.Return<VmExit.VmFailure> {
    const { name } = record.spec
    if ((yield* cgroups.outOfMemoryKills(run.cgroup)) > 0) {
      return new VmExit.VmmOutOfMemory({ name, limit: VmSpec.hostMemoryOf(record.spec) })
    }
    const words = yield* lives.lastWords(record, run)
    const how = ProcessExit.describe(exit)
    return Match.valueTags(exit, {
      Exited: ({ code }) => {
        if (code !== 0) return new VmExit.VmmCrashed({ name, how, detail: words })
        const signal = Option.getOrUndefined(parseSignal(/terminating on signal (\d+)/.exec(words)?.[1] ?? ""))
        return new VmExit.VmmKilled({ name, ...(signal === undefined ? {} : { signal }) })
      },
      Signaled: ({ signal }) =>
        byHand.has(signal)
          ? new VmExit.VmmKilled({ name, signal })
          : new VmExit.VmmCrashed({ name, how, detail: words }),
      NotExecuted: ({ message }) => new VmExit.VmmRefused({ name, detail: message })
    })
  })

  const meaningOf = (record: VmRecord, run: VmRun, ended: Hold.Ended): Effect.Effect<void, VmExit.VmFailure> => {
    const { name } = record.spec
    return Match.valueTags(ended, {
      PoweredOff: () => Effect.void,
      Rebooted: () => Effect.fail(new VmExit.GuestRebooted({ name })),
      Panicked: () => Effect.fail(new VmExit.GuestPanicked({ name })),
      Hung: () => Effect.fail(new VmExit.GuestHung({ name })),
      Gone: ({ exit }) =>
        Effect.gen(function* () {
          const state = yield* hypervisor.endOf(run.directory, exit)
          const guest = Option.flatMap(state, Hold.endOf)
          return yield* Option.isSome(guest)
            ? meaningOf(record, run, guest.value)
            : Effect.flatMap(ofProcess(record, run, exit), Effect.fail)
        })
    })
  }

  // --- all of it ---

  /** Ends one life and clears it away; how it ended. */
  const endRun = (record: VmRecord, run: VmRun, grace: Duration.Duration) =>
    Effect.gen(function* () {
      lives.note(run, { isEnding: true })
      const patient = !hurried.has(run.name) && Duration.toMillis(grace) > 0 && !(yield* hasEnded(run))
      const answer = patient ? yield* askGuest(run, grace) : Option.none<Hold.Ended>()
      const byUs = Option.isNone(answer) && !(yield* hasEnded(run))
      yield* endProcess(run)
      const exit = yield* run.process.exitNow
      const ended = Option.orElse(answer, () => Option.map(exit, (exit): Hold.Ended => ({ _tag: "Gone", exit })))
      // before it is cleared away: with the cgroup its counters go
      const meaning = Option.isNone(ended)
        ? Option.none()
        : Option.some(
            yield* meaningOf(record, run, ended.value).pipe(
              Effect.mapError((end) => (byUs && end._tag === "VmmKilled" ? end.ours : end)),
              Effect.exit
            )
          )
      yield* Effect.flatMap(clear(run), Fiber.await)
      return meaning
    })

  /** Kills what runs, and lets whoever asks a guest of it wait no longer. */
  const hurry = (name: string) =>
    Effect.suspend(() => {
      hurried.add(name)
      const open = lives.those(name)
      return Effect.forEach(open, ({ run }) => Effect.ignore(run.process.signal("SIGKILL")), { discard: true })
    })

  return { clear, cleared, meaningOf, endRun, hurry, unhurry: (name: string) => void hurried.delete(name) }
})
export type RunEnds = Effect.Success<ReturnType<typeof make>>
