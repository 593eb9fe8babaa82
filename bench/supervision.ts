/**
 * What supervision costs: starting a child, a crash until the next incarnation runs (with 1 and with 10,000 siblings),
 * memory per idle child, a snapshot, an orderly stop.
 *
 * Run alone with `node --expose-gc bench/supervision.ts [children]`. The children are as small as an actor can be: they
 * acknowledge and wait. Figures are medians over rounds; the crash is a typed failure, the policy OTP's `permanent`.
 */
import * as Effect from "effect/Effect"
import * as Actor from "../src/actor/Actor.ts"
import type { ChildSpec } from "../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../src/actor/RestartPolicy.ts"
import * as Root from "../src/actor/Root.ts"
import * as Supervisor from "../src/actor/Supervisor.ts"
import * as Measure from "./Measure.ts"

const report = (question: string, unit: string, value: number, more: Record<string, number> = {}): void =>
  Measure.report({
    question: `supervision: ${question}${more["children"] === undefined ? "" : `, ${more["children"]} children`}`,
    subject: "ironwood",
    unit,
    samples: [value],
    note: Object.entries(more)
      .map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`)
      .join(", ")
  })

/** Processor time of this process in microseconds: what a figure costs, also on a busy machine. */
const processor = (since?: NodeJS.CpuUsage): NodeJS.CpuUsage => process.cpuUsage(since)
const microseconds = ({ system, user }: NodeJS.CpuUsage): number => system + user

const quantile = (values: Array<number>, share: number): number =>
  values.sort((left, right) => left - right)[Math.min(values.length - 1, Math.floor(values.length * share))] ??
  Number.NaN

const heap = (): number => {
  globalThis.gc?.()
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

const ready = Actor.ready()
const idle = (id: string): ChildSpec<never, never> =>
  Actor.make(id, { policy: RestartPolicy.permanent }, Effect.andThen(ready, Effect.never))

/** A child that can be made to crash, and tells when its next incarnation runs. */
const crashing = (id: string) => {
  let crash: (() => void) | undefined
  let running: (() => void) | undefined
  const spec = Actor.make(
    id,
    { policy: RestartPolicy.permanent },
    Effect.andThen(
      ready,
      Effect.suspend(() => {
        running?.()
        return Effect.callback<never, string>((resume) => {
          crash = () => resume(Effect.fail("crash"))
        })
      })
    )
  )
  /** Milliseconds from the crash to the body of the next incarnation. */
  const once = (): number => {
    let end = 0
    const begin = performance.now()
    running = () => {
      end = performance.now()
    }
    crash?.()
    return end - begin
  }
  return { spec, once }
}

const crashes = (label: string, siblings: number, rounds: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const subject = crashing("subject")
      const others = Array.from({ length: siblings }, (_, index) => idle(`child-${index}`))
      const supervisor = Supervisor.make("init", { intensity: 100_000, period: 1, children: [...others, subject.spec] })
      yield* Root.start(supervisor)
      for (let round = 0; round < rounds; round++) subject.once()
      const times: Array<number> = []
      for (let round = 0; round < rounds; round++) {
        times.push(subject.once() * 1_000)
        if (round % 64 === 0) yield* Effect.sleep(1)
      }
      report(`crash to running, ${label}`, "µs", quantile(times, 0.5), { p99: quantile(times, 0.99), rounds })
    })
  )

const dynamic = (children: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const specs = Array.from({ length: children }, (_, index) => idle(`child-${index}`))
      const supervisor = yield* DynamicSupervisor.make("children", { children: Effect.succeed([]) })
      const root = yield* Root.start(Supervisor.make("init", { children: [supervisor.spec] }))
      const before = heap()
      const begin = performance.now()
      const cpuBefore = processor()
      for (const spec of specs) yield* supervisor.startChild(spec, { wait: "registered" })
      const started = performance.now() - begin
      report("start", "µs per child", (started * 1_000) / children, {
        children,
        total_ms: Math.round(started),
        cpu_us: microseconds(processor(cpuBefore)) / children
      })
      report("memory", "bytes per idle child", (heap() - before) / children, { children })
      const begun = performance.now()
      const snapshot = yield* root.tree.snapshot()
      report("snapshot", "ms", performance.now() - begun, { actors: snapshot.nodes.length })
      const stopping = performance.now()
      const cpuStopping = processor()
      yield* root.end("stop")
      const stopped = performance.now() - stopping
      report("stop", "µs per child", (stopped * 1_000) / children, {
        children,
        total_ms: Math.round(stopped),
        cpu_us: microseconds(processor(cpuStopping)) / children
      })
    })
  )

/** Sustained: every child of many crashes again and again. */
const sustained = (children: number, restarts: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const subjects = Array.from({ length: children }, (_, index) => crashing(`child-${index}`))
      const root = yield* Root.start(
        Supervisor.make("init", { intensity: 100_000, period: 1, children: subjects.map((subject) => subject.spec) })
      )
      const begin = performance.now()
      const cpuBefore = processor()
      for (let done = 0; done < restarts; done++) subjects[done % children]?.once()
      const seconds = (performance.now() - begin) / 1_000
      const cpu = microseconds(processor(cpuBefore))
      const { nodes } = yield* root.tree.snapshot()
      const made = nodes.reduce((sum, node) => sum + node.restarts, 0)
      report("sustained restarts", "per second", made / seconds, { children, restarts: made, cpu_us: cpu / made })
    })
  )

const children = Number(process.argv[2] ?? 10_000)
const program = Effect.gen(function* () {
  yield* dynamic(1_000)
  yield* dynamic(children)
  yield* crashes("1 child", 0, 5_000)
  yield* crashes("10,000 siblings", 10_000, 5_000)
  yield* sustained(1_000, 100_000)
})

await Effect.runPromise(program)
