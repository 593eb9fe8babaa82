/**
 * The rescue brain: `node rescue.cjs --host`. taproot starts it on a machine whose ordinary brain ended several times soon
 * after its start. It leaves workloads as they are and touches no state but the machine config; it serves the tree, which says
 * why it is there, the host service, which can stop the machine, and the config service: it may be a config that no brain
 * can live with, and when somebody changes it the ordinary brain is tried at once.
 *
 * After {@link patience} it ends, and taproot tries the ordinary brain again: what was wrong (a full disk, memory that a
 * workload held) may have passed. Where the machine config says so (`upgrade.whenBrainFails`), and in any case where the boot
 * loader still counts the tries of the image, it reboots the machine instead, as seldom as restart policies may: only then does
 * the loader go back to the image before. Another brain can be sent to it, too.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { existsSync } from "node:fs"
import { uptime } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import manifest from "../package.json" with { type: "json" }
import * as Actor from "./actor/Actor.ts"
import * as Root from "./actor/Root.ts"
import * as Supervisor from "./actor/Supervisor.ts"
import { Tree } from "./actor/Tree.ts"
import { end, logger, machine, type Place, run, sayLoudly, startedAt, withTaproot } from "./BrainProcess.ts"
import * as Confirmed from "./config/Confirmed.ts"
import { effective } from "./config/Effective.ts"
import * as MachineConfigs from "./config/MachineConfigs.ts"
import { rescueGateway } from "./gateway/Gateway.ts"
import { Instance } from "./gateway/Instance.ts"
import { BootClock } from "./host/BootClock.ts"
import * as BootAssessment from "./host/BootAssessment.ts"
import * as ConsoleJournal from "./host/ConsoleJournal.ts"
import { within } from "./host/Deadline.ts"
import { Host } from "./host/HostFacts.ts"
import { found, MachineState } from "./host/MachineState.ts"
import * as RebootGuard from "./host/RebootGuard.ts"
import { constant } from "./host/Setting.ts"
import * as StatusPage from "./host/StatusPage.ts"
import * as Network from "./network/Network.ts"
import { Cgroups } from "./host/Cgroups.ts"
import { Containers } from "./runtime/Containers.ts"
import { RuntimeMissing } from "./runtime/ContainerExit.ts"
import { OciRuntime } from "./runtime/OciRuntime.ts"
import * as State from "./storage/State.ts"
import { type BrainEnd, Processes, type ShutdownAction } from "./taproot/Processes.ts"
import { Hypervisor } from "./vmm/Hypervisor.ts"
import { Vms } from "./vmm/Vms.ts"
import { ProcessesLive } from "./taproot/ProcessesLive.ts"
import { describeEnd } from "./upgrade/Lifecycle.ts"
import * as Upgrades from "./upgrade/Upgrades.ts"

/** Between two tries of the ordinary brain. */
const patience = "5 minutes"

const reasonOf = (end: BrainEnd): string =>
  `the ordinary brain could not keep itself up; the last one ${describeEnd(end)}, and the console shows what it said`

const none = new RuntimeMissing({ detail: "this is the rescue brain, which runs no containers" })

/** Nothing is run here. */
const noRuntime = Layer.succeed(
  OciRuntime,
  OciRuntime.of({
    facts: none,
    candidates: Effect.succeed([]),
    run: () => none,
    announce: Effect.void,
    exec: () => none,
    control: () => none,
    recover: () => Effect.succeedNone,
    remove: () => Effect.void,
    list: Effect.succeed([])
  })
)

/** Nor machines. */
const noMachines = Layer.mock(Hypervisor, { facts: Effect.succeed([]), refusals: () => Effect.succeed([]) })

/** The tree's calls ask for them where an actor is a container's or a machine's, and here none is. */
const noWorkloads = Layer.merge(
  Layer.mock(Containers, { isolations: Effect.succeed([]), processes: () => Effect.succeed(new Map()) }),
  Layer.mock(Vms, {})
)

