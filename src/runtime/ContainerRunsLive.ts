/**
 * The real `ContainerRuns`, put together of its parts.
 *
 * - `KnownRuns.ts`: the runs that this brain has met
 * - `RunStarts.ts`: how one begins
 * - `RunPauses.ts`: that it stands still
 * - `RunEnds.ts`: how one ends, and what that means
 *
 * Here is which of them counts: the newest that nobody has judged. Those beside it are ended.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as fs from "node:fs/promises"
import { type ContainerRun, ContainerRuns } from "./ContainerRuns.ts"
import * as Crowding from "./Crowding.ts"
import * as KnownRuns from "./KnownRuns.ts"
import { creatorLabel } from "./OciRuntime.ts"
import * as RunEnds from "./RunEnds.ts"
import * as RunPauses from "./RunPauses.ts"
import * as RunStarts from "./RunStarts.ts"
import * as RuntimePaths from "./RuntimePaths.ts"
import { Systems } from "./System.ts"

/**
 * How long a run that has ended waits to be deleted: the next one is being made at this moment and should not have to share
 * processors and kernel locks with that; and what supervision writes down about the exit is on the disk by then.
 */
const STEP_ASIDE = Duration.millis(50)

const make = Effect.gen(function* () {
  const systems = yield* Systems
  const scope = yield* Effect.scope
  const { namespaces, paths, pidNamespaces, stages } = systems
  const lives = yield* KnownRuns.make
  const pauses = RunPauses.make(lives)
  const ends = yield* RunEnds.make(lives, pauses)
  const starts = yield* RunStarts.make(lives)

  return ContainerRuns.of({
    paths,
    namespaces,
    pidNamespaces,
    stages,
    log: lives.log,
    image: starts.image,
    start: starts.start,
    find: Effect.fnUntraced(function* (record) {
      const open = (yield* lives.all(record)).filter((run) => {
        const life = lives.of(run)
        return life !== undefined && life.forgetting === undefined && !life.isEnding
      })
      const newest = open.at(-1)
      for (const run of open.slice(0, -1)) {
        yield* Effect.forkIn(ends.endRun(record, run, { signal: "SIGKILL", grace: Duration.zero }), scope)
      }
      return Option.fromUndefinedOr(newest)
    }),
    isLeft: ({ sandbox, spec }) =>
      Effect.gen(function* () {
        const system = yield* systems.present(sandbox)
        if (Option.isNone(system)) return false
        const { processes } = system.value
        const label = RuntimePaths.labelPrefix(spec.name)
        const found = [...(yield* processes.takeAll(label)), ...(yield* processes.takeAll(creatorLabel(label)))]
        return found.length > 0
      }),
    terminate: (run, ending) => Effect.andThen(ends.terminate(run, ending), run.process.exit),
    verdict: (record, run, exit, remember, because) =>
      (because === undefined ? ends.meaningOf(record, run, exit) : Effect.fail(because)).pipe(
        Effect.onExit(remember),
        // Only now: with the cgroup its counters go.
        Effect.ensuring(ends.forget(run, STEP_ASIDE))
      ),
    ending: ends.endingOf,
    stop: (record, ending) =>
      Effect.gen(function* () {
        const found = yield* lives.all(record)
        const ended = yield* Effect.forEach(found, (run) => ends.endRun(record, run, ending), {
          concurrency: "unbounded"
        })
        yield* ends.forgotten(record.spec.name)
        return Option.flatten(Option.fromUndefinedOr(ended.at(-1)))
      }),
    troubles: (record, run, tell) =>
      Effect.suspend(() => {
        const reasons = new Map<string, string>()
        const about = (what: string) => (why: string) => {
          reasons.set(what, why)
          tell([...reasons.values()].filter((reason) => reason !== "").join("; "))
        }
        const lost = about("output")
        return Effect.andThen(
          lives.log(record).onLoss((why) => lost(why === "" ? "" : `its output is dropped: ${why}`)),
          Crowding.follow(
            run.system.cgroups,
            run.cgroup,
            record.spec.resources.pids ?? run.system.processLimits.each,
            about("processes")
          )
        )
      }),
    quiet: ends.forgotten(),
    setPaused: pauses.setPaused,
    isPaused: pauses.isPaused,
    onPause: pauses.onPause,
    hurry: ends.hurry,
    currents: Effect.gen(function* () {
      const found = new Map<string, ContainerRun>()
      for (const { run } of lives.those()) if (!(yield* KnownRuns.hasEnded(run))) found.set(run.container, run)
      return found
    }),
    current: (container) =>
      Effect.gen(function* () {
        for (const { run } of lives.those(container).toReversed()) {
          if (!(yield* KnownRuns.hasEnded(run))) return Option.some(run)
        }
        return Option.none()
      }),
    erase: (record) =>
      Effect.gen(function* () {
        const { name } = record.spec
        ends.unhurry(name)
        yield* lives.closeLog(record)
        yield* Effect.ignore(
          Effect.tryPromise(async () => {
            await fs.rm(`${paths.logs}/${record.sandbox}/${name}`, { recursive: true, force: true })
            // The last container of a sandbox takes the sandbox's directory along.
            await fs.rmdir(`${paths.logs}/${record.sandbox}`).catch(() => undefined)
          })
        )
      })
  })
})

/** The real one. */
export const layer = Layer.effect(ContainerRuns, make)
