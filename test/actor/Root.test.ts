/** The root actor: its two endings, what it does when it fails, what it holds when it is done. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Actor from "../../src/actor/Actor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Tree } from "../../src/actor/Tree.ts"
import { Probes } from "./Probe.ts"

describe("Root.run", () => {
  for (const ending of ["stop", "release"] as const) {
    it.effect(`ends as it is told: ${ending}`, () =>
      Effect.gen(function* () {
        const probes = new Probes()
        const told = yield* Deferred.make<Root.Ending>()
        const spec = Supervisor.make("init", { children: [probes.make("a"), probes.make("b")] })
        const running = yield* Effect.forkScoped(Root.run(spec, { ending: Deferred.await(told) }))
        yield* Effect.yieldNow
        probes.take()
        yield* Deferred.succeed(told, ending)
        yield* Fiber.join(running)
        const stop = ["hook b", "close b", "hook a", "close a"]
        assert.deepStrictEqual(probes.take(), ending === "stop" ? stop : ["close b", "close a"])
      })
    )
  }

  it.effect("an interruption is a release, and waits for it", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const running = yield* Effect.forkScoped(Root.run(Supervisor.make("init", { children: [probes.make("a")] })))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(probes.take(), ["start a", "close a"])
    })
  )

  it.effect("fails when the root gives up", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const child = probes.make("a", { policy: RestartPolicy.permanent })
      const running = yield* Effect.forkScoped(Root.run(Supervisor.make("init", { intensity: 0, children: [child] })))
      yield* Effect.yieldNow
      yield* probes.crash("a")
      const failed = yield* Effect.flip(Fiber.join(running))
      assert(failed._tag === "RootFailed")
      assert.deepInclude(failed.exit, { tag: "RestartIntensityReached", class: "failure" })
    })
  )

  it.effect("a worker may be the root; actors find the tree they are part of", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const only = Actor.make(
        "only",
        {},
        Effect.gen(function* () {
          const tree = yield* Tree
          yield* Actor.ready()
          const { nodes } = yield* tree.snapshot()
          seen.push(...nodes.map((node) => `${node.path} ${node.state}`))
        })
      )
      yield* Root.run(only)
      assert.deepStrictEqual(seen, ["only running"])
    })
  )
})
