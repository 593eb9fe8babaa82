/**
 * What supervision costs in Ironwood: the program that `supervision.ts` runs beside `otp/supervised.erl`, which answers
 * the same questions for Erlang/OTP.
 *
 * `node --expose-gc bench/Supervised.ts GROUP` answers one group of questions in this process and prints a JSON line for
 * each figure: `{"figure": NAME, "value": NUMBER}`. For a profile put `--cpu-prof` before the file. The children are as
 * small as an actor can be, the policy is OTP's `permanent`, the scheduler that of the brain.
 *
 * Both are warm when they are measured. Here that takes some ten thousand crashes or starts, until the last compiler is done
 * with what they run; there it takes few, and more would be unfair, since with every restart in its window OTP has more to do
 * for the next one.
 *
 * A crash is measured by the children: from the last moment before it to the body of the next incarnation.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as Actor from "../src/actor/Actor.ts"
import type { ChildSpec } from "../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../src/actor/RestartPolicy.ts"
import * as Root from "../src/actor/Root.ts"
import * as Supervisor from "../src/actor/Supervisor.ts"
import * as SlicedScheduler from "../src/SlicedScheduler.ts"
import { median, quantile } from "./Measure.ts"

const figure = (name: string, value: number): void => {
  process.stdout.write(`${JSON.stringify({ figure: name, value })}\n`)
}

// --- measuring ---

const heap = (): number => {
  globalThis.gc?.()
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

/** Microseconds that `act` takes. */
const microseconds = <A, E, R>(act: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const begin = performance.now()
    return Effect.map(act, () => (performance.now() - begin) * 1_000)
  })

/** The longest time in milliseconds for which nothing else of this process had its turn while `act` was under way. */
const longestPause = <A, E, R>(act: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    let longest = 0
    let last = performance.now()
    let over = false
    const look = (): void => {
      const now = performance.now()
      longest = Math.max(longest, now - last)
      last = now
      if (!over) setImmediate(look)
    }
    setImmediate(look)
    return Effect.map(act, () => {
      look()
      over = true
      return longest
    })
  })

/** Lets everything else of this process have its turn. */
const giveWay = Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))

// --- the trees ---

const ready = Actor.ready()
const options = { policy: RestartPolicy.permanent, shutdown: 5_000 }
const body = Effect.andThen(ready, Effect.never)
const idle = (id: string): ChildSpec<never, never> => Actor.make(id, options, body)

/** A child that crashes when told to. */
class Crasher {
  readonly spec: ChildSpec<string, never>
  #crash: (() => void) | undefined
  #runs = 0

  constructor(id: string) {
    const run = Effect.callback<never, string>((resume) => {
      this.#runs = performance.now()
      this.#crash = () => resume(Effect.fail("crash"))
    })
    this.spec = Actor.make(id, options, Effect.andThen(ready, run))
  }

