/**
 * The real `VmRuns`, put together of its parts.
 *
 * - `KnownRuns.ts`: the lives that this brain has met
 * - `RunStarts.ts`: how one begins
 * - `RunEnds.ts`: how one ends, and what that means
 *
 * Here is which of them counts: the newest that nobody has judged, and that waits for no other one's memory. Those beside it are
 * ended.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { Processes } from "../taproot/Processes.ts"
import { DiskSources } from "./DiskSources.ts"
import * as KnownRuns from "./KnownRuns.ts"
import type { VmRecord } from "./Records.ts"
import * as RunEnds from "./RunEnds.ts"
import * as RunStarts from "./RunStarts.ts"
import * as VmPaths from "./VmPaths.ts"
import { type VmRun, VmRuns } from "./VmRuns.ts"

const make = Effect.fnUntraced(function* (paths: VmPaths.VmPaths) {
  const processes = yield* Processes
  const sources = yield* DiskSources
  const scope = yield* Effect.scope
  const lives = yield* KnownRuns.make(paths)
  const ends = yield* RunEnds.make(lives)
  const starts = yield* RunStarts.make(paths, lives, ends)

  /** A migration that was not handed over: the life that waited for the memory goes. */
  const undoMove = (record: VmRecord, found: ReadonlyArray<VmRun>) => {
    const { work } = record
    if (work?._tag !== "Moving") return Effect.void
    const left = found.filter((run) => run.process.label === work.to && lives.of(run)?.isAwaiting !== true)
    for (const run of left) lives.note(run, { isUncounted: true })
    return Effect.forEach(left, (run) => ends.endRun(record, run, Duration.zero), { discard: true })
  }

  return VmRuns.of({
    paths,
    console: lives.console,
    start: starts.start,
    await: starts.await,
    succeed: (record, from, to) =>
      Effect.gen(function* () {
        lives.note(to, { isAwaiting: false, isUncounted: false })
        lives.note(from, { successor: to })
        yield* ends.endRun(record, from, Duration.zero)
      }),
    successor: (run) => lives.of(run)?.successor,
    end: (record, run) => Effect.asVoid(ends.endRun(record, run, Duration.zero)),
    find: Effect.fnUntraced(function* (record) {
      const every = yield* lives.all(record)
      yield* undoMove(record, every)
      const found = every.flatMap((run) => {
        const life = lives.of(run)
        return life === undefined || life.isAwaiting ? [] : [life]
      })
      const isOver = ({ run }: KnownRuns.Known) => run.process.label === record.judged
      for (const { run } of found.filter(isOver)) yield* ends.clear(run)
      const open = found.filter((life) => !isOver(life) && life.clearing === undefined && !life.isEnding)
      for (const { run } of open.slice(0, -1)) {
        yield* Effect.forkIn(ends.endRun(record, run, Duration.zero), scope)
      }
      return Option.map(Option.fromUndefinedOr(open.at(-1)), ({ run }) => run)
    }),
    isLeft: (name) => Effect.map(processes.takeAll(VmPaths.labelPrefix(name)), (found) => found.length > 0),
    verdict: (record, run, ended, remember) =>
      ends.meaningOf(record, run, ended).pipe(Effect.onExit(remember), Effect.ensuring(ends.clear(run))),
    stop: (record, grace) =>
      Effect.gen(function* () {
        const found = yield* lives.all(record)
        const ended = yield* Effect.forEach(found, (run) => ends.endRun(record, run, grace), {
          concurrency: "unbounded"
        })
        yield* ends.cleared(record.spec.name)
        return Option.flatten(Option.fromUndefinedOr(ended.at(-1)))
      }),
    hurry: ends.hurry,
    quiet: ends.cleared(),
    current: (name) =>
      Effect.gen(function* () {
        for (const { isAwaiting, run } of lives.those(name).toReversed()) {
          if (!isAwaiting && !(yield* KnownRuns.hasEnded(run))) return Option.some(run)
        }
        return Option.none()
      }),
    erase: (record) =>
      Effect.gen(function* () {
        const { name } = record.spec
        ends.unhurry(name)
        yield* lives.closeConsole(record)
        for (const directory of [join(paths.consoles, name), VmPaths.directoryOf(paths, name)]) {
          yield* Effect.ignore(Effect.tryPromise(() => fs.rm(directory, { recursive: true, force: true })))
        }
        yield* sources.release(name)
      })
  })
})

/** The real one. */
export const layer = (paths: VmPaths.VmPaths) => Layer.effect(VmRuns, make(paths))
