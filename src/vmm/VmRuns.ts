/**
 * `VmRuns`: the lives of virtual machines, one after another, from their files to their end. What a machine's actor does is here
 * in its parts; the actor (`VmActor.ts`) puts them in order.
 *
 * A life outlasts the actor that began it: taproot owns the process, this service (as long as the brain) stores what its console
 * prints, holds its control socket and remembers what has been dealt with. An actor that crashed, or a new brain, *finds* the
 * life by the label of its process and goes on with it.
 *
 * Traps:
 * - A guest that has come to an end leaves its hypervisor standing there until the end was judged (`verdict`), so that no brain
 *   can miss which end it was.
 * - While no brain takes what a console prints, some 128 KiB of it wait; then the guest waits too, as at a slow serial line.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Match from "effect/Match"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { Cgroups } from "../host/Cgroups.ts"
import * as DiskRoom from "../storage/DiskRoom.ts"
import * as ProcessLog from "../storage/logs/ProcessLog.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import { type Process, Processes, type SpawnRefused } from "../taproot/Processes.ts"
import { parseSignal } from "../taproot/Signals.ts"
import * as Devices from "./Devices.ts"
import * as Disks from "./Disks.ts"
import { DiskSources } from "./DiskSources.ts"
import * as Hold from "./Hold.ts"
import {
  type Control,
  ControlLost,
  type DriverName,
  Hypervisor,
  type LaunchRequest,
  type Model,
  PlaceFailed
} from "./Hypervisor.ts"
import type { VmRecord } from "./Records.ts"
import * as Seeds from "./Seeds.ts"
import * as Shape from "./Shape.ts"
import * as Uefi from "./Uefi.ts"
import * as VmExit from "./VmExit.ts"
import * as VmPaths from "./VmPaths.ts"
import * as VmSpec from "./VmSpec.ts"
import * as Work from "./Work.ts"

/** One life of a machine. */
export interface VmRun {
  readonly name: string
  readonly life: VmPaths.Life
  /** Where its sockets are. */
  readonly directory: string
  readonly cgroup: string
  readonly process: Process
  /** What made it. */
  readonly hypervisor: DriverName
  /** The hold on it: one for all who need it, taken again when it was lost. */
  readonly hold: Hold.Hold
  /** Whoever plugs its disks and cards in and out takes turns. */
  readonly devices: Semaphore.Semaphore
  /** Done when all that it has printed is stored. */
  readonly stored: Deferred.Deferred<void>
}

export class VmRuns extends Context.Service<
  VmRuns,
  {
    readonly paths: VmPaths.VmPaths
    /** The life that nobody has judged yet, if any: begun by whichever actor or brain. Older ones beside it are ended. */
    readonly find: (record: VmRecord) => Effect.Effect<Option.Option<VmRun>>
    /** Whether taproot has anything of it. */
    readonly isLeft: (name: string) => Effect.Effect<boolean>
    /**
     * Begins a new life; its guest runs. Interrupted or failed, it leaves nothing. Where a restore is decided (`Work`), its disks are
     * put in place and it begins with the memory; `arrived` commits that this is so, before the guest goes on.
     */
    readonly start: (
      record: VmRecord,
      incarnation: number,
      arrived: (label: string) => Effect.Effect<void, VmExit.VmFailure>
    ) => Effect.Effect<VmRun, VmExit.VmFailure>
    /** A life that waits for the memory of another one (`Memory.send`). It does not count before `succeed`. */
    readonly await: (
      record: VmRecord,
      of: VmRun,
      life: VmPaths.Life,
      model: Model
    ) => Effect.Effect<VmRun, VmExit.VmFailure>
    /** The other life counts from now on; the first one is ended. */
    readonly succeed: (record: VmRecord, from: VmRun, to: VmRun) => Effect.Effect<void>
    /** The life that this one's memory has gone to. */
    readonly successor: (run: VmRun) => VmRun | undefined
    /** Ends a life and clears it away; its guest is not asked. */
    readonly end: (record: VmRecord, run: VmRun) => Effect.Effect<void>
    /**
     * What an end means; what is left of that life is cleared away behind the scenes, once `remember` has seen the verdict.
     * Returns for a guest that powered off.
     */
    readonly verdict: (
      record: VmRecord,
      run: VmRun,
      ended: Hold.Ended,
      remember: (verdict: Exit.Exit<void, VmExit.VmFailure>) => Effect.Effect<void>
    ) => Effect.Effect<void, VmExit.VmFailure>
    /**
     * Ends every life of a machine: the power button, so long to wait, then its hypervisor. Returns when nothing is left, with
     * how the last one ended. Fine when there is none.
     */
    readonly stop: (
      record: VmRecord,
      grace: Duration.Duration
    ) => Effect.Effect<Option.Option<Exit.Exit<void, VmExit.VmFailure>>>
    /** Kills what runs, and lets a `stop` that is waiting, or comes later, wait no longer. */
    readonly hurry: (name: string) => Effect.Effect<void>
    /** Waits until everything that has ended is cleared away. */
    readonly quiet: Effect.Effect<void>
    /** The newest life that still goes on. */
    readonly current: (name: string) => Effect.Effect<Option.Option<VmRun>>
    /** What its console has printed (`stdout`) and what its hypervisor has said (`stderr`). */
    readonly console: (record: VmRecord) => ProcessLog.ProcessLog
    /** After `stop`: its console, its directory and all that is remembered. */
    readonly erase: (record: VmRecord) => Effect.Effect<void>
  }