  /** Microseconds from the crash to the body of the next incarnation. */
  crash(): number {
    const begin = performance.now()
    this.#crash?.()
    return (this.#runs - begin) * 1_000
  }
}

/** Room for all restarts of a benchmark. */
const intensity = { intensity: 1_000_000, period: "1 hour" } as const

const staticTree = (children: ReadonlyArray<ChildSpec<unknown, never>>) =>
  Root.start(Supervisor.make("init", { ...intensity, children }))

/** One child crashes again and again; the event loop has its turn now and then. */
const crashOften = (crasher: Crasher, times: number) =>
  Effect.gen(function* () {
    const crashes: Array<number> = []
    for (let round = 0; round < times; round++) {
      crashes.push(crasher.crash())
      if (round % 64 === 0) yield* giveWay
    }
    return crashes
  })

const tell = (crashes: ReadonlyArray<number>): void => {
  figure("p50", quantile(crashes, 0.5))
  figure("p99", quantile(crashes, 0.99))
}

// --- the questions ---

const crowd = 100_000

/** As a program does that has been up for a while. */
const warmUp = Effect.scoped(
  Effect.gen(function* () {
    const supervisor = yield* DynamicSupervisor.make("children", { children: Effect.succeed([]) })
    yield* Root.start(Supervisor.make("init", { children: [supervisor.spec] }))
    for (let index = 0; index < 20_000; index++) yield* supervisor.startChild(idle(`child-${index}`))
  })
)

const dynamic = Effect.gen(function* () {
  const supervisor = yield* DynamicSupervisor.make("children", { children: Effect.succeed([]) })
  const root = yield* Root.start(Supervisor.make("init", { children: [supervisor.spec] }))
  const before = heap()
  const start = Effect.gen(function* () {
    for (let index = 0; index < crowd; index++) yield* supervisor.startChild(idle(`child-${index}`))
  })
  figure("start", (yield* microseconds(start)) / crowd)
  figure("memory", (heap() - before) / crowd)
  const snapshots: Array<number> = []
  const pauses: Array<number> = []
  for (let round = 0; round < 5; round++) {
    yield* giveWay
    snapshots.push(yield* microseconds(root.tree.snapshot()))
    yield* giveWay
    pauses.push(yield* longestPause(root.tree.snapshot()))
  }
  figure("snapshot", median(snapshots) / 1_000)
  figure("pause", median(pauses))
  figure("stop", (yield* microseconds(root.end("stop"))) / crowd)
})

/** So many crash in turn, each after all others: with nobody else, or spread among a crowd. */
const turns = 400

const inTurn = (size: number) =>
  Effect.gen(function* () {
    const crashers: Array<Crasher> = []
    const specs = Array.from({ length: size }, (_, index) => {
      if (index % (size / turns) !== 0) return idle(`child-${index}`)
      const crasher = new Crasher(`child-${index}`)
      crashers.push(crasher)
      return crasher.spec
    })
    const root = yield* staticTree(specs)
    const crashes: Array<number> = []
    for (let round = 0; round < 25; round++) {
      for (const crasher of crashers) crashes.push(crasher.crash())
      yield* giveWay
    }
    return { root, crashes: crashes.slice(5_000) }
  })

const few = Effect.gen(function* () {
  tell((yield* inTurn(turns)).crashes)
})

const among = Effect.gen(function* () {
  const { crashes, root } = yield* inTurn(crowd)
  tell(crashes)
  figure("stop", (yield* microseconds(root.end("stop"))) / crowd)
})

const alone = Effect.gen(function* () {
  const crasher = new Crasher("only")
  yield* staticTree([crasher.spec])
  tell((yield* crashOften(crasher, 40_000)).slice(30_000))
})

const history = Effect.gen(function* () {
  const crasher = new Crasher("only")
  yield* staticTree([crasher.spec])
  yield* crashOften(crasher, 30_000)
  tell(yield* crashOften(crasher, 1_000))
})

const sustained = Effect.gen(function* () {
  const crashers = Array.from({ length: 1_000 }, (_, index) => new Crasher(`child-${index}`))
  yield* staticTree(crashers.map(({ spec }) => spec))
  const crashing = (rounds: number) =>
    Effect.gen(function* () {
      for (let round = 0; round < rounds; round++) {
        for (const crasher of crashers) crasher.crash()
        yield* giveWay
      }
    })
  yield* crashing(20)
  figure("rate", (80 * crashers.length * 1e6) / (yield* microseconds(crashing(80))))
})

/** A thousand children change what they say of themselves, and so many watchers read every change. */
const watch = (watchers: number) =>
  Effect.gen(function* () {
    const rounds = 200
    const speakers: Array<() => void> = []
    const specs = Array.from({ length: 1_000 }, (_, index) =>
      Actor.make(
        `child-${index}`,
        options,
        Effect.gen(function* () {
          const self = yield* Actor.Self
          speakers.push(() => self.annotate({ seen: `${speakers.length}` }))
          yield* ready
          return yield* Effect.never
        })
      )
    )
    const root = yield* staticTree(specs)
    let events = 0
    const from = yield* root.tree.revision
    const reading = Stream.runForEach(root.tree.watch(from), () => Effect.sync(() => void events++))
    const readers = yield* Effect.all(Array.from({ length: watchers }, () => Effect.forkScoped(reading)))
    yield* giveWay
    const speaking = Effect.gen(function* () {
      for (let round = 0; round < rounds; round++) {
        for (const [index, speak] of speakers.entries()) {
          speak()
          if (index % 250 === 249) yield* giveWay
        }
      }
      while (events < rounds * speakers.length * watchers) yield* giveWay
    })
    figure(`events ${watchers}`, (rounds * speakers.length * watchers * 1e6) / (yield* microseconds(speaking)))
    yield* Fiber.interruptAll(readers)
  })

const groups: Readonly<Record<string, Effect.Effect<void, unknown>>> = {
  dynamic: Effect.scoped(dynamic),
  few: Effect.scoped(few),
  static: Effect.scoped(among),
  alone: Effect.scoped(alone),
  history: Effect.scoped(history),
  sustained: Effect.scoped(sustained),
  watch: Effect.andThen(Effect.scoped(watch(1)), Effect.scoped(watch(10)))
}
const group = groups[process.argv[2] ?? ""]
if (group === undefined) throw new Error(`there is no such group; there are ${Object.keys(groups).join(", ")}`)
await Effect.runPromise(Effect.andThen(warmUp, group), { scheduler: SlicedScheduler.make() })
process.exit(0)