const live = (place: Place) =>
  Effect.gen(function* () {
    const processes = yield* Processes
    const asked = yield* Deferred.make<ShutdownAction>()
    const why = reasonOf(processes.hello.lastBrainEnd)
    const kept = (yield* processes.adoptable).length
    const state = yield* found(place.stateDirectory)
    sayLoudly(`brain: rescue mode: ${why}`)
    const instance = Instance.of({
      version: manifest.version,
      stateDirectory: place.stateDirectory,
      startedAt,
      isMachine: place.machine !== undefined,
      rescue: why,
      stop: (action) => Effect.asVoid(Deferred.succeed(asked, action))
    })
    const parts = effective(yield* Confirmed.load, place.machine)
    const { listen, network: wanted, upgrade } = parts
    const reboots = BootAssessment.rebootReason(upgrade.whenBrainFails, yield* BootAssessment.unproven)
    const rescue = Actor.make(
      "rescue",
      { kind: "rescue", description: "why nothing is run here" },
      Effect.gen(function* () {
        yield* Actor.ready({
          kept: `${kept} processes`,
          "next-try": `in ${patience}`,
          ...Option.match(reboots, { onNone: () => ({}), onSome: (because) => ({ "reboots-first": because }) })
        })
        yield* Actor.degraded(why)
        return yield* Effect.never
      })
    )
    const configs = yield* openConfigs(place, state)
    const ways = yield* rescueGateway({
      config: Option.isSome(configs),
      socketPath: place.socketPath,
      insecure: constant(listen),
      serial: true,
      debug: place.machine?.debug ?? false,
      upgradeKeys: () => upgrade.keys
    })
    const network = yield* Network.make({
      config: constant(wanted),
      hostname: place.machine?.spareHostname,
      stateDirectory: place.stateDirectory
    })
    const tree = Supervisor.make("init", {
      kind: "root",
      description: "the rescue brain",
      children: [rescue, network, ways]
    })
    yield* Effect.gen(function* () {
      const root = yield* Root.start(tree)
      yield* Effect.forkScoped(Effect.provideService(ConsoleJournal.follow(sayLoudly), Tree, root.tree))
      yield* Effect.forkScoped(Effect.provideService(StatusPage.follow(sayLoudly), Tree, root.tree))
      const { handOver } = yield* Upgrades.Upgrades
      const stop = Effect.raceFirst(
        Deferred.await(asked),
        Effect.map(processes.stopRequested, (request) => request.action)
      )
      const changed = Option.match(configs, {
        onNone: () => Effect.never,
        // the first is how it is now; whoever changes it gets his answer before the end
        onSome: ({ changes }) =>
          Stream.runDrain(Stream.take(changes, 2)).pipe(
            Effect.andThen(Effect.sleep("1 second")),
            Effect.as("retry" as const)
          )
      })
      const wish = yield* Effect.timeoutOption(Effect.raceAllFirst([stop, handOver, changed]), patience)
      yield* root.end("release")
      const action = Option.getOrElse(wish, () =>
        Option.match(reboots, {
          onNone: () => "retry" as const,
          onSome: (because) => mayReboot(place, state, `${why}; ${because}`)
        })
      )
      if (action === "retry") return
      if (typeof action === "object") return yield* processes.succeed(action)
      yield* processes.finish(action)
      yield* processes.lost
    }).pipe(
      Effect.provide(
        Layer.mergeAll(
          upgrades(place, state),
          Layer.succeed(MachineState, state ?? MachineState.of({ device: undefined, problem: "it is not mounted" })),
          Layer.succeed(Instance, instance),
          Option.match(configs, {
            // and then nobody is served who would ask
            onNone: () =>
              Layer.mock(MachineConfigs.MachineConfigs, {
                parts: () => parts,
                setting: (part) => constant(parts[part])
              }),
            onSome: (there) => Layer.succeed(MachineConfigs.MachineConfigs, there)
          }),
          Host.layer,
          Cgroups.layer,
          noRuntime,
          noWorkloads,
          noMachines
        )
      ),
      Effect.scoped
    )
  })

/** How long the database of the state may take to open; then the machine config is left alone. */
const openingPatience = "20 seconds"

/** The machine config of the state, where there is one that opens: it may be the state that no brain can live with. */
const openConfigs = ({ machine, stateDirectory }: Place, state: FoundState) => {
  const path = Upgrades.databaseOf(stateDirectory)
  if (state === undefined || !existsSync(path)) return Effect.succeedNone
  const layer = MachineConfigs.layer(machine).pipe(Layer.provide(BootClock.layer), Layer.provide(State.layer({ path })))
  const refused = (problem: string) => Effect.logWarning(`the machine config cannot be served: ${problem}`)
  const opened = Layer.build(layer).pipe(
    Effect.map((context) => Context.get(context, MachineConfigs.MachineConfigs)),
    Effect.tapError(({ message }) => refused(message)),
    Effect.option
  )
  // a disk that hangs must not keep the rescue brain from serving
  return within(opened, {
    duration: openingPatience,
    orElse: () => Effect.andThen(refused(`it does not open within ${openingPatience}`), Effect.succeedNone)
  })
}

type FoundState = Effect.Success<ReturnType<typeof found>>

/** Another brain can be sent where there is something to keep it on. */
const upgrades = ({ stateDirectory }: Place, state: FoundState) =>
  Upgrades.layer({
    stateDirectory,
    database: Upgrades.databaseOf(stateDirectory),
    hands: false,
    end: Effect.sync(() => end(0)),
    ...(state === undefined ? { blocked: "what keeps the state of this machine is not mounted" } : {})
  })

/** Whether the reboot that is wished for may be: not when that has been done too often. */
const mayReboot = ({ stateDirectory }: Place, state: FoundState, reason: string): "restart" | "retry" => {
  const guard = RebootGuard.make({
    file: join(stateDirectory, "reboots.json"),
    lasting: state?.device !== undefined,
    now: Date.now,
    uptime: () => uptime() * 1_000
  })
  const refusal = guard.claim({ path: "init/rescue", reason })
  sayLoudly(`brain: the host ${refusal === undefined ? `reboots: ${reason}` : `is not rebooted: ${refusal}`}`)
  return refusal === undefined ? "restart" : "retry"
}

const main = (): void => {
  const { values } = parseArgs({ options: { host: { type: "boolean" }, version: { type: "boolean" } } })
  if (values.version === true || values.host !== true) {
    return void process.stdout.write(`ironwood ${manifest.version} (the rescue brain; taproot starts it with --host)\n`)
  }
  const place = machine()
  run(place, Effect.provide(withTaproot(Effect.scoped(live(place))), Layer.provideMerge(ProcessesLive, logger)))
}

main()
