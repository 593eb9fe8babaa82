/**
 * `ContainerRuns`: the lives of containers' processes, one after another, from image to exit. What a container's actor does
 * is here in its parts; the actor (`ContainerActor.ts`) puts them in order.
 *
 * A run outlives the actor that started it: taproot owns the process, this service (as long as the brain) stores its output
 * and remembers what has been dealt with. An actor that crashed, or a new brain, *finds* the run by the label of its process
 * and goes on with it.
 *
 * Traps:
 * - A run that has ended is judged once (`verdict`) and forgotten behind the scenes: the next run of the container does not
 *   wait for the runtime to delete the old one. A brain that dies within these milliseconds lets the next one judge it again.
 * - Everything is by container name, and a name has one run at a time: `start` waits for whoever of an earlier run still
 *   lives.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Match from "effect/Match"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as fs from "node:fs/promises"
import { dirname } from "node:path"
import { Content } from "../storage/Content.ts"
import type { Digest } from "../storage/Digest.ts"
import * as DiskRoom from "../storage/DiskRoom.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { Process } from "../taproot/Processes.ts"
import { parseSignal, type SignalName } from "../taproot/Signals.ts"
import {
  type ContainerFailure,
  ContainerExited,
  ContainerOomKilled,
  ContainerSignaled,
  CreateFailed,
  ImageMissing,
  ImagePullFailed,
  MicroVmEnded,
  RootfsFailed,
  type RuntimeMissing,
  UserUnknown
} from "./ContainerExit.ts"
import * as ProcessLog from "../storage/logs/ProcessLog.ts"
import * as ContainerUser from "./ContainerUser.ts"
import * as Crowding from "./Crowding.ts"
import { creatorLabel, type RunRequest, type RuntimeFailed } from "./OciRuntime.ts"
import type { ContainerRecord, SandboxRecord } from "./Records.ts"
import * as RuntimePaths from "./RuntimePaths.ts"
import * as Isolation from "./Isolation.ts"
import * as RuntimeSpec from "./RuntimeSpec.ts"
import { SeccompFilters } from "./SeccompFilters.ts"
import type * as PidNamespaces from "./PidNamespaces.ts"
import type * as SandboxNamespaces from "./SandboxNamespaces.ts"
import type * as Stages from "./Stages.ts"
import { COUNT } from "../taproot/IdMap.ts"
import { orFullDisk, startFailure } from "./StartFailure.ts"
import { type System, Systems } from "./System.ts"

/** One run of a container. */
export interface ContainerRun extends RunRequest {
  /** Where it runs. */
  readonly system: System
  readonly container: string
  readonly incarnation: number
  readonly process: Process
  /** Done when all its output is in the log. */
  readonly stored: Deferred.Deferred<void>
}

/** How to end a run: this signal, so long to wait, then SIGKILL. */
export interface Ending {
  readonly signal: SignalName
  readonly grace: Duration.Duration
}

