/**
 * The floor below Supervised.ts: the same children as fibers of Effect, each with a scope, itself in its context and a place in
 * a map, and nobody who supervises them: no spec, policy, state, history, revision or watcher. What supervision costs is what
 * Supervised.ts costs more.
 *
 * `node --expose-gc bench/Bare.ts GROUP` answers those of its questions that make sense here, in the same form.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as SlicedScheduler from "../src/SlicedScheduler.ts"
import { quantile } from "./Measure.ts"

const figure = (name: string, value: number): void => {
  process.stdout.write(`${JSON.stringify({ figure: name, value })}\n`)
}

const tell = (crashes: ReadonlyArray<number>): void => {
  figure("p50", quantile(crashes, 0.5))
  figure("p99", quantile(crashes, 0.99))
}

const heap = (): number => {
  globalThis.gc?.()
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

const giveWay = Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** What stands for an actor's `Self`. */
class Child extends Context.Service<Child, { readonly id: string }>()("bench/Child") {}

/** Children by id; one that fails is forked again. */
class Crowd {
  readonly fibers = new Map<string, Fiber.Fiber<void, string>>()
  readonly #context: Context.Context<never>
  readonly #run: (id: string) => Effect.Effect<never, string, Child | Scope.Scope>
  #left = 0
  #whenGone: (() => void) | undefined

  constructor(context: Context.Context<never>, run: (id: string) => Effect.Effect<never, string, Child | Scope.Scope>) {
    this.#context = context
    this.#run = run
  }

  start(id: string): void {
    const scope = Scope.makeUnsafe()
    const context = Context.add(Context.add(this.#context, Child, { id }), Scope.Scope, scope)
    const body = Effect.onExitPrimitive(this.#run(id), (exit) => Scope.closeUnsafe(scope, exit))
    const fiber = Effect.runForkWith(context)(body)
    this.fibers.set(id, fiber)
    fiber.addObserver(() => {
      if (this.#whenGone === undefined) this.start(id)
      else if (--this.#left === 0) this.#whenGone()
    })
  }

  stop(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      this.#left = this.fibers.size
      this.#whenGone = () => resume(Effect.void)
      for (const fiber of this.fibers.values()) fiber.interruptUnsafe()
    })
  }
}

/** Children that crash when told to, as in Supervised.ts. */
class Crashers {
  readonly crowd: Crowd
  readonly #crash = new Map<string, () => void>()
  #runs = 0

  constructor(context: Context.Context<never>) {
    this.crowd = new Crowd(context, (id) =>
      Effect.callback<never, string>((resume) => {
        this.#runs = performance.now()
        this.#crash.set(id, () => resume(Effect.fail("crash")))
      })
    )
  }

  crash(id: string): number {
    const begin = performance.now()
    this.#crash.get(id)?.()
    return (this.#runs - begin) * 1_000
  }
}

const dynamic = Effect.gen(function* () {
  const crowd = new Crowd(yield* Effect.context<never>(), () => Effect.never)
  const size = 100_000
  const before = heap()
  const begin = performance.now()
  for (let index = 0; index < size; index++) {
    crowd.start(`child-${index}`)
    if (index % 512 === 511) yield* Effect.yieldNow
  }
  figure("start", ((performance.now() - begin) * 1_000) / size)
  figure("memory", (heap() - before) / size)
  const end = performance.now()
  yield* crowd.stop()
  figure("stop", ((performance.now() - end) * 1_000) / size)
})

const alone = Effect.gen(function* () {
  const crashers = new Crashers(yield* Effect.context<never>())
  crashers.crowd.start("only")
  const crashes: Array<number> = []
  for (let round = 0; round < 40_000; round++) {
    crashes.push(crashers.crash("only"))
    if (round % 64 === 0) yield* giveWay
  }
  tell(crashes.slice(30_000))
})

const crowd = 100_000
/** So many crash in turn, as in Supervised.ts. */
const turns = 400

const inTurn = (size: number) =>
  Effect.gen(function* () {
    const crashers = new Crashers(yield* Effect.context<never>())
    const ids: Array<string> = []
    for (let index = 0; index < size; index++) {
      const id = `child-${index}`
      crashers.crowd.start(id)
      if (index % (size / turns) === 0) ids.push(id)
      if (index % 512 === 511) yield* Effect.yieldNow
    }
    const crashes: Array<number> = []
    for (let round = 0; round < 25; round++) {
      for (const id of ids) crashes.push(crashers.crash(id))
      yield* giveWay
    }
    tell(crashes.slice(5_000))
    return crashers.crowd
  })

const few = inTurn(turns)

const among = Effect.gen(function* () {
  const children = yield* inTurn(crowd)
  const begin = performance.now()
  yield* children.stop()
  figure("stop", ((performance.now() - begin) * 1_000) / crowd)
})

const sustained = Effect.gen(function* () {
  const crashers = new Crashers(yield* Effect.context<never>())
  const ids = Array.from({ length: 1_000 }, (_, index) => `child-${index}`)
  for (const id of ids) crashers.crowd.start(id)
  const crashing = (rounds: number) =>
    Effect.gen(function* () {
      for (let round = 0; round < rounds; round++) {
        for (const id of ids) crashers.crash(id)
        yield* giveWay
      }
    })
  yield* crashing(20)
  const begin = performance.now()
  yield* crashing(80)
  figure("rate", (80 * ids.length * 1_000) / (performance.now() - begin))
})

const groups: Readonly<Record<string, Effect.Effect<void>>> = { dynamic, few, static: among, alone, sustained }
const group = groups[process.argv[2] ?? ""]
if (group === undefined) throw new Error(`there is no such group; there are ${Object.keys(groups).join(", ")}`)
await Effect.runPromise(group, { scheduler: SlicedScheduler.make() })
process.exit(0)
