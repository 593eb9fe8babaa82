/**
 * What the small brains of tests are made of (`test/runtime/brain.ts`, `test/vmm/brain.ts`): one answers requests on
 * `STATE/brain.sock`, one line of JSON per request, one per answer. It dies when it is killed, and ends in order when taproot asks.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { rmSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { Root } from "../../src/actor/Root.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { ProcessesLive } from "../../src/taproot/ProcessesLive.ts"

/** Answers requests until taproot asks for the end, and then ends the tree. */
export const serve = Effect.fnUntraced(function* <R>(
  state: string,
  root: Root,
  answer: (line: string) => Effect.Effect<unknown, unknown, R>
) {
  const processes = yield* Processes
  const context = yield* Effect.context<R>()
  const path = join(state, "brain.sock")
  rmSync(path, { force: true })
  const server = createServer((socket) => {
    socket.on("error", () => undefined)
    createInterface({ input: socket }).on("line", (line) => {
      const done = Effect.match(answer(line), {
        onSuccess: (value) => ({ value }),
        onFailure: (error) => ({ error: String(error) })
      })
      void Effect.runPromiseWith(context)(done).then((result) => socket.write(`${JSON.stringify(result)}\n`))
    })
  })
  const listening = yield* Deferred.make<void>()
  server.listen(path, () => Deferred.doneUnsafe(listening, Effect.void))
  yield* Deferred.await(listening)
  const { action } = yield* processes.stopRequested
  yield* root.end("stop")
  yield* processes.finish(action)
  yield* processes.lost
})

/** Runs a brain in the state directory that the command line names; `watched` is between it and taproot. */
export const run = async <E>(
  main: (state: string) => Effect.Effect<void, E, Processes | Scope.Scope>,
  watched: (processes: Processes["Service"]) => Processes["Service"]
): Promise<never> => {
  const state = process.argv[2]
  if (state === undefined) throw new Error("usage: brain.ts STATE")
  const live = Effect.flatMap(Processes, (processes) =>
    Effect.raceFirst(
      Effect.provideService(Effect.scoped(main(state)), Processes, watched(processes)),
      Effect.flatMap(processes.lost, () => Effect.sync(() => process.exit(1)))
    )
  )
  await Effect.runPromise(Effect.provide(live, ProcessesLive))
  process.exit(0)
}
