/**
 * The brain: `node brain.cjs --state-dir DIRECTORY`, or on a machine that boots into Ironwood `node brain.cjs --host`,
 * started by taproot with the channel on descriptor 3.
 *
 * Order of a start: whether this brain is the one that is to run (`Upgrades.ts`; where no other was ever installed there is
 * nothing to ask), the database (a brain that cannot read its state must say so and die before it says HELLO: nothing
 * it could do would be right), then HELLO to taproot, then the services, then the tree, which adopts what it finds.
 *
 * Order of an end for another brain: the tree is released, taproot is asked for the other, and this one ends.
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
import { resolve } from "node:path"
import { parseArgs } from "node:util"
import manifest from "../package.json" with { type: "json" }
import * as Root from "./actor/Root.ts"
import { Tree } from "./actor/Tree.ts"
import { end, exitCodes, logger, machine, type Place, run, sayLoudly, startedAt, withTaproot } from "./BrainProcess.ts"
import { stateDisk } from "./config/Effective.ts"
import { empty } from "./config/MachineConfig.ts"
import * as MachineConfigs from "./config/MachineConfigs.ts"
import * as Sources from "./config/Sources.ts"
import { Instance } from "./gateway/Instance.ts"
import { BootClock } from "./host/BootClock.ts"
import * as ConsoleJournal from "./host/ConsoleJournal.ts"
import { loadAtStart } from "./host/DeviceModules.ts"
import { collectWhenIdle } from "./IdleCollection.ts"
import type { KernelParameters } from "./host/KernelParameters.ts"
import * as MachineState from "./host/MachineState.ts"
import * as RebootGuard from "./host/RebootGuard.ts"
import * as StatusPage from "./host/StatusPage.ts"
import { init, paths, services } from "./Init.ts"
import * as State from "./storage/State.ts"
import { StateCorrupt, StateForeign } from "./storage/StateErrors.ts"
import * as StateJournal from "./storage/StateJournal.ts"
import { Processes, type ShutdownAction } from "./taproot/Processes.ts"
import { ProcessesLive } from "./taproot/ProcessesLive.ts"
import { directoryOf } from "./upgrade/Brains.ts"
import * as Record from "./upgrade/Record.ts"
import * as Upgrades from "./upgrade/Upgrades.ts"

/** Runs the tree until somebody asks for its end, or it fails. */
const live = (place: Place) =>
  Effect.gen(function* () {
    const processes = yield* Processes
    const upgrades = yield* Upgrades.Upgrades
    const asked = yield* Deferred.make<ShutdownAction>()
    const instance = Layer.succeed(
      Instance,
      Instance.of({
        version: manifest.version,
        stateDirectory: place.stateDirectory,
        startedAt,
        isMachine: place.machine !== undefined,
        rescue: "",
        stop: processes.requestStop
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
    const handsOver = yield* Effect.gen(function* () {
      yield* Effect.forkScoped(collectWhenIdle)
      const { claim } = yield* RebootGuard.RebootGuard
      const rebootHost: Root.HostReboot = {
        claim: (wish) => {
          const refusal = claim(wish)
          if (refusal !== undefined) sayLoudly(`brain: ${wish.path} wants the host to reboot, but ${refusal}`)
          return refusal
        },
        reboot: ({ path, reason }) => {
          sayLoudly(`brain: the host reboots for ${path}: ${reason}`)
          Deferred.doneUnsafe(asked, Exit.succeed("restart"))
        }
      }
      const configs = yield* MachineConfigs.MachineConfigs
      const root = yield* Root.start(yield* init(place), {
        // looked at whenever it is needed, so a change holds at once
        restartRate: {
          get perSecond() {
            return configs.parts().restarts.perSecond
          },
          get burst() {
            return configs.parts().restarts.burst
          }
        },
        // Elsewhere the host is not ours.
        rebootHost: place.machine === undefined ? undefined : rebootHost
      })
      if (place.machine !== undefined) {
        yield* Effect.forkScoped(Effect.provideService(ConsoleJournal.follow(sayLoudly), Tree, root.tree))
        yield* Effect.forkScoped(Effect.provideService(StatusPage.follow(sayLoudly), Tree, root.tree))
      }
      yield* Effect.logInfo("the tree is up").pipe(
        Effect.annotateLogs({ milliseconds: Math.round(process.uptime() * 1000) })
      )
      const how = yield* Effect.raceFirst(
        Effect.raceFirst(action, upgrades.handOver),
        Effect.andThen(root.await, Effect.die("the root actor ended"))
      )
      if (typeof how === "object") {
        yield* Effect.logInfo("another brain takes over")
        yield* root.end("release")
        yield* processes.succeed(how)
        return true
      }
      yield* Effect.logInfo("stopping everything in order")
      yield* root.end("stop")
      yield* Effect.logInfo("everything has stopped")
      yield* processes.finish(how)
      return false
    }).pipe(Effect.provide(Layer.provideMerge(services(place.stateDirectory), instance)), Effect.scoped)
    // otherwise taproot ends us now, by closing the channel or by a signal
    if (!handsOver) yield* processes.lost
  })

/** What keeps the state, as the machine config or the kernel command line says. */
const machineState = (directory: string, kernel: KernelParameters) =>
  Layer.unwrap(
    Effect.map(Sources.AtStart, (found) =>
      MachineState.layer(directory, stateDisk(found._tag === "Document" ? found.document.config : empty, kernel))
    )
  )

const brain = (place: Place) => {
  const state = StateJournal.layer().pipe(
    Layer.provideMerge(State.layer({ path: paths(place.stateDirectory).database }))
  )
  const upgrades = Upgrades.layer({
    stateDirectory: place.stateDirectory,
    database: paths(place.stateDirectory).database,
    hands: true,
    end: Effect.sync(() => end(0))
  })
  const elsewhere = Layer.mergeAll(MachineState.none, Sources.none, RebootGuard.none)
  // on a machine it is taproot that mounts what the state is kept on, and the machine config may say which disk that is
  const foundation =
    place.machine === undefined
      ? Record.exists(directoryOf(place.stateDirectory))
        ? state.pipe(Layer.provideMerge(upgrades), Layer.provideMerge(ProcessesLive), Layer.provideMerge(elsewhere))
        : upgrades.pipe(Layer.provideMerge(ProcessesLive), Layer.provideMerge(Layer.merge(state, elsewhere)))
      : Layer.merge(state, RebootGuard.layer(place.stateDirectory)).pipe(
          Layer.provideMerge(upgrades),
          Layer.provideMerge(machineState(place.stateDirectory, place.machine)),
          Layer.provideMerge(Sources.layer(place.machine)),
          Layer.provideMerge(Layer.effectDiscard(loadAtStart)),
          Layer.provideMerge(ProcessesLive)
        )
  const configs = MachineConfigs.layer(place.machine).pipe(Layer.provide(BootClock.layer))
  return Effect.provide(
    withTaproot(live(place)),
    configs.pipe(Layer.provideMerge(foundation), Layer.provideMerge(logger))
  )
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
