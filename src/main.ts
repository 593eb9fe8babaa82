/**
 * The brain: `node brain.cjs --state-dir DIRECTORY`, or on a machine that boots into Ironwood `node brain.cjs --host`,
 * started by taproot with the channel on descriptor 3.
 *
 * Order of a start: the database (a brain that cannot read its state must say so and die before it says HELLO: nothing
 * it could do would be right), then HELLO to taproot, then the services, then the tree, which adopts what it finds.
 *
 * Order of an end: the tree stops in reverse order, then taproot is told, which ends what is left and then the brain.
 * Everything else that ends a brain is a crash and a *release*: nothing is stopped, taproot starts the next one.
 *
 * Traps: this is not a program that a person starts (`ironwood up` does); it dies without taproot. It never listens to
 * SIGINT and SIGTERM: taproot gets those and asks.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import { mkdirSync, readFileSync, writeSync } from "node:fs"
import { availableParallelism } from "node:os"
import { dirname, resolve } from "node:path"
import { parseArgs } from "node:util"
import manifest from "../package.json" with { type: "json" }
import * as Root from "./actor/Root.ts"
import { Tree } from "./actor/Tree.ts"
import { Instance } from "./gateway/Instance.ts"
import { collectWhenIdle } from "./host/IdleCollection.ts"
import * as ConsoleJournal from "./host/ConsoleJournal.ts"
import * as KernelParameters from "./host/KernelParameters.ts"
import * as MachineState from "./host/MachineState.ts"
import { init, paths, type Place, services } from "./Init.ts"
import * as SlicedScheduler from "./SlicedScheduler.ts"
import * as State from "./storage/State.ts"
import { StateCorrupt, StateForeign } from "./storage/StateErrors.ts"
import * as StateJournal from "./storage/StateJournal.ts"
import { Processes, type ShutdownAction } from "./taproot/Processes.ts"
import { ProcessesLive } from "./taproot/ProcessesLive.ts"

const startedAt = Date.now()

/** sysexits(3): what taproot and a person see of a brain that ends by itself. With 78 no other could do better. */
const exitCodes = { usage: 64, software: 70, channelLost: 76, unusable: 78 } as const

/**
 * The limit on restarts of the whole tree. To start a container costs some 30 ms of one processor, so a storm of crashes
 * gets about half of the host in the long run; a host that is quiet restarts all it has at once.
 */
const restartRate = { perSecond: 15 * availableParallelism(), burst: 100 * availableParallelism() }

/** Standard error is a file or the console; writes must be done before an exit. */
const say = (text: string): void => {
  try {
    writeSync(2, `${text}\n`)
  } catch {
    // nobody can be told
  }
}

const end = (code: number, why?: string): never => {
  if (why !== undefined) say(`brain: ${why}`)
  process.exit(code)
}

/** Runs the tree until somebody asks for its end, or it fails. */
const live = (place: Place) =>
  Effect.gen(function* () {
    const processes = yield* Processes
    const asked = yield* Deferred.make<ShutdownAction>()
    const instance = Layer.succeed(
      Instance,
      Instance.of({
        version: manifest.version,
        stateDirectory: place.stateDirectory,
        startedAt,
        isMachine: place.machine !== undefined,
        stop: (action) => Effect.asVoid(Deferred.succeed(asked, action))
      })
    )
    yield* Effect.logInfo("a brain starts").pipe(
      Effect.annotateLogs({
        pid: process.pid,
        taproot: processes.hello.taprootPid,
        start: processes.hello.brainStarts,
        previous: processes.hello.lastBrainEnd.how
      })
    )
    const action = Effect.raceFirst(
      Deferred.await(asked),
      Effect.map(processes.stopRequested, (request) => request.action)
    )
    yield* Effect.gen(function* () {
      yield* Effect.forkScoped(collectWhenIdle)
      const rebootHost = ({ path, reason }: Root.RebootWish) => {
        say(`brain: ${path} wants the host to reboot: ${reason}`)
        Deferred.doneUnsafe(asked, Exit.succeed("restart"))
      }
      const root = yield* Root.start(yield* init(place), {
        restartRate,
        // Elsewhere the host is not ours.
        rebootHost: place.machine === undefined ? undefined : rebootHost
      })
      if (place.machine !== undefined) {
        yield* Effect.forkScoped(
          Effect.provideService(
            ConsoleJournal.follow((line) => say(`ironwood: ${line}`)),
            Tree,
            root.tree
          )
        )
      }
      yield* Effect.logInfo("the tree is up").pipe(Effect.annotateLogs({ milliseconds: Date.now() - startedAt }))
      const how = yield* Effect.raceFirst(action, Effect.andThen(root.await, Effect.die("the root actor ended")))
      yield* Effect.logInfo("stopping everything in order")
      yield* root.end("stop")
      yield* Effect.logInfo("everything has stopped")
      yield* processes.finish(how)
    }).pipe(Effect.provide(Layer.provideMerge(services(place.stateDirectory), instance)), Effect.scoped)
    // taproot ends us now, by closing the channel or by a signal
    yield* processes.lost
  })

