/** The pure decision: what follows an end, by policy, budget and history, and with which words. */
import { assert, describe, it } from "@effect/vitest"
import * as Decision from "../../src/actor/Decision.ts"
import type { ExitView } from "../../src/actor/ExitView.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"

const exitOf = (of: ExitView["class"], beforeReady = false): ExitView => ({
  at: 0,
  class: of,
  tag: of === "normal" ? "Normal" : "Boom",
  message: "boom",
  detail: "",
  beforeReady
})
const failure = exitOf("failure")

const situation = (change: Partial<Decision.Situation>): Decision.Situation => ({
  policy: RestartPolicy.permanent,
  exit: failure,
  supervisor: false,
  attempt: 0,
  ranFor: 0,
  restartsOfChild: 0,
  intensity: undefined,
  restartsOfSupervisor: 0,
  random: 0.5,
  ...change
})

describe("the decision table", () => {
  for (const exit of [exitOf("normal"), failure, exitOf("defect"), exitOf("interrupted")]) {
    it(`permanent restarts after ${exit.class}`, () => {
      assert.strictEqual(Decision.decide(situation({ exit }))._tag, "Restart")
    })
    it(`transient after ${exit.class}`, () => {
      const decision = Decision.decide(situation({ policy: RestartPolicy.transient, exit }))
      assert.strictEqual(decision._tag, exit.class === "normal" ? "Finish" : "Restart")
    })
    it(`temporary never restarts after ${exit.class}, and is forgotten`, () => {
      const decision = Decision.decide(situation({ policy: RestartPolicy.temporary, exit }))
      assert.deepStrictEqual(decision._tag === "Finish" ? [decision.failed, decision.forget] : decision, [
        exit.class !== "normal",
        true
      ])
    })
  }
  it("a temporary supervisor that failed is kept in sight", () => {
    const decision = Decision.decide(situation({ policy: RestartPolicy.temporary, supervisor: true }))
    assert.deepStrictEqual(decision._tag === "Finish" ? decision.forget : decision, false)
  })
})

describe("back-off", () => {
  const policy = RestartPolicy.make({ backoff: { initial: 100, factor: 2, max: 1_000, jitter: 0, resetAfter: 5_000 } })
  const delays = (policy: RestartPolicy.RestartPolicy, random = 0.5) =>
    [1, 2, 3, 4, 5, 6, 2_000].map((attempt) => Decision.delayOf(policy.backoff, attempt, random))

  it("doubles up to the cap, whatever the attempt", () => {
    assert.deepStrictEqual(delays(policy), [100, 200, 400, 800, 1_000, 1_000, 1_000])
  })
  it("takes `first` for the first restart and begins the curve at the second", () => {
    assert.deepStrictEqual(
      delays(RestartPolicy.make({ backoff: { first: 0 } }, policy)),
      [0, 100, 200, 400, 800, 1_000, 1_000]
    )
  })
  it("spreads by the jitter", () => {
    const jittered = RestartPolicy.make({ backoff: { jitter: 0.5 } }, policy)
    assert.deepStrictEqual(delays(jittered, 0).slice(0, 2), [50, 100])
    assert.deepStrictEqual(delays(jittered, 1).slice(0, 2), [150, 300])
  })
  it("goes on from attempt to attempt, and back to the beginning after a healthy run", () => {
    const ill = Decision.decide(situation({ policy, attempt: 2, ranFor: 4_999 }))
    const healthy = Decision.decide(situation({ policy, attempt: 2, ranFor: 5_000 }))
    assert.deepInclude(ill, { _tag: "Restart", attempt: 3, delay: 400 })
    assert.deepInclude(healthy, { _tag: "Restart", attempt: 1, delay: 100 })
  })
  it("a start that never came to an acknowledgement is no healthy run", () => {
    const decision = Decision.decide(situation({ policy, attempt: 2, ranFor: 9_000, exit: exitOf("failure", true) }))
    assert.deepInclude(decision, { _tag: "Restart", attempt: 3 })
  })
})

describe("budgets", () => {
  const budget = { restarts: 3, within: 60_000 }
  for (const [whenSpent, tag] of [
    ["park", "Park"],
    ["escalate", "Escalate"],
    ["keep-trying", "Restart"]
  ] as const) {
    it(`${whenSpent} when the child's own is spent`, () => {
      const policy = RestartPolicy.make({ budget, whenSpent, backoff: { jitter: 0 } })
      assert.strictEqual(Decision.decide(situation({ policy, restartsOfChild: 2 }))._tag, "Restart")
      const spent = Decision.decide(situation({ policy, restartsOfChild: 3 }))
      assert.strictEqual(spent._tag, tag)
      if (spent._tag === "Restart") assert.strictEqual(spent.delay, 60_000)
      if (spent._tag === "Escalate") assert.deepInclude(spent, { budget: "child", restarts: 3, within: 60_000 })
    })
  }
  it("the intensity is spent by children that escalate", () => {
    const intensity = { restarts: 2, within: 5_000 }
    const decision = Decision.decide(situation({ intensity, restartsOfSupervisor: 2 }))
    assert.deepInclude(decision, { _tag: "Escalate", budget: "supervisor", restarts: 2 })
  })
  it("a child that parks or keeps trying never takes the supervisor down", () => {
    const intensity = { restarts: 0, within: 5_000 }
    for (const whenSpent of ["park", "keep-trying"] as const) {
      const policy = RestartPolicy.make({ whenSpent })
      const decision = Decision.decide(situation({ policy, intensity, restartsOfSupervisor: 0 }))
      assert.deepInclude(decision, { _tag: "Restart", spendsIntensity: false })
    }
  })
  it("says why, in words", () => {
    const policy = RestartPolicy.make({ budget, whenSpent: "park" })
    assert.strictEqual(
      Decision.decide(situation({ policy, restartsOfChild: 3 })).reason,
      "it ended (Boom); its budget of 3 restarts in 60 s is spent: it is parked until somebody starts it"
    )
  })
})
