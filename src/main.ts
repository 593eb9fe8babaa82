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
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { availableParallelism } from "node:os"
import { resolve } from "node:path"
import { parseArgs } from "node:util"
import manifest from "../package.json" with { type: "json" }
import * as Root from "./actor/Root.ts"
import { Tree } from "./actor/Tree.ts"
import { exitCodes, logger, machine, type Place, run, say, sayLoudly, startedAt, withTaproot } from "./BrainProcess.ts"
import { Instance } from "./gateway/Instance.ts"
import * as ConsoleJournal from "./host/ConsoleJournal.ts"
import { collectWhenIdle } from "./host/IdleCollection.ts"
import * as MachineState from "./host/MachineState.ts"
import { init, paths, services } from "./Init.ts"
import * as State from "./storage/State.ts"
import { StateCorrupt, StateForeign } from "./storage/StateErrors.ts"
import * as StateJournal from "./storage/StateJournal.ts"
import { Processes, type ShutdownAction } from "./taproot/Processes.ts"
import { ProcessesLive } from "./taproot/ProcessesLive.ts"

/**
 * The limit on restarts of the whole tree. To start a container costs some 100 ms of a processor, nearly all of it the OCI
 * runtime's and the kernel's, so a storm of crashes gets about half of the host in the long run; a host that was quiet
 * restarts at once what a storm leaves room for in some seconds.
 */
const restartRate = { perSecond: 5 * availableParallelism(), burst: 50 * availableParallelism() }

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
        rescue: "",
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
        yield* Effect.forkScoped(Effect.provideService(ConsoleJournal.follow(sayLoudly), Tree, root.tree))
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
  // on a machine it is taproot that mounts what the state is kept on
  const foundation =
    place.machine === undefined
      ? ProcessesLive.pipe(Layer.provideMerge(Layer.merge(state, MachineState.none)))
      : state.pipe(
          Layer.provideMerge(MachineState.layer(place.stateDirectory, place.machine)),
          Layer.provideMerge(ProcessesLive)
        )
  return Effect.provide(withTaproot(live(place)), Layer.provideMerge(foundation, logger))
}

const isUnusable = Schema.is(Schema.Union([StateCorrupt, StateForeign]))

/** With the one code no other brain could do better, and taproot need not try. */
const exitCodeOf = (error: unknown): number => (isUnusable(error) ? exitCodes.unusable : exitCodes.software)

const usage = `usage: node brain.cjs --state-dir DIRECTORY
       node brain.cjs --host

The brain of Ironwood. taproot starts it, with the channel on descriptor 3; people start \`ironwood up\`.`

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
  run(place, brain(place), exitCodeOf)
}

main()