const brain = (place: Place) => {
  const state = StateJournal.layer().pipe(
    Layer.provideMerge(State.layer({ path: paths(place.stateDirectory).database }))
  )
  const watched = Effect.gen(function* () {
    const processes = yield* Processes
    yield* Effect.raceFirst(
      live(place),
      // without taproot nothing can go on, and nothing can be cleaned up: no finalizer may hold this up
      Effect.flatMap(processes.lost, (lost) => Effect.sync(() => end(exitCodes.channelLost, lost.message)))
    )
  })
  // on a machine it is taproot that mounts what the state is kept on
  const foundation =
    place.machine === undefined
      ? ProcessesLive.pipe(Layer.provideMerge(state))
      : state.pipe(
          Layer.provide(Layer.effectDiscard(MachineState.prepare(place.stateDirectory))),
          Layer.provideMerge(ProcessesLive)
        )
  return Effect.provide(
    watched,
    Layer.provideMerge(foundation, Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]))
  )
}

const isUnusable = Schema.is(Schema.Union([StateCorrupt, StateForeign]))

/** The sentence of a failure; the whole cause of a defect. */
const explain = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return Cause.hasDies(cause) || !Schema.is(Schema.Struct({ message: Schema.String }))(error)
    ? Cause.pretty(cause)
    : error.message
}

const usage = `usage: node brain.cjs --state-dir DIRECTORY
       node brain.cjs --host

The brain of Ironwood. taproot starts it, with the channel on descriptor 3; people start \`ironwood up\`.`

/** Of a machine that boots into Ironwood. */
const machine = (): Place => {
  const parameters = KernelParameters.parse(readFileSync("/proc/cmdline", "utf8"))
  for (const problem of parameters.problems) say(`brain: kernel command line: ${problem}`)
  return { stateDirectory: "/var/lib/ironwood", socketPath: "/run/ironwood/ironwood.sock", machine: parameters }
}

/** Of an Ironwood that is a process like others. */
const ofDirectory = (directory: string): Place => {
  const stateDirectory = resolve(directory)
  return { stateDirectory, socketPath: paths(stateDirectory).socket }
}

const main = (): void => {
  const { values } = parseArgs({
    options: {
      "state-dir": { type: "string" },
      host: { type: "boolean" },
      version: { type: "boolean" },
      help: { type: "boolean" }
    }
  })
  if (values.version === true) return void process.stdout.write(`ironwood ${manifest.version}\n`)
  const directory = values["state-dir"]
  const place = values.host === true ? machine() : directory === undefined ? undefined : ofDirectory(directory)
  if (values.help === true || place === undefined) {
    return void process.stdout.write(`${usage}\n`)
  }
  for (const needed of [place.stateDirectory, dirname(place.socketPath)]) {
    mkdirSync(needed, { recursive: true, mode: 0o700 })
  }

  // let it crash: a fault that nobody caught leaves this brain in an unknown state, and the next one adopts everything
  process.on("uncaughtException", (error) => end(exitCodes.software, `uncaught: ${error.stack ?? error.message}`))
  process.on("unhandledRejection", (reason) => end(exitCodes.software, `unhandled rejection: ${String(reason)}`))

  const fiber = Effect.runFork(brain(place), { scheduler: SlicedScheduler.make() })
  fiber.addObserver((exit) => {
    if (exit._tag === "Success") return end(0)
    const code = isUnusable(Cause.squash(exit.cause)) ? exitCodes.unusable : exitCodes.software
    return end(code, explain(exit.cause))
  })
}

main()
