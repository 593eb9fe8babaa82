/** The dry run: what it says step by step, and that a living tree does the same. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { TestClock } from "effect/testing"
import { explain, type PlannedExit } from "../../src/actor/Explain.ts"
import type { ExitView } from "../../src/actor/ExitView.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import { presets } from "../../src/actor/RestartPreset.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Probes } from "./Probe.ts"

const exit = (change: Partial<ExitView> = {}): ExitView => ({
  at: 0,
  class: "failure",
  tag: "Crash",
  message: "crash",
  detail: "",
  beforeReady: false,
  ...change
})
const after = (milliseconds: number, change: Partial<ExitView> = {}): PlannedExit => ({
  when: { after: milliseconds },
  exit: exit(change)
})

describe("a dry run", () => {
  const policy = RestartPolicy.make({
    backoff: { initial: 100, factor: 2, max: 1_000, jitter: 0.5 },
    budget: { restarts: 2, within: "1 minute" },
    whenSpent: "park",
    rules: [{ on: { outOfMemory: true }, counts: false }]
  })

  it("tells each step with its reason, the delay as bounds, and where it ends", () => {
    const { outcome, steps } = explain({
      policy,
      exits: [after(500), after(1_000, { facts: { outOfMemory: true } }), after(0), after(10), after(10)]
    })
    assert.deepStrictEqual(
      steps.map(({ at, attempt, budgetLeft, decision, delay, nextStartAt, run }) => ({
        at,
        run,
        decision: decision?._tag,
        delay,
        nextStartAt,
        budgetLeft,
        attempt
      })),
      [
        {
          at: 500,
          run: 1,
          decision: "Restart",
          delay: { min: 50, middle: 100, max: 150 },
          nextStartAt: 600,
          budgetLeft: 1,
          attempt: 1
        },
        {
          at: 1_600,
          run: 2,
          decision: "Restart",
          delay: { min: 50, middle: 100, max: 150 },
          nextStartAt: 1_700,
          budgetLeft: 1,
          attempt: 1
        },
        {
          at: 1_700,
          run: 3,
          decision: "Restart",
          delay: { min: 100, middle: 200, max: 300 },
          nextStartAt: 1_900,
          budgetLeft: 0,
          attempt: 2
        },
        { at: 1_910, run: 4, decision: "Park", delay: undefined, nextStartAt: undefined, budgetLeft: 0, attempt: 3 },
        { at: 1_910, run: 4, decision: undefined, delay: undefined, nextStartAt: undefined, budgetLeft: 0, attempt: 3 }
      ]
    )
    assert.include(steps[1]?.reason, "rule 1 (out of memory), which does not count")
    assert.strictEqual(steps[4]?.reason, "it was not running: parked")
    assert.deepStrictEqual(outcome, {
      state: "parked",
      summary: "parked until somebody starts it",
      nextStartAt: undefined
    })
  })
  it("takes absolute times, and leaves out what comes while it is down", () => {
    const at = (milliseconds: number): PlannedExit => ({ when: { at: milliseconds }, exit: exit() })
    const { outcome, steps } = explain({ policy: presets.docker.policy, exits: [at(1_000), at(1_050), at(1_100)] })
    assert.deepStrictEqual(
      steps.map(({ decision, ranFor, run }) => [run, ranFor, decision?._tag]),
      [
        [1, 1_000, "Restart"],
        [2, 0, undefined],
        [2, 0, "Restart"]
      ]
    )
    assert.deepStrictEqual(outcome, { state: "backing-off", summary: "backing off; run 3 is next", nextStartAt: 1_300 })
  })
  it("knows how every decision ends", () => {
    const spent = (options: RestartPolicy.Options) =>
      explain({ policy: RestartPolicy.make({ maxConsecutive: 1, ...options }), exits: [after(1)] }).outcome
    assert.deepInclude(spent({ whenSpent: "fallback", fallback: "spare" }), {
      state: "parked",
      summary: "parked; spare runs in its place"
    })
    assert.deepInclude(spent({ whenSpent: "escalate" }), { state: "failed" })
    assert.deepInclude(spent({ whenSpent: "reboot-host" }), { state: "failed", summary: "failed; the host reboots" })
    assert.deepInclude(spent({ whenSpent: "restart-group" }), { state: "backing-off" })
    assert.deepInclude(spent({ restart: "temporary" }), { state: "failed" })
    assert.deepInclude(explain({ policy, exits: [] }).outcome, { state: "running", summary: "running, run 1" })
  })
})

const calm = { factor: 2, jitter: 0, resetAfter: "5 seconds" } as const
/** Policies that never take their supervisor down. */
const policies: ReadonlyArray<RestartPolicy.RestartPolicy> = [
  presets.kubernetes.policy,
  presets.systemd.policy,
  presets["on-failure"].policy,
  RestartPolicy.make({ restart: "on-success", backoff: { initial: 1_000, ...calm } }),
  RestartPolicy.make({
    backoff: { initial: 100, curve: "fibonacci", ...calm },
    budget: { restarts: 3, within: "20 seconds" },
    whenSpent: "keep-trying"
  }),
  RestartPolicy.make({ backoff: { initial: 100, curve: "linear", ...calm }, maxConsecutive: 4, whenSpent: "park" }),
  RestartPolicy.make({
    backoff: { initial: 100, ...calm },
    rules: [
      { on: { classes: ["normal"] }, counts: false, consecutive: 3 },
      { on: { tags: ["Crash"] }, backoff: { initial: 300, factor: 3 }, consecutive: 4, whenSpent: "park" }
    ]
  })
]

const Ends = Schema.Array(
  Schema.Struct({
    ran: Schema.Union([
      Schema.Literals([0, 100, 4_999, 5_000]),
      Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 7_000 })))
    ]),
    crashes: Schema.Boolean
  })
).pipe(Schema.check(Schema.isMaxLength(12)))

it.effect.prop(
  "the engine does what the dry run says, in the same words",
  {
    which: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: policies.length - 1 }))),
    ends: Ends
  },
  ({ ends, which }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const policy = policies[which] ?? RestartPolicy.workload
        const { steps } = explain({
          policy,
          exits: ends.map(({ crashes, ran }) =>
            after(ran, crashes ? {} : { class: "normal", tag: "Normal", message: "ended normally" })
          )
        })
        const probes = new Probes()
        const { tree } = yield* Root.start(
          Supervisor.make("init", { children: [probes.make("a", { policy, shutdown: 0 })] })
        )
        for (const [index, step] of steps.entries()) {
          const end = ends[index]
          if (end === undefined || step.decision === undefined) break
          yield* TestClock.adjust(end.ran)
          yield* end.crashes ? probes.crash("a") : probes.finish("a")
          const node = yield* tree.get("init/a")
          const entry = (yield* tree.history("init/a")).findLast(({ event }) => event === "ended")
          assert.deepStrictEqual(
            { reason: entry?.reason, delay: entry?.delay, attempt: node.attempt, budgetLeft: node.budgetLeft },
            {
              reason: step.reason,
              delay: step.delay?.middle,
              attempt: step.attempt,
              budgetLeft: step.budgetLeft
            }
          )
          yield* TestClock.adjust(step.delay?.middle ?? 0)
        }
      })
    ),
  { arbitrary: { runs: 200, size: 12 } }
)
