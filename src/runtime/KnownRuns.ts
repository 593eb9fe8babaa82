/**
 * The runs of containers that this brain has met and not forgotten yet, with what it knows of each of them: the part of
 * `ContainerRuns` that finds and adopts. A run is met by the label of its process, whoever started it; from then on its output is
 * stored.
 *
 * Trap: what is said here of a run is this brain's memory only. One that has been forgotten is not met again: its process is
 * no one's any more, and its name may be the next one's.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { dirname } from "node:path"
import * as DiskRoom from "../storage/DiskRoom.ts"
import * as KeyedLock from "../storage/KeyedLock.ts"
import * as ProcessLog from "../storage/logs/ProcessLog.ts"
import type { Process } from "../taproot/Processes.ts"
import type { ContainerRun } from "./ContainerRuns.ts"
import { creatorLabel, type RunRequest } from "./OciRuntime.ts"
import type { ContainerRecord } from "./Records.ts"
import * as RuntimePaths from "./RuntimePaths.ts"
import { type System, Systems } from "./System.ts"

/** What is known of a run. */
export interface Known {
  readonly run: ContainerRun
  /** Somebody is ending it. */
  readonly isEnding: boolean
  readonly isFrozen: boolean
  /** Forgets it; undefined: nobody does yet. */
  readonly forgetting: Fiber.Fiber<void> | undefined
}

/** What a run is on the system that it is for. */
export const requestOf = ({ paths }: System, { sandbox, spec }: ContainerRecord, incarnation: number): RunRequest => {
  const container = spec.name
  const id = RuntimePaths.runId(container, incarnation)
  return {
    id,
    bundle: `${paths.bundles}/${id}`,
    cgroup: `${paths.cgroup}/${sandbox}/${id}`,
    label: RuntimePaths.label(container, incarnation),
    terminal: spec.terminal,
    stdin: spec.stdin
  }
}

export const hasEnded = ({ process }: ContainerRun): Effect.Effect<boolean> =>
  Effect.map(process.exitNow, Option.isSome)

/** What it stores lives as long as the scope. */
export const make = Effect.gen(function* () {
  const systems = yield* Systems
  const scope = yield* Effect.scope
  const { paths } = systems
  const room = DiskRoom.outputRoom(dirname(paths.logs))
  const logs = new Map<string, ProcessLog.ProcessLog>()
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => Effect.forEach(logs.values(), ({ close }) => close, { discard: true }))
  )
  /** By container, and then by process in the order in which they were met. */
  const known = new Map<string, Map<Process, Known>>()
  const forgotten = new WeakSet<Process>()
  /** By container: two that look at the same time meet the same run. */
  const meeting = KeyedLock.make()

  const log = ({ sandbox, spec }: ContainerRecord): ProcessLog.ProcessLog => {
    let found = logs.get(spec.name)
    if (found === undefined) {
      found = ProcessLog.make(`${paths.logs}/${sandbox}/${spec.name}`, spec.log, room)
      logs.set(spec.name, found)
    }
    return found
  }

  /** What is known of a run; undefined: it has been forgotten. */
  const of = ({ container, process }: ContainerRun): Known | undefined => known.get(container)?.get(process)

  /** Remembers more of a run, unless it has been forgotten. */
  const note = (run: ContainerRun, change: Partial<Omit<Known, "run">>): void => {
    const life = of(run)
    if (life !== undefined) known.get(run.container)?.set(run.process, { ...life, ...change })
  }

  /** Those of a container, or of all. */
  const those = (container?: string): ReadonlyArray<Known> =>
    container === undefined
      ? [...known.values()].flatMap((runs) => [...runs.values()])
      : [...(known.get(container)?.values() ?? [])]

  /** The run of a process, met for the first time or again. */
  const register = (system: System, record: ContainerRecord, process: Process, incarnation: number) => {
    const container = record.spec.name
    return Effect.gen(function* () {
      const before = known.get(container)?.get(process)
      if (before !== undefined) return before.run
      const stored = yield* Scope.provide(log(record).attach(process), scope)
      const run = { ...requestOf(system, record, incarnation), system, container, incarnation, process, stored }
      // an earlier brain may have frozen it
      const isFrozen = process.adopted && (yield* system.cgroups.frozen(run.cgroup))
      const runs = known.get(container) ?? new Map<Process, Known>()
      known.set(container, runs.set(process, { run, isEnding: false, isFrozen, forgetting: undefined }))
      return run
    }).pipe(meeting.withLock(container))
  }

  /** Every run of a container that is not forgotten, oldest first; starts that a dead brain left half-way included. */
  const all = Effect.fnUntraced(function* (record: ContainerRecord) {
    const { name } = record.spec
    const present = yield* systems.present(record.sandbox)
    if (Option.isNone(present)) return []
    const system = present.value
    const { processes, runtime } = system
    for (const { label } of yield* processes.takeAll(creatorLabel(RuntimePaths.labelPrefix(name)))) {
      const parsed = RuntimePaths.parseLabel(label.slice(creatorLabel("").length))
      if (Option.isSome(parsed)) yield* runtime.recover(requestOf(system, record, parsed.value.incarnation))
    }
    const found: Array<ContainerRun> = []
    for (const process of yield* processes.takeAll(RuntimePaths.labelPrefix(name))) {
      const parsed = RuntimePaths.parseLabel(process.label)
      // while another one was being met it may have been forgotten
      if (Option.isNone(parsed) || forgotten.has(process)) continue
      found.push(yield* register(system, record, process, parsed.value.incarnation))
    }
    return found
  })

  /** Nothing is left of it. */
  const forget = Effect.fnUntraced(function* ({ container, process }: ContainerRun) {
    forgotten.add(process)
    const runs = known.get(container)
    runs?.delete(process)
    if (runs !== undefined && runs.size > 0) return
    known.delete(container)
    yield* logs.get(container)?.idle ?? Effect.void
  })

  const closeLog = (record: ContainerRecord) =>
    Effect.andThen(
      log(record).close,
      Effect.sync(() => logs.delete(record.spec.name))
    )

  return { of, note, those, register, all, log, closeLog, forget }
})
export type KnownRuns = Effect.Success<typeof make>