export class ContainerRuns extends Context.Service<
  ContainerRuns,
  {
    readonly paths: RuntimePaths.RuntimePaths
    readonly namespaces: SandboxNamespaces.SandboxNamespaces
    readonly pidNamespaces: PidNamespaces.PidNamespaces
    readonly stages: Stages.Stages
    /** The run that nobody has judged yet, if any: made by whichever actor or brain. Older ones beside it are ended. */
    readonly find: (record: ContainerRecord) => Effect.Effect<Option.Option<ContainerRun>>
    /** Whether taproot has anything of it: a process that lives, one whose end nobody has judged, a start that is half-way. */
    readonly isLeft: (record: ContainerRecord) => Effect.Effect<boolean>
    /** What a start of it runs: the image that it has, or the one that is pulled for it. Undefined: there is none. */
    readonly image: (record: ContainerRecord) => Effect.Effect<Digest | undefined, ContainerFailure>
    /** Makes a new run. Interrupted or failed, it leaves nothing. */
    readonly start: (
      record: ContainerRecord,
      sandbox: SandboxRecord,
      incarnation: number
    ) => Effect.Effect<ContainerRun, ContainerFailure>
    /**
     * What the end of a run means; the run is forgotten behind the scenes, once `remember` has seen the verdict. Returns
     * for exit code 0.
     */
    readonly verdict: (
      record: ContainerRecord,
      run: ContainerRun,
      exit: ProcessExit.ProcessExit,
      remember: (verdict: Exit.Exit<void, ContainerFailure>) => Effect.Effect<void>,
      /** Why it was made to end, which its exit cannot say. */
      because?: ContainerFailure
    ) => Effect.Effect<void, ContainerFailure>
    /** Ends a run in its own way; it is not forgotten, and its end is for `verdict`. */
    readonly terminate: (run: ContainerRun, ending: Ending) => Effect.Effect<ProcessExit.ProcessExit>
    /** How it is to be ended: as whoever stops it, else its spec, else its image wants it. */
    readonly ending: (record: ContainerRecord) => Effect.Effect<Ending>
    /**
     * Ends every run of a container and forgets it; returns when nothing is left, with how the last one ended. Fine when
     * there is none.
     */
    readonly stop: (
      record: ContainerRecord,
      ending: Ending
    ) => Effect.Effect<Option.Option<Exit.Exit<void, ContainerFailure>>>
    /** Waits until every run that has ended is forgotten. */
    readonly quiet: Effect.Effect<void>
    /** Kills what runs, and lets a `stop` that is waiting, or comes later, wait no longer. */
    readonly hurry: (container: string) => Effect.Effect<void>
    /** Freezes a run, or lets it go on. One that is stopped goes on before. */
    readonly setPaused: (run: ContainerRun, paused: boolean) => Effect.Effect<void, RuntimeMissing | RuntimeFailed>
    /** Whether its present run is frozen. */
    readonly isPaused: (container: string) => Effect.Effect<boolean>
    /** Tells in the scope, from now on, whether it is frozen: at once when it is, and whenever that changes. */
    readonly onPause: (container: string, tell: (paused: boolean) => void) => Effect.Effect<void, never, Scope.Scope>
    /** The newest run that still lives. */
    readonly current: (container: string) => Effect.Effect<Option.Option<ContainerRun>>
    /** The same of all containers, by their names. */
    readonly currents: Effect.Effect<ReadonlyMap<string, ContainerRun>>
    readonly log: (record: ContainerRecord) => ProcessLog.ProcessLog
    /** Tells for ever, from now on, in what a run is less than it should be; an empty text when that is over. */
    readonly troubles: (record: ContainerRecord, run: ContainerRun, tell: (why: string) => void) => Effect.Effect<never>
    /** After `stop`: closes and removes the log, forgets the rest. */
    readonly erase: (record: ContainerRecord) => Effect.Effect<void>
  }
>()("ironwood/runtime/ContainerRuns") {}

/** A process in the kernel can keep SIGKILL waiting (dead storage); then the end is told as a failure, not waited for. */
const UNKILLABLE = "20 seconds"
const LOG_PATIENCE = "10 seconds"
/**
 * How long a run that has ended waits to be deleted: the next one is being made at this moment and should not have to share
 * processors and kernel locks with that; and what supervision writes down about the exit is on the disk by then.
 */
const STEP_ASIDE = Duration.millis(50)
/** Root file systems mounted at a time: taproot takes 16 mounts at once, and refuses more. */
const PREPARED_AT_ONCE = 6

