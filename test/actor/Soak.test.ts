/**
 * Very many restarts under random kills, in real time: afterwards the heap is as it was, and no fiber, timer, watcher, bond or
 * map entry is left. `IRONWOOD_SOAK=1 scripts/check test/actor/Soak.test.ts` makes three million of them, and every run
 * tells its seed.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Stream from "effect/Stream"
import * as Actor from "../../src/actor/Actor.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as Journal from "../../src/actor/Journal.ts"
import * as Monitor from "../../src/actor/Monitor.ts"
import * as Registry from "../../src/actor/Registry.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { nothingHeld } from "./Held.ts"
import { Crash } from "./Probe.ts"
import { SeededRandom } from "./simulation/SeededRandom.ts"

const long = process.env["IRONWOOD_SOAK"] !== undefined
const restarts = long ? 3_000_000 : 100_000
const seed = Number(process.env["IRONWOOD_SEED"] ?? 1)

setFlagsFromString("--expose-gc")
const collect: unknown = runInNewContext("gc")

/** Bytes in use, after everything that can go has gone. */
const heap = (): number => {
  for (let round = 0; round < 3; round++) if (typeof collect === "function") collect()
  return process.memoryUsage().heapUsed
}

const counting = () => {
  let fibers = 0
  const service: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => void fibers++,
    recordFiberEnd: () => void fibers--
  }
  return { service, count: () => fibers }
}

/** Lets everything else of this process have its turn. */
const giveWay = Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** Children of every make, and how to crash those that run. */
class Herd {
  begun = 0
  /** Scopes of lives that are open. */
  scopes = 0
  readonly #crashes = new Map<string, () => void>()

  make(index: number): Actor.ChildSpec<Crash | Registry.NameTaken, never> {
    const id = `child-${index}`
    const extras = [
      Effect.void,
      Effect.andThen(
        Effect.acquireRelease(Effect.void, () => Effect.void),
        Effect.forkScoped(Effect.never)
      ),
      Registry.register(`name-${index}`),
      Monitor.make(`init/herd/child-${index - 1}`),
      Actor.onStop(Effect.void)
    ] as const
    const run = Effect.gen({ self: this }, function* () {
      this.begun++
      this.scopes++
      yield* Effect.addFinalizer(() => Effect.sync(() => void this.scopes--))
      yield* extras[index % extras.length] ?? Effect.void
      yield* Actor.ready({ life: "" })
      return yield* Effect.callback<never, Crash>((resume) => {
        this.#crashes.set(id, () => resume(Effect.fail(new Crash({ text: "killed" }))))
      })
    })
    const patient = RestartPolicy.make({
      backoff: { initial: 1, max: 3 },
      budget: { restarts: 50, within: "1 second" }
    })
    return Actor.make(id, { policy: index % 3 === 0 ? patient : RestartPolicy.permanent }, run)
  }

  /** Crashes some of those that run. */
  crash(random: SeededRandom, some: number): void {
    const ids = [...this.#crashes.keys()]
    for (let count = 0; count < some; count++) {
      const id = random.pick(ids)
      const crash = this.#crashes.get(id)
      this.#crashes.delete(id)
      crash?.()
    }
  }

  get running(): number {
    return this.#crashes.size
  }
}

describe("a soak", () => {
  it.live(
    `${restarts} restarts under random kills leave nothing behind (seed ${seed})`,
    () => {
      const counter = counting()
      return Effect.scoped(
        Effect.gen(function* () {
          const random = new SeededRandom(seed, "soak")
          const herd = new Herd()
          const size = 500
          const specs = Array.from({ length: size }, (_, index) => herd.make(index))
          const supervisor = yield* DynamicSupervisor.make("herd", { children: Effect.succeed(specs) })
          const before = counter.count()
          const root = yield* Root.start(Supervisor.make("init", { children: [supervisor.spec] }))
          let events = 0
          const watching = Stream.runForEach(root.tree.watch(), () => Effect.sync(() => void events++))
          yield* Effect.forkScoped(watching)

          const settle = Effect.gen(function* () {
            for (let quiet = 0; quiet < 3; quiet++) {
              while (herd.running < size) yield* Effect.sleep(1)
              yield* giveWay
            }
          })
          const soak = (until: number) =>
            Effect.gen(function* () {
              while (herd.begun < until) {
                // All of them now and then, mostly a few.
                herd.crash(random, random.chance(0.02) ? size / 2 : random.between(1, 60))
                yield* giveWay
                if (herd.running < size / 2) yield* Effect.sleep(1)
              }
              yield* settle
            })

          yield* soak(restarts / 3)
          const first = { heap: heap(), fibers: counter.count(), resources: yield* root.resources }
          // A name is held by every fifth, with an entry for the name and one for the holder.
          const names = (2 * size) / 5
          const held = { ...nothingHeld, actors: size + 2, watchers: 1, names, bonds: first.resources.bonds }
          assert.deepStrictEqual(first.resources, held)
          assert.strictEqual(herd.scopes, size)
          yield* soak(restarts)
          const last = { heap: heap(), fibers: counter.count(), resources: yield* root.resources }
          assert.strictEqual(last.fibers, first.fibers, "fibers are left")
          assert.deepStrictEqual(last.resources, first.resources)
          assert.strictEqual(herd.scopes, size)
          assert.isBelow(last.heap - first.heap, 2_000_000, "the heap has grown")
          assert.isAbove(events, restarts / 10)

          yield* root.end("stop")
          yield* giveWay
          const { actors: _, ...left } = yield* root.resources
          assert.deepStrictEqual(left, nothingHeld)
          assert.strictEqual(herd.scopes, 0, "scopes are open at the end")
          // That which reads the watch has ended with it.
          assert.strictEqual(counter.count(), before, "fibers are left at the end")
        })
      ).pipe(
        // Written behind, and dropped: what waits to be written is what could grow.
        Effect.provideService(Journal.Journal, { ...Journal.forgetful }),
        Effect.provideService(Metric.FiberRuntimeMetrics, counter.service)
      )
    },
    { timeout: long ? 1_800_000 : 120_000 }
  )
})
