/**
 * A small brain for the tests of links: `taproot … -- node brain.ts DIRECTORY`, with the real branch `network` on what
 * `config.json` says, which it follows; it writes the tree to `tree.json` several times a second. It dies when it is killed, and
 * ends in order when taproot asks.
 */
import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import * as Network from "../../src/network/Network.ts"
import { configOf, NetworkDocument } from "../../src/network/NetworkConfig.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { ProcessesLive } from "../../src/taproot/ProcessesLive.ts"

const directory = process.argv[2] ?? "."
const configFile = join(directory, "config.json")
const read = Effect.suspend(() =>
  Effect.map(Schema.decodeEffect(Schema.fromJsonString(NetworkDocument))(readFileSync(configFile, "utf8")), configOf)
)

const write = (name: string, value: unknown): void => {
  writeFileSync(join(directory, `${name}.new`), JSON.stringify(value))
  renameSync(join(directory, `${name}.new`), join(directory, name))
}

const brain = Effect.gen(function* () {
  const processes = yield* Processes
  const stateDirectory = "/var/lib/ironwood"
  mkdirSync(stateDirectory, { recursive: true })
  let seen = statSync(configFile).mtimeMs
  const wanted = yield* SubscriptionRef.make(yield* read)
  const config = {
    current: SubscriptionRef.get(wanted),
    changed: (seen: unknown) =>
      SubscriptionRef.changes(wanted).pipe(
        Stream.filter((one) => one !== seen),
        Stream.take(1),
        Stream.runDrain
      ),
    report: () => Effect.void
  }
  const network = yield* Network.make({ config, hostname: "box", stateDirectory, patience: "6 seconds" })
  const root = yield* Root.start(Supervisor.make("init", { children: [network] }))
  const follow = Effect.gen(function* () {
    const changed = statSync(configFile).mtimeMs
    if (changed !== seen) {
      seen = changed
      yield* SubscriptionRef.set(wanted, yield* read)
    }
    const { nodes } = yield* root.tree.snapshot()
    write("tree.json", {
      pid: process.pid,
      nodes: nodes.map(({ annotations, kind, lastExit, path, state }) => ({
        path,
        kind,
        state,
        annotations,
        lastExit: lastExit?.message ?? ""
      }))
    })
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(follow, Effect.sleep("100 millis"))))
  const { action } = yield* processes.stopRequested
  yield* root.end("stop")
  yield* processes.finish(action)
  yield* processes.lost
}).pipe(Effect.scoped)

await Effect.runPromise(
  Effect.flatMap(Processes, (processes) =>
    Effect.raceFirst(
      brain,
      Effect.flatMap(processes.lost, () => Effect.sync(() => process.exit(1)))
    )
  ).pipe(Effect.provide(ProcessesLive), Effect.provideService(References.MinimumLogLevel, "Warn"))
)
process.exit(0)