const make = Effect.gen(function* () {
  const content = yield* Content
  const systems = yield* Systems
  const scope = yield* Effect.scope
  const filters = new SeccompFilters()
  const { namespaces, paths, pidNamespaces, stages } = systems
  const preparing = Semaphore.makeUnsafe(PREPARED_AT_ONCE)

  const room = DiskRoom.outputRoom(dirname(paths.logs))
  const logs = new Map<string, ProcessLog.ProcessLog>()
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => Effect.forEach(logs.values(), ({ close }) => close, { discard: true }))
  )
  /** Runs by their process, until they are forgotten. */
  const known = new Map<Process, ContainerRun>()
  /** Of them, those that have been judged and are being forgotten, and those that are being ended. */
  const forgetting = new Map<Process, Fiber.Fiber<void>>()
  const ending = new Set<Process>()
  const hurried = new Set<string>()
  /** The containers of runs that are frozen, by their process; and who wants to hear of that, by container. */
  const frozen = new Map<Process, string>()
  const listeners = new Map<string, Set<(paused: boolean) => void>>()
  const tellPaused = (container: string, paused: boolean) =>
    Effect.sync(() => listeners.get(container)?.forEach((tell) => tell(paused)))

  const log = ({ sandbox, spec }: ContainerRecord): ProcessLog.ProcessLog => {
    let found = logs.get(spec.name)
    if (found === undefined) {
      found = ProcessLog.make(`${paths.logs}/${sandbox}/${spec.name}`, spec.log, room)
      logs.set(spec.name, found)
    }
    return found
  }

  const requestOf = ({ paths }: System, { sandbox, spec }: ContainerRecord, incarnation: number): RunRequest => {
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

  /** The run of a process, met for the first time or again. Its output is stored from here on. */
  const register = Effect.fnUntraced(function* (
    system: System,
    record: ContainerRecord,
    process: Process,
    incarnation: number
  ) {
    const before = known.get(process)
    if (before !== undefined) return before
    const container = record.spec.name
    const stored = yield* Scope.provide(log(record).attach(process), scope)
    const run = { ...requestOf(system, record, incarnation), system, container, incarnation, process, stored }
    known.set(process, run)
    // an earlier brain may have frozen it
    if (process.adopted && (yield* system.cgroups.frozen(run.cgroup))) frozen.set(process, container)
    return run
  })

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
      if (Option.isSome(parsed)) found.push(yield* register(system, record, process, parsed.value.incarnation))
    }
    return found
  })

  const hasEnded = ({ process }: ContainerRun) => Effect.map(process.exitNow, Option.isSome)

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
      known.delete(run.process)
      frozen.delete(run.process)
      forgetting.delete(run.process)
      if (![...known.values()].some(({ container }) => container === run.container)) {
        yield* logs.get(run.container)?.idle ?? Effect.void
      }
    })

  /**
   * After the exit: log complete, taproot's entry given back, runtime and cgroup rid of it; what a brain that dies in between
   * leaves is cleared away by the next. Goes on behind the scenes; the fiber is for those who wait.
   */
  const forget = (run: ContainerRun, after: Duration.Duration) =>
    Effect.suspend(() => {
      const under = forgetting.get(run.process)
      if (under !== undefined) return Effect.succeed(under)
      return Effect.tap(Effect.forkIn(forgetNow(run, after), scope), (fiber) =>
        Effect.sync(() => forgetting.set(run.process, fiber))
      )
    })

  /** Waits until nothing of a container, or of any, is being forgotten any more. */
  const forgotten = (container?: string) =>
    Effect.suspend(() => {
      const runs = [...known.values()].filter((run) => container === undefined || run.container === container)
      const fibers = runs.flatMap(({ process }) => forgetting.get(process) ?? [])
      return Effect.forEach(fibers, (fiber) => Fiber.await(fiber), { discard: true })
    })

  const kill = ({ process }: ContainerRun) => Effect.ignore(process.signal("SIGKILL"))

  /** What an exit means: a failure, but for code 0. */
  const meaningOf = (record: ContainerRecord, run: ContainerRun, exit: ProcessExit.ProcessExit) =>
    ProcessExit.isSuccess(exit) ? Effect.void : Effect.flip(failureOf(record, run, exit))

  const setPaused = (run: ContainerRun, paused: boolean) =>
    Effect.gen(function* () {
      yield* run.system.runtime.control(paused ? "pause" : "resume", run.id)
      if (paused) frozen.set(run.process, run.container)
      else frozen.delete(run.process)
      yield* tellPaused(run.container, paused)
    }).pipe(Effect.uninterruptible)

  /** Signal, grace, kill. */
  const terminate = (run: ContainerRun, { grace, signal }: Ending) =>
    Effect.gen(function* () {
      if (yield* hasEnded(run)) return
      // a frozen process takes no signal; on cgroup v1 not even the last one
      if (frozen.has(run.process)) yield* Effect.ignore(setPaused(run, false))
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
      ending.add(run.process)
      yield* terminate(run, how)
      const exit = yield* run.process.exitNow
      // before it is forgotten: with the cgroup its counters go
      const ended = Option.isNone(exit)
        ? Option.none()
        : Option.some(yield* Effect.exit(meaningOf(record, run, exit.value)))
      yield* Effect.flatMap(forget(run, Duration.zero), Fiber.await)
      ending.delete(run.process)
      return ended
    })

  /** Writes what the runtime reads; gives the program that it is to execute. */
  const configure = Effect.fnUntraced(function* (
    system: System,
    record: ContainerRecord,
    request: RunRequest,
    surroundings: SandboxNamespaces.Surroundings
  ) {
    const { spec } = record
    const { name } = spec
    const missing = new ImageMissing({ name, image: spec.image })
    const digest = record.image ?? (yield* missing)
    const image = yield* Effect.mapError(content.get(digest), (error) =>
      error._tag === "StorageFailed" ? new RootfsFailed({ name, detail: error.message }) : missing
    )
    const { users } = surroundings
    const mount = yield* Effect.mapError(system.root(digest, name, record.identity ?? "", users), (error) =>
      error._tag === "ImageNotFound" ? missing : error
    )
    const asUser = spec.user ?? image.config.user
    const user = yield* Effect.mapError(
      ContainerUser.lookUp(mount.seen, asUser, system.readInRoot),
      (error) =>
        new UserUnknown({ name, user: asUser, detail: error._tag === "UserNotFound" ? error.problem : error.message })
    )
    const beyond = users === undefined ? undefined : [user.uid, user.gid, ...user.groups].find((id) => id >= COUNT)
    if (beyond !== undefined) {
      const detail = `its sandbox has the users and groups 0 to ${COUNT - 1} alone (userNamespace: private), and not ${beyond}`
      return yield* new UserUnknown({ name, user: asUser, detail })
    }
    const isolation = Isolation.of(spec.security, system.capabilities)
    const belongings = yield* system.belongings.give(request.id, spec, user, { root: mount.seen, users })
    const config = yield* RuntimeSpec.make({
      spec,
      image: image.config,
      rootfs: mount.path,
      user,
      cgroupsPath: request.cgroup,
      limitSwap: system.limitSwap,
      isolation,
      seccompFilter: filters.of(isolation.seccomp),
      processLimit: system.processLimits.each,
      init: system.helper("init"),
      ...belongings,
      ...surroundings
    })
    yield* system.files.makeDirectory(request.bundle).pipe(
      Effect.andThen(system.files.write(`${request.bundle}/config.json`, JSON.stringify(config))),
      Effect.mapError(({ message }) => new CreateFailed({ name, detail: orFullDisk(message) }))
    )
    return { program: config.process.args[0] ?? "", seccomp: isolation.seccomp }
  })

  const start: ContainerRuns["Service"]["start"] = Effect.fnUntraced(function* (record, sandbox, incarnation) {
    const { name } = record.spec
    for (const run of known.values()) if (run.container === name) yield* run.process.exit
    const system = yield* systems.ready(sandbox)
    const request = requestOf(system, record, incarnation)
    const started = yield* system
      .within(sandbox, name, (surroundings) =>
        Effect.flatMap(preparing.withPermit(configure(system, record, request, surroundings)), ({ program, seccomp }) =>
          system.runtime.run(request).pipe(
            Effect.tap(filters.learn(seccomp, `${system.paths.oci}/${request.id}`, system.files)),
            Effect.catchTag("RuntimeFailed", (error) => Effect.fail(startFailure(name, program, error)))
          )
        ).pipe(Effect.scoped)
      )
      .pipe(
        Effect.catchTag("RuntimeFailed", ({ message }) => Effect.fail(new CreateFailed({ name, detail: message }))),
        Effect.onError(() =>
          Effect.andThen(Effect.ignore(system.files.remove(request.bundle)), system.belongings.takeBack(request.id))
        ),
        Effect.map((process) => ({ process })),
        Effect.catch((error) =>
          Effect.gen(function* () {
            if (yield* system.isRenewed) return undefined
            return yield* (yield* endedWith(system, name)) ?? error
          })
        )
      )
    if (started === undefined) return yield* start(record, sandbox, incarnation)
    return yield* register(system, record, started.process, incarnation)
  })

  /** The end of the system that it ran on, when that is why it is not there any more. */
  const endedWith = (system: System, name: string): Effect.Effect<MicroVmEnded | undefined> =>
    Effect.map(system.gone, (gone) =>
      Option.getOrUndefined(Option.map(gone, (detail) => new MicroVmEnded({ name, detail })))
    )

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

  return ContainerRuns.of({
    paths,
    namespaces,
    pidNamespaces,
    stages,
    log,
    start,
    find: Effect.fnUntraced(function* (record) {
      const open = (yield* all(record)).filter(({ process }) => !forgetting.has(process) && !ending.has(process))
      const newest = open.at(-1)
      for (const run of open.slice(0, -1)) {
        yield* Effect.forkIn(endRun(record, run, { signal: "SIGKILL", grace: Duration.zero }), scope)
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
    terminate: (run, ending) => Effect.andThen(terminate(run, ending), run.process.exit),
    verdict: (record, run, exit, remember, because) =>
      (because === undefined ? meaningOf(record, run, exit) : Effect.fail(because)).pipe(
        Effect.onExit(remember),
        // Only now: with the cgroup its counters go.
        Effect.ensuring(forget(run, STEP_ASIDE))
      ),
    image: Effect.fnUntraced(function* ({ image: known, spec }) {
      const { image, imagePull = "never", name } = spec
      const isHere = known !== undefined && Option.isSome(yield* Effect.option(content.get(known)))
      if (imagePull === "never" || (imagePull === "if-not-present" && isHere)) return known
      const pulled = yield* Effect.mapError(
        content.pull(image, { policy: imagePull }),
        ({ _tag, message }) => new ImagePullFailed({ name, image, reason: _tag, detail: message })
      )
      return pulled.digest
    }),
    ending: (record) =>
      Effect.gen(function* () {
        const image = yield* Effect.option(content.get(record.image ?? record.spec.image))
        const fromImage = Option.match(image, { onNone: () => "", onSome: ({ config }) => config.stopSignal })
        const wanted = parseSignal(record.ending?.signal ?? record.spec.stopSignal ?? fromImage)
        return {
          signal: Option.getOrElse(wanted, () => "SIGTERM" as const),
          grace: record.ending?.gracePeriod ?? record.spec.stopGracePeriod
        }
      }),
    stop: (record, ending) =>
      Effect.gen(function* () {
        const found = yield* all(record)
        const ends = yield* Effect.forEach(found, (run) => endRun(record, run, ending), { concurrency: "unbounded" })
        yield* forgotten(record.spec.name)
        return Option.flatten(Option.fromUndefinedOr(ends.at(-1)))
      }),
    troubles: (record, run, tell) =>
      Effect.gen(function* () {
        const reasons = new Map<string, string>()
        const about = (what: string) => (why: string) => {
          reasons.set(what, why)
          tell([...reasons.values()].filter((reason) => reason !== "").join("; "))
        }
        const lost = about("output")
        yield* log(record).onLoss((why) => lost(why === "" ? "" : `its output is dropped: ${why}`))
        return yield* Crowding.follow(
          run.system.cgroups,
          run.cgroup,
          record.spec.resources.pids ?? run.system.processLimits.each,
          about("processes")
        )
      }).pipe(Effect.scoped),
    quiet: forgotten(),
    setPaused,
    // of those that are frozen there are few
    isPaused: (container) => Effect.sync(() => [...frozen.values()].includes(container)),
    onPause: (container, tell) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => {
            const those = listeners.get(container) ?? new Set()
            listeners.set(container, those.add(tell))
            if ([...frozen.values()].includes(container)) tell(true)
          }),
          () =>
            Effect.sync(() => {
              const those = listeners.get(container)
              those?.delete(tell)
              if (those?.size === 0) listeners.delete(container)
            })
        )
      ),
    hurry: (container) =>
      Effect.suspend(() => {
        hurried.add(container)
        return Effect.forEach(
          [...known.values()].filter((run) => run.container === container),
          (run) =>
            Effect.andThen(kill(run), frozen.has(run.process) ? Effect.ignore(setPaused(run, false)) : Effect.void),
          { discard: true }
        )
      }),
    currents: Effect.gen(function* () {
      const found = new Map<string, ContainerRun>()
      for (const run of known.values()) if (!(yield* hasEnded(run))) found.set(run.container, run)
      return found
    }),
    current: (container) =>
      Effect.gen(function* () {
        for (const run of [...known.values()].toReversed()) {
          if (run.container === container && !(yield* hasEnded(run))) return Option.some(run)
        }
        return Option.none()
      }),
    erase: (record) =>
      Effect.gen(function* () {
        const { name } = record.spec
        hurried.delete(name)
        yield* log(record).close
        logs.delete(name)
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
