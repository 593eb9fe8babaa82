/**
 * The rescue brain: `node rescue.cjs --host`. taproot starts it on a machine whose ordinary brain ended several times soon
 * after its start. It leaves workloads as they are and touches no state; it serves the tree, which says why it is there,
 * and the host service, which can stop the machine.
 *
 * After {@link patience} it ends, and taproot tries the ordinary brain again: what was wrong (a full disk, memory that a
 * workload held) may have passed.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { parseArgs } from "node:util"
import manifest from "../package.json" with { type: "json" }
import * as Actor from "./actor/Actor.ts"
import * as Root from "./actor/Root.ts"
import * as Supervisor from "./actor/Supervisor.ts"
import { Tree } from "./actor/Tree.ts"
import { logger, machine, type Place, run, sayLoudly, startedAt, withTaproot } from "./BrainProcess.ts"
import * as Confirmed from "./config/Confirmed.ts"
import { effective } from "./config/Effective.ts"
import { rescueGateway } from "./gateway/Gateway.ts"
import { Instance } from "./gateway/Instance.ts"
import * as ConsoleJournal from "./host/ConsoleJournal.ts"
import { Host } from "./host/HostFacts.ts"
import { constant } from "./host/Setting.ts"
import * as Network from "./network/Network.ts"
import { Cgroups } from "./runtime/Cgroups.ts"
import { Containers } from "./runtime/Containers.ts"
import { RuntimeMissing } from "./runtime/ContainerExit.ts"
import { OciRuntime } from "./runtime/OciRuntime.ts"
import { type BrainEnd, Processes, type ShutdownAction } from "./taproot/Processes.ts"
import { ProcessesLive } from "./taproot/ProcessesLive.ts"

/** Between two tries of the ordinary brain. */
const patience = "5 minutes"

const endings: Readonly<Record<BrainEnd["how"], string>> = {
  none: "has not run",
  exited: "ended with exit code",
  signaled: "was killed by signal",
  "missed-heartbeat": "hung and was killed by signal",
  "protocol-fault": "broke the protocol and was killed by signal",
  "never-said-hello": "never said hello and was killed by signal",
  late: "did not say in time that it works and was killed by signal"
}

const reasonOf = ({ how, value }: BrainEnd): string =>
  `the ordinary brain could not keep itself up; the last one ${endings[how]} ${value}, and the console shows what it said`

const none = new RuntimeMissing({ detail: "this is the rescue brain, which runs no containers" })

/** Nothing is run here. */
const noRuntime = Layer.succeed(
  OciRuntime,
  OciRuntime.of({
    facts: none,
    candidates: Effect.succeed([]),
    run: () => none,
    recover: () => Effect.succeedNone,
    remove: () => Effect.void,
    list: Effect.succeed([])
  })
)

/** The tree's calls ask for it where an actor is a container's, and here none is. */
const noContainers = Layer.mock(Containers, {})

const live = (place: Place) =>
  Effect.gen(function* () {
    const processes = yield* Processes
    const asked = yield* Deferred.make<ShutdownAction>()
    const why = reasonOf(processes.hello.lastBrainEnd)
    const kept = (yield* processes.adoptable).length
    sayLoudly(`brain: rescue mode: ${why}`)
    const instance = Instance.of({
      version: manifest.version,
      stateDirectory: place.stateDirectory,
      startedAt,
      isMachine: place.machine !== undefined,
      rescue: why,
      stop: (action) => Effect.asVoid(Deferred.succeed(asked, action))
    })
    const rescue = Actor.make(
      "rescue",
      { kind: "rescue", description: "why nothing is run here" },
      Effect.gen(function* () {
        yield* Actor.ready({ kept: `${kept} processes`, "next-try": `in ${patience}` })
        yield* Actor.degraded(why)
        return yield* Effect.never
      })
    )
    const { listen, network: wanted } = effective(yield* Confirmed.load, place.machine)
    const ways = yield* rescueGateway({
      socketPath: place.socketPath,
      insecure: constant(listen),
      serial: true,
      debug: place.machine?.debug ?? false
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
      const stop = Effect.raceFirst(
        Deferred.await(asked),
        Effect.map(processes.stopRequested, (request) => request.action)
      )
      const action = yield* Effect.timeoutOption(stop, patience)
      yield* root.end("release")
      if (action._tag === "None") return
      yield* processes.finish(action.value)
      yield* processes.lost
    }).pipe(
      Effect.provide(
        Layer.mergeAll(Layer.succeed(Instance, instance), Host.layer, Cgroups.layer, noRuntime, noContainers)
      ),
      Effect.scoped
    )
  })

const main = (): void => {
  const { values } = parseArgs({ options: { host: { type: "boolean" }, version: { type: "boolean" } } })
  if (values.version === true || values.host !== true) {
    return void process.stdout.write(`ironwood ${manifest.version} (the rescue brain; taproot starts it with --host)\n`)
  }
  const place = machine()
  run(place, Effect.provide(withTaproot(live(place)), Layer.provideMerge(ProcessesLive, logger)))
}

main()
