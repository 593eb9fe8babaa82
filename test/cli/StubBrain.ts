/**
 * A brain that runs nothing: greets taproot, answers on `ironwood.sock` who it is and what its one actor does, and stops when
 * asked. With it `ironwood up` is tested against the real taproot without a container runtime.
 *
 * Run by taproot as `node StubBrain.ts --state-dir DIRECTORY`. STUB_BRAIN=fails: dies with a message before it says hello;
 * STUB_BRAIN=slow: stops only when there is a file `enough` in the state directory.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { existsSync, rmSync } from "node:fs"
import { HostService } from "../../proto/generated/ironwood/v1/host_pb.ts"
import { ActorState, TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { ProcessesLive } from "../../src/taproot/ProcessesLive.ts"
import { serveAt, streaming, unary } from "./FakeServer.ts"

const behaviour = process.env["STUB_BRAIN"] ?? ""
const stateDirectory = process.argv.at(-1) ?? "."

if (behaviour === "fails") {
  process.stderr.write("brain: the state is from another planet\n")
  process.exit(70)
}

const actors = [
  { path: "init", kind: "root", state: ActorState.RUNNING, revision: 1n },
  { path: "init/stub", kind: "stub", state: ActorState.RUNNING, revision: 2n }
]

const brain = Effect.gen(function* () {
  const processes = yield* Processes
  const asked = yield* Deferred.make<void>()
  // of a brain that was killed
  rmSync(`${stateDirectory}/ironwood.sock`, { force: true })
  yield* serveAt(`${stateDirectory}/ironwood.sock`, [
    unary(HostService.method.getVersion, () => ({
      version: "0.0.0",
      taprootPid: processes.hello.taprootPid,
      brainPid: process.pid,
      stateDirectory
    })),
    unary(HostService.method.stopHost, () => {
      Deferred.doneUnsafe(asked, Effect.void)
      return {}
    }),
    unary(TreeService.method.getTree, () => ({ revision: 2n, actors })),
    streaming(TreeService.method.watchTree, (_, sink) =>
      sink.send({ event: { case: "snapshot", value: { revision: 2n, actors, first: true, last: true } } })
    )
  ])
  yield* Effect.raceFirst(Deferred.await(asked), processes.stopRequested)
  if (behaviour === "slow") {
    while (!existsSync(`${stateDirectory}/enough`)) yield* Effect.sleep("20 millis")
  }
  yield* processes.finish("end")
}).pipe(Effect.scoped, Effect.andThen(Effect.flatMap(Processes, (processes) => processes.lost)))

Effect.runFork(Effect.provide(brain, ProcessesLive)).addObserver(() => process.exit(0))
