/**
 * The lives of virtual machines that this brain has met and not cleared away yet, with what it knows of each of them: the part of
 * `VmRuns` that finds and adopts. A life is met by the label of its process, whoever began it; from then on what it prints is
 * stored.
 *
 * Trap: what is said here of a life is this brain's memory only. What the next one must know of it is in the machine's record
 * (`Work.ts`, `judged`).
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Deferred from "effect/Deferred"
import { join } from "node:path"
import * as DiskRoom from "../storage/DiskRoom.ts"
import * as KeyedLock from "../storage/KeyedLock.ts"
import * as ProcessLog from "../storage/logs/ProcessLog.ts"
import { type Process, Processes } from "../taproot/Processes.ts"
import * as Hold from "./Hold.ts"
import { type Control, Hypervisor } from "./Hypervisor.ts"
import type { VmRecord } from "./Records.ts"
import * as VmPaths from "./VmPaths.ts"
import type { VmRun } from "./VmRuns.ts"
import * as VmSpec from "./VmSpec.ts"
import * as Work from "./Work.ts"

/** What is known of a life. */
export interface Known {
  readonly run: VmRun
  /** Somebody is ending it. */
  readonly isEnding: boolean
  /** It waits for the memory of another one, and does not count before that. */
  readonly isAwaiting: boolean
  /** It never counted: nothing came, and what it prints, if anything, waits behind the one that does. */
  readonly isUncounted: boolean
  /** The one that its memory has gone to: it has nothing to write back. */
  readonly successor: VmRun | undefined
  /** Clears it away; undefined: nobody does yet. */
  readonly clearing: Fiber.Fiber<void> | undefined
}

/** What is done about a life that an earlier brain has left in the midst of something; nothing: it has not. */
const settling = (record: VmRecord, label: string) =>
  Work.lifeToSettle(record.work) === label
    ? ({ memory }: Control) =>
        memory === undefined
          ? Effect.void
          : Effect.andThen(
              record.work?._tag === "Arrived"
                ? Effect.ignore(memory.claim(VmSpec.machineOf(record.spec, "").nics), { log: "Warn" })
                : Effect.void,
              memory.settle(record.paused !== label)
            )
    : undefined

export const hasEnded = ({ process }: VmRun): Effect.Effect<boolean> => Effect.map(process.exitNow, Option.isSome)

/** Its holds and what it stores live as long as the scope. */
export const make = Effect.fnUntraced(function* (paths: VmPaths.VmPaths) {
  const processes = yield* Processes
  const hypervisor = yield* Hypervisor
  const scope = yield* Effect.scope
  const room = DiskRoom.outputRoom(paths.consoles)
  const consoles = new Map<string, ProcessLog.ProcessLog>()
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => Effect.forEach(consoles.values(), ({ close }) => close, { discard: true }))
  )
  /** By taproot's id of their process, in the order in which they were met. */
  const known = new Map<bigint, Known>()
  const forgotten = new WeakSet<Process>()
  /** By machine: two that look at the same time meet the same life. */
  const meeting = KeyedLock.make()

  const console = ({ spec }: VmRecord): ProcessLog.ProcessLog => {
    let found = consoles.get(spec.name)
    if (found === undefined) {
      found = ProcessLog.make(join(paths.consoles, spec.name), spec.console, room)
      consoles.set(spec.name, found)
    }
    return found
  }

  /** What is known of a life; undefined: it has been cleared away. */
  const of = ({ process }: VmRun): Known | undefined => known.get(process.id)

  /** Remembers more of a life, unless it has been cleared away. */
  const note = ({ process }: VmRun, change: Partial<Omit<Known, "run">>): void => {
    const life = known.get(process.id)
    if (life !== undefined) known.set(process.id, { ...life, ...change })
  }

  /** Those of a machine, or of all. */
  const those = (name?: string): ReadonlyArray<Known> =>
    [...known.values()].filter(({ run }) => name === undefined || run.name === name)

  /** The life of a process, met for the first time or again. */
  const register = (record: VmRecord, process: Process, life: VmPaths.Life) => {
    const { name } = record.spec
    return Effect.gen(function* () {
      const before = known.get(process.id)
      if (before !== undefined) return before.run
      const directory = VmPaths.placeOf(paths, name, life)
      const run: VmRun = {
        name,
        life,
        process,
        directory,
        hypervisor: yield* hypervisor.driverOf(directory),
        cgroup: VmPaths.cgroupOf(paths, name, life),
        hold: Hold.make(
          hypervisor.control(directory, process),
          process,
          scope,
          record.paused === process.label,
          settling(record, process.label)
        ),
        devices: Semaphore.makeUnsafe(1),
        stored: yield* Scope.provide(console(record).attach(process), scope)
      }
      known.set(process.id, {
        run,
        isEnding: false,
        isAwaiting: false,
        isUncounted: false,
        successor: undefined,
        clearing: undefined
      })
      return run
    }).pipe(meeting.withLock(name))
  }

  /** Every life of a machine that is not cleared away, oldest first. */
  const all = Effect.fnUntraced(function* (record: VmRecord) {
    const found: Array<VmRun> = []
    for (const process of yield* processes.takeAll(VmPaths.labelPrefix(record.spec.name))) {
      const parsed = VmPaths.parseLabel(process.label)
      // while another one was being met it may have been cleared away
      if (Option.isNone(parsed) || forgotten.has(process)) continue
      found.push(yield* register(record, process, parsed.value.life))
    }
    return found
  })

  /** What its hypervisor said last. */
  const lastWords = (record: VmRecord, run: VmRun) =>
    Effect.gen(function* () {
      if (of(run)?.isUncounted === true) return ""
      yield* Effect.timeoutOption(Deferred.await(run.stored), "2 seconds")
      // on a terminal everything is standard output
      const streams = run.process.streams.pty ? (["stdout"] as const) : (["stderr"] as const)
      const entries = yield* Stream.runCollect(console(record).read({ tail: 2, streams }))
      return [...entries].map(({ content }) => Buffer.from(content).toString("utf8").trim()).join("; ")
    }).pipe(Effect.orElseSucceed(() => ""))

  /** Nothing is left of it. */
  const forget = Effect.fnUntraced(function* ({ name, process }: VmRun) {
    forgotten.add(process)
    known.delete(process.id)
    if (those(name).length === 0) yield* consoles.get(name)?.idle ?? Effect.void
  })

  const closeConsole = (record: VmRecord) =>
    Effect.andThen(
      console(record).close,
      Effect.sync(() => consoles.delete(record.spec.name))
    )

  return { of, note, those, register, all, console, closeConsole, lastWords, forget }
})
export type KnownRuns = Effect.Success<ReturnType<typeof make>>
