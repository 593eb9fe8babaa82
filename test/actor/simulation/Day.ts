/**
 * A day of a simulated host: what happens to it and when, drawn from the seed; one brain after another on one journal.
 */
import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import * as Actor from "../../../src/actor/Actor.ts"
import * as Journal from "../../../src/actor/Journal.ts"
import * as Root from "../../../src/actor/Root.ts"
import { Tree } from "../../../src/actor/Tree.ts"
import { sorted } from "../Fold.ts"
import { Auditor } from "./Auditor.ts"
import { Host } from "./Host.ts"
import { nothingHeld } from "../Held.ts"
import { Person } from "./Person.ts"
import { SeededRandom } from "./SeededRandom.ts"
import { World } from "./World.ts"

const minute = 60_000
const hour = 60 * minute
const restartRate: Root.RestartRate = { perSecond: 100, burst: 200 }

export class Day {
  readonly world: World
  readonly host: Host
  readonly auditor: Auditor
  readonly person: Person
  readonly random: SeededRandom
  brains = 0
  readonly #journal: Journal.JournalService
  #running:
    | { readonly root: Root.Root; readonly scope: Scope.Closeable; readonly ended: Fiber.Fiber<unknown, unknown> }
    | undefined

  constructor(seed: number, sandboxes: number, journal: Journal.JournalService) {
    this.world = new World(seed)
    this.host = new Host(this.world, sandboxes)
    this.auditor = new Auditor(this.world, this.host, restartRate)
    this.random = new SeededRandom(seed, "day")
    this.person = new Person(this.host, this.auditor, this.random)
    this.#journal = journal
  }

  /** The auditor hears of the tree before anything else starts. */
  readonly #audit = (scope: Scope.Scope) =>
    Actor.make(
      "audit",
      {},
      Effect.gen({ self: this }, function* () {
        const tree = yield* Tree
        const hearing = Stream.runForEach(tree.watch(), (event) => Effect.sync(() => this.auditor.hear(event)))
        yield* Effect.forkIn(hearing, scope)
        yield* Actor.ready()
        return yield* Effect.never
      })
    )

  readonly boot: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    this.brains++
    const scope = Scope.makeUnsafe()
    this.auditor.anotherBrain((path) => {
      const wanted = this.host.find(path)
      return (wanted?.wish ?? wanted?.sandbox)?.stopped === true
    })
    const spec = yield* this.host.spec(this.#audit(scope))
    const starting = yield* Root.start(spec, { restartRate }).pipe(
      Effect.provideService(Journal.Journal, this.#journal),
      Effect.provideService(Scope.Scope, scope),
      Effect.exit,
      Effect.forkIn(scope)
    )
    // Its own parts start one after another, in their own time.
    yield* TestClock.adjust(10_000)
    const exit = yield* Fiber.join(starting)
    if (Exit.isFailure(exit)) return yield* Effect.flatMap(this.#ended(scope), () => this.boot)
    const root = exit.value
    this.#running = { root, scope, ended: yield* Effect.forkIn(Effect.exit(root.await), scope) }
  })

  readonly #ended = (scope: Scope.Closeable): Effect.Effect<void> =>
    Effect.gen({ self: this }, function* () {
      yield* Effect.forkDetach(Scope.close(scope, Exit.void))
      yield* TestClock.adjust(10_000)
      for (const path of this.world.live.keys()) this.world.violation(`${path} outlives the brain`)
    })

  readonly shutDown = Effect.gen({ self: this }, function* () {
    const running = this.#running
    if (running === undefined) return
    this.#running = undefined
    yield* Effect.forkDetach(running.root.end("release"))
    yield* TestClock.adjust(10_000)
    const { actors: _, ...left } = yield* running.root.resources
    assert.deepStrictEqual(left, nothingHeld)
    yield* this.#ended(running.scope)
  })

  /** Starts another brain when this one gave up. */
  readonly tend = Effect.gen({ self: this }, function* () {
    if (this.#running?.ended.pollUnsafe() !== undefined) {
      yield* this.shutDown
      yield* this.boot
    }
  })

  readonly tree = Effect.suspend(() => {
    const running = this.#running
    return running === undefined ? Effect.die(new Error("no brain runs")) : Effect.succeed(running.root.tree)
  })

  readonly look = Effect.gen({ self: this }, function* () {
    const { nodes, revision } = yield* (yield* this.tree).snapshot()
    yield* Effect.yieldNow
    assert.strictEqual(this.auditor.fold.revision, revision)
    const { nodes: heard } = this.auditor.fold
    // Views are immutable, so mostly they are the same ones.
    if (nodes.length !== heard.size || nodes.some((node) => heard.get(node.path) !== node)) {
      assert.deepStrictEqual(this.auditor.fold.known, sorted(nodes))
    }
    this.auditor.look(nodes)
    return nodes
  })

  /** Something happens to the host. */
  readonly trouble = Effect.gen({ self: this }, function* () {
    const { random, world } = this
    switch (random.between(0, 5)) {
      case 0: {
        const share = random.next() ** 2
        return world.storm((path) => path.startsWith("init/runtime/") && random.chance(share))
      }
      case 1:
        world.registryDownUntil = world.now + hour
        return
      case 2:
        world.databaseDownUntil = world.now + hour
        // Some of those that use it notice at once.
        return world.storm((path) => path.includes("pod") && random.chance(0.2))
      case 3: {
        const path = random.pick([...world.live.keys()])
        // Without the parts of its own the host cannot be: it starts anew again and again.
        const most = path.startsWith("init/runtime/") ? 20 * minute : 2 * minute
        world.flap(path, world.now + random.between(minute, most))
        return world.storm((other) => other === path)
      }
      case 4: {
        const part = random.pick(["storage", "network", "gateway"])
        return world.storm((path) => path.startsWith(`init/${part}/`) && random.chance(0.5))
      }
      case 5:
        yield* this.shutDown
        return yield* this.boot
    }
  })

  readonly live = (length: number) =>
    Effect.gen({ self: this }, function* () {
      const clock = yield* Clock.Clock
      this.world.clock = () => clock.currentTimeMillisUnsafe()
      yield* this.boot
      const end = this.world.now + length
      let troubleAt = 0
      while (this.world.now < end && this.world.violations.length === 0) {
        yield* TestClock.adjust(this.random.exponential(2 * minute))
        yield* this.tend
        if (this.world.now >= troubleAt) {
          yield* this.trouble
          troubleAt = this.world.now + this.random.exponential(30 * minute)
        }
        if (this.random.chance(0.5)) yield* this.person.act(yield* this.tree)
        yield* Effect.yieldNow
        yield* this.look
      }
      // Then all is quiet, and heals.
      this.world.calm = true
      yield* TestClock.adjust(2 * hour)
      yield* this.tend
      this.auditor.healed(yield* this.look)
      yield* this.shutDown
    })
}