>()("ironwood/vmm/VmRuns") {}

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

/**
 * Writes what the guest is told at its first start. The files may be read by everybody, since QEMU opens what it was handed once
 * more; the directory that they are in, by nobody but root.
 */
const writeSeeds = async (directory: string, { cloudInit, ignition, name }: VmSpec.VmSpec): Promise<void> => {
  const write = async (file: string, content: Uint8Array | string) => {
    const place = join(directory, file)
    await fs.mkdir(directory, { recursive: true, mode: 0o700 })
    // what is there may be open
    await fs.rm(place, { force: true })
    await fs.writeFile(place, content, { mode: 0o644, flag: "wx" })
  }
  if (cloudInit !== undefined) await write(VmSpec.SEED_FILE, Seeds.cloudInitDisk(name, cloudInit))
  if (ignition !== undefined) await write(VmSpec.IGNITION_FILE, ignition)
}

const make = Effect.fnUntraced(function* (paths: VmPaths.VmPaths) {
  const processes = yield* Processes
  const hypervisor = yield* Hypervisor
  const cgroups = yield* Cgroups
  const sources = yield* DiskSources
  const scope = yield* Effect.scope
  const room = DiskRoom.outputRoom(paths.consoles)
  const consoles = new Map<string, ProcessLog.ProcessLog>()
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => Effect.forEach(consoles.values(), ({ close }) => close, { discard: true }))
  )
  /** Lives by taproot's id of their process, until they are cleared away. */
  const known = new Map<bigint, VmRun>()
  const clearing = new Map<bigint, Fiber.Fiber<void>>()
  const ending = new Set<bigint>()
  const hurried = new Set<string>()
  /** Lives that wait for the memory of others, by taproot's id of their process. */
  const awaiting = new Set<bigint>()
  const successors = new Map<bigint, VmRun>()
  /** Lives whose memory is in another one: they have nothing to write back. */
  const empty = new Set<bigint>()
  /** Lives that never counted: nothing came, and what they print, if anything, waits behind the one that does. */
  const uncounted = new Set<bigint>()

  const console = ({ spec }: VmRecord): ProcessLog.ProcessLog => {
    let found = consoles.get(spec.name)
    if (found === undefined) {
      found = ProcessLog.make(join(paths.consoles, spec.name), spec.console, room)
      consoles.set(spec.name, found)
    }
    return found
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

  /** The life of a process, met for the first time or again. What it prints is stored from here on. */
  const register = Effect.fnUntraced(function* (record: VmRecord, process: Process, life: VmPaths.Life) {
    const before = known.get(process.id)
    if (before !== undefined) return before
    const { name } = record.spec
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
    known.set(process.id, run)
    return run
  })

  /** Every life of a machine that is not cleared away, oldest first. */
  const all = Effect.fnUntraced(function* (record: VmRecord) {
    const found: Array<VmRun> = []
    for (const process of yield* processes.takeAll(VmPaths.labelPrefix(record.spec.name))) {
      const parsed = VmPaths.parseLabel(process.label)
      if (Option.isSome(parsed)) found.push(yield* register(record, process, parsed.value.life))
    }
    return found
  })

  const hasEnded = ({ process }: VmRun) => Effect.map(process.exitNow, Option.isSome)

  /** Whether it has nothing to write back. One that has sent its memory away would not even end when it is told to. */
  const isEmpty = (run: VmRun) =>
    empty.has(run.process.id) || uncounted.has(run.process.id)
      ? Effect.succeed(true)
      : run.hold.get.pipe(
          Effect.flatMap(({ memory }) => memory?.isSent ?? Effect.succeed(false)),
          Effect.timeoutOrElse({ duration: ANSWERING, orElse: () => Effect.succeed(false) }),
          Effect.orElseSucceed(() => false),
          Effect.raceFirst(Effect.as(run.process.exit, false))
        )

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
      if (!uncounted.has(run.process.id)) yield* Effect.timeoutOption(Deferred.await(run.stored), LOG_PATIENCE)
      yield* hypervisor.release(run.directory, run.cgroup)
      yield* run.process.acknowledge
      yield* Effect.catchCause(cgroups.remove(run.cgroup), (cause) =>
        Effect.logWarning(`the cgroup of ${run.process.label} is still there`, Cause.squash(cause))
      )
      if (run.life.move > 0) {
        yield* Effect.ignore(Effect.tryPromise(() => fs.rm(run.directory, { recursive: true, force: true })))
      }
      known.delete(run.process.id)
      awaiting.delete(run.process.id)
      empty.delete(run.process.id)
      uncounted.delete(run.process.id)
      successors.delete(run.process.id)
      clearing.delete(run.process.id)
      if (![...known.values()].some(({ name }) => name === run.name)) {
        yield* consoles.get(run.name)?.idle ?? Effect.void
      }
    })

  /** Goes on behind the scenes; the fiber is for those who wait. */
  const clear = (run: VmRun) =>
    Effect.suspend(() => {
      const under = clearing.get(run.process.id)
      if (under !== undefined) return Effect.succeed(under)
      return Effect.tap(Effect.forkIn(clearNow(run), scope), (fiber) =>
        Effect.sync(() => clearing.set(run.process.id, fiber))
      )
    })

  /** Waits until nothing of a machine, or of any, is being cleared away any more. */
  const cleared = (name?: string) =>
    Effect.suspend(() => {
      const runs = [...known.values()].filter((run) => name === undefined || run.name === name)
      const fibers = runs.flatMap(({ process }) => clearing.get(process.id) ?? [])
      return Effect.forEach(fibers, (fiber) => Fiber.await(fiber), { discard: true })
    })

  /** What its hypervisor said last. */
  const lastWords = (record: VmRecord, run: VmRun) =>
    Effect.gen(function* () {
      if (uncounted.has(run.process.id)) return ""
      yield* Effect.timeoutOption(Deferred.await(run.stored), "2 seconds")
      // on a terminal everything is standard output
      const streams = run.process.streams.pty ? (["stdout"] as const) : (["stderr"] as const)
      const entries = yield* Stream.runCollect(console(record).read({ tail: 2, streams }))
      return [...entries].map(({ content }) => Buffer.from(content).toString("utf8").trim()).join("; ")
    }).pipe(Effect.orElseSucceed(() => ""))

  const ofProcess = Effect.fnUntraced(function* (
    record: VmRecord,
    run: VmRun,
    exit: ProcessExit.ProcessExit
  ): Effect.fn.Return<VmExit.VmFailure> {
    const { name } = record.spec
    if ((yield* cgroups.outOfMemoryKills(run.cgroup)) > 0) {
      return new VmExit.VmmOutOfMemory({ name, limit: VmSpec.hostMemoryOf(record.spec) })
    }
    const words = yield* lastWords(record, run)
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

  /** The power button, until the guest has come to its end or its time is over. */
  const askGuest = (run: VmRun, grace: Duration.Duration) =>
    Effect.gen(function* () {
      const control = yield* run.hold.get
      const state = yield* control.state
      if (state === "created" || state === "paused" || state === "stalled") yield* control.resume
      const press = Effect.andThen(control.powerButton, Effect.sleep(PRESS_AGAIN))
      return yield* Effect.raceFirst(run.hold.follow(Hold.silent), Effect.forever(press))
    }).pipe(Effect.option, Effect.timeoutOption(grace), Effect.map(Option.flatten))

  /** Ends one life and clears it away; how it ended. */
  const endRun = (record: VmRecord, run: VmRun, grace: Duration.Duration) =>
    Effect.gen(function* () {
      ending.add(run.process.id)
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
      ending.delete(run.process.id)
      return meaning
    })

  /** What is wrong with its files, the first of it. */
  const checkFiles = Effect.fnUntraced(function* (spec: VmSpec.VmSpec) {
    const check = <A>(path: string, look: Effect.Effect<A, string>) =>
      Effect.mapError(look, (problem) => new VmExit.FileUnusable({ name: spec.name, path, problem }))
    for (const path of [spec.kernel, spec.initrd]) if (path !== undefined) yield* check(path, Disks.plain(path))
    for (const disk of spec.disks) yield* check(disk.path, Disks.inspect(disk))
    yield* Effect.tryPromise({
      try: () => writeSeeds(VmPaths.directoryOf(paths, spec.name), spec),
      catch: (error) => new PlaceFailed({ detail: String(error) })
    })
    const ofHost = yield* Effect.promise(() => Shape.hostProblem(spec))
    if (ofHost !== undefined) return yield* new PlaceFailed({ detail: ofHost })
    if (Uefi.isWanted(spec)) yield* check(Uefi.codeOf(spec), Disks.plain(Uefi.codeOf(spec)))
    const variables = VmPaths.variablesOf(paths, spec.name)
    yield* check(variables, Uefi.prepareVariables(spec, variables))
  })

  /** A hypervisor's process with its hold, in which nothing goes on yet. On failure `last` is what it has said. */
  const begin = Effect.fnUntraced(function* (
    record: VmRecord,
    life: VmPaths.Life,
    incoming?: { readonly hypervisor: DriverName } & NonNullable<LaunchRequest["incoming"]>
  ) {
    const { user } = record
    const spec = Devices.wanted(record)
    const process = yield* hypervisor.launch({
      label: VmPaths.label(spec.name, life),
      machine: VmSpec.machineOf(spec, VmPaths.variablesOf(paths, spec.name)),
      hypervisor: incoming?.hypervisor ?? spec.hypervisor,
      place: {
        directory: VmPaths.placeOf(paths, spec.name, life),
        cgroup: VmPaths.cgroupOf(paths, spec.name, life),
        user,
        memoryBytes: VmSpec.hostMemoryOf(spec)
      },
      ...(incoming === undefined ? {} : { incoming: { model: incoming.model, beside: incoming.beside } })
    })
    return yield* register(record, process, life)
  })

  /** What went wrong with a life that began, as its hypervisor has it; whatever there is of it goes. */
  const beginning = <A>(
    record: VmRecord,
    life: VmPaths.Life,
    made: Effect.Effect<A, ControlLost | SpawnRefused | VmExit.VmFailure>
  ) => {
    const { name } = record.spec
    const label = VmPaths.label(name, life)
    const ofIt = Effect.map(all(record), (found) => found.filter(({ process }) => process.label === label))
    return made.pipe(
      Effect.catchTags({
        ControlLost: (lost) =>
          Effect.gen(function* () {
            const [run] = yield* ofIt
            const words = run === undefined ? "" : yield* lastWords(record, run)
            return yield* new VmExit.VmmRefused({ name, detail: words === "" ? lost.message : words })
          }),
        SpawnRefused: ({ message }) => new VmExit.VmmRefused({ name, detail: message })
      }),
      Effect.onError(() =>
        Effect.flatMap(ofIt, (found) =>
          Effect.forEach(found, (run) => endRun(record, run, Duration.zero), { discard: true })
        )
      )
    )
  }

  const start: VmRuns["Service"]["start"] = Effect.fnUntraced(function* (record, incarnation, arrived) {
    const { name } = record.spec
    const life = { incarnation, move: 0 }
    const work = record.work?._tag === "Restoring" ? record.work : undefined
    // its disks are locked as long as the life before is there
    yield* cleared(name)
    for (const run of known.values()) if (run.name === name) yield* run.process.exit
    if (work !== undefined) {
      yield* Effect.mapError(
        Work.putInPlace(work.files),
        ({ path, problem }) => new VmExit.FileUnusable({ name, path, problem })
      )
    }
    const spec = Devices.wanted(record)
    yield* sources.prepare(name, spec.disks)
    yield* checkFiles(spec)
    const made = Effect.gen(function* () {
      const run = yield* begin(record, life, work && { ...work, beside: false })
      const control = yield* run.hold.get
      if (work !== undefined) {
        if (control.memory === undefined) return yield* new VmExit.VmmRefused({ name, detail: "it takes no memory" })
        yield* control.memory.load(work.memory)
        yield* arrived(run.process.label)
      } else {
        // before its guest sees any of it; a memory that is put back has its own shape
        yield* Effect.mapError(
          control.shape(VmSpec.machineOf(spec, "")),
          ({ message }) => new ControlLost({ command: "shape", detail: message })
        )
      }
      yield* work?.paused === true ? run.hold.look : control.resume
      return run
    })
    return yield* beginning(record, life, made)
  })

  /** A migration that was not handed over: the life that waited for the memory goes. */
  const undoMove = (record: VmRecord, found: ReadonlyArray<VmRun>) => {
    const { work } = record
    if (work?._tag !== "Moving") return Effect.void
    const left = found.filter(({ process }) => process.label === work.to && !awaiting.has(process.id))
    for (const { process } of left) uncounted.add(process.id)
    return Effect.forEach(left, (run) => endRun(record, run, Duration.zero), { discard: true })
  }

  return VmRuns.of({
    paths,
    console,
    start,
    await: (record, of, life, model) => {
      const made = Effect.gen(function* () {
        yield* Effect.tryPromise({
          try: () => fs.mkdir(VmPaths.placeOf(paths, record.spec.name, life), { recursive: true, mode: 0o700 }),
          catch: (error) => new PlaceFailed({ detail: String(error) })
        })
        const run = yield* begin(record, life, { hypervisor: of.hypervisor, model, beside: true })
        awaiting.add(run.process.id)
        uncounted.add(run.process.id)
        yield* run.hold.get
        return run
      })
      return beginning(record, life, made)
    },
    succeed: (record, from, to) =>
      Effect.gen(function* () {
        awaiting.delete(to.process.id)
        uncounted.delete(to.process.id)
        empty.add(from.process.id)
        successors.set(from.process.id, to)
        yield* endRun(record, from, Duration.zero)
      }),
    successor: ({ process }) => successors.get(process.id),
    end: (record, run) => Effect.asVoid(endRun(record, run, Duration.zero)),
    find: Effect.fnUntraced(function* (record) {
      const every = yield* all(record)
      yield* undoMove(record, every)
      const found = every.filter(({ process }) => known.has(process.id) && !awaiting.has(process.id))
      const isOver = ({ process }: VmRun) => process.label === record.judged
      for (const run of found.filter(isOver)) yield* clear(run)
      const open = found.filter((run) => !isOver(run) && !clearing.has(run.process.id) && !ending.has(run.process.id))
      for (const run of open.slice(0, -1)) yield* Effect.forkIn(endRun(record, run, Duration.zero), scope)
      return Option.fromUndefinedOr(open.at(-1))
    }),
    isLeft: (name) => Effect.map(processes.takeAll(VmPaths.labelPrefix(name)), (found) => found.length > 0),
    verdict: (record, run, ended, remember) =>
      meaningOf(record, run, ended).pipe(Effect.onExit(remember), Effect.ensuring(clear(run))),
    stop: (record, grace) =>
      Effect.gen(function* () {
        const found = yield* all(record)
        const ends = yield* Effect.forEach(found, (run) => endRun(record, run, grace), { concurrency: "unbounded" })
        yield* cleared(record.spec.name)
        return Option.flatten(Option.fromUndefinedOr(ends.at(-1)))
      }),
    hurry: (name) =>
      Effect.suspend(() => {
        hurried.add(name)
        const runs = [...known.values()].filter((run) => run.name === name)
        return Effect.forEach(runs, ({ process }) => Effect.ignore(process.signal("SIGKILL")), { discard: true })
      }),
    quiet: cleared(),
    current: (name) =>
      Effect.gen(function* () {
        for (const run of [...known.values()].toReversed()) {
          if (run.name === name && !awaiting.has(run.process.id) && !(yield* hasEnded(run))) return Option.some(run)
        }
        return Option.none()
      }),
    erase: (record) =>
      Effect.gen(function* () {
        const { name } = record.spec
        hurried.delete(name)
        yield* console(record).close
        consoles.delete(name)
        for (const directory of [join(paths.consoles, name), VmPaths.directoryOf(paths, name)]) {
          yield* Effect.ignore(Effect.tryPromise(() => fs.rm(directory, { recursive: true, force: true })))
        }
        yield* sources.release(name)
      })
  })
})

/** The real one. */
export const layer = (paths: VmPaths.VmPaths) => Layer.effect(VmRuns, make(paths))
