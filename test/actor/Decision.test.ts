/** The pure decision: what follows an end, by policy, budget and history, and with which words. */
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "../../src/actor/Backoff.ts"
import * as Decision from "../../src/actor/Decision.ts"
import type { ExitView } from "../../src/actor/ExitView.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"

const exitOf = (of: ExitView["class"], beforeReady = false, change: Partial<ExitView> = {}): ExitView => ({
  at: 0,
  class: of,
  tag: of === "normal" ? "Normal" : "Boom",
  message: "boom",
  detail: "",
  beforeReady,
  ...change
})
const failure = exitOf("failure")

const situation = (change: Partial<Decision.Situation>): Decision.Situation => ({
  policy: RestartPolicy.permanent,
  exit: failure,
  supervisor: false,
  attempt: 0,
  ranFor: 0,
  restartsOfChild: () => 0,
  ruleRestarts: () => 0,
  intensity: undefined,
  restartsOfSupervisor: 0,
  canReboot: true,
  random: 0.5,
  ...change
})

describe("the decision table", () => {
  for (const exit of [exitOf("normal"), failure, exitOf("defect"), exitOf("interrupted")]) {
    it(`on-success after ${exit.class}`, () => {
      const policy = RestartPolicy.make({ restart: "on-success" })
      const decision = Decision.decide(situation({ policy, exit }))
      if (exit.class === "normal") assert.strictEqual(decision._tag, "Restart")
      else assert.deepInclude(decision, { _tag: "Finish", failed: true, forget: false })
    })
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
    [1, 2, 3, 4, 5, 6, 2_000].map((attempt) => Backoff.delayOf(policy.backoff, attempt, random))

  it("doubles up to the cap, whatever the attempt", () => {
    assert.deepStrictEqual(delays(policy), [100, 200, 400, 800, 1_000, 1_000, 1_000])
  })
  it("takes `first` for the first restart and begins the curve at the second", () => {
    assert.deepStrictEqual(
      delays(RestartPolicy.make({ backoff: { first: 0 } }, policy)),
      [0, 100, 200, 400, 800, 1_000, 1_000]
    )
  })
  it("grows linearly by initial × (factor − 1), up to the cap", () => {
    const linear = (factor: number) => RestartPolicy.make({ backoff: { curve: "linear", factor } }, policy)
    assert.deepStrictEqual(delays(linear(2)), [100, 200, 300, 400, 500, 600, 1_000])
    assert.deepStrictEqual(delays(linear(1.5)), [100, 150, 200, 250, 300, 350, 1_000])
    assert.deepStrictEqual(delays(linear(1)), [100, 100, 100, 100, 100, 100, 100])
  })
  it("grows along Fibonacci's numbers, whatever the factor", () => {
    const fibonacci = RestartPolicy.make({ backoff: { curve: "fibonacci", factor: 7 } }, policy)
    assert.deepStrictEqual(delays(fibonacci), [100, 100, 200, 300, 500, 800, 1_000])
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
      assert.strictEqual(Decision.decide(situation({ policy, restartsOfChild: () => 2 }))._tag, "Restart")
      const spent = Decision.decide(situation({ policy, restartsOfChild: () => 3 }))
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
  it("so many ends in a row spend it too", () => {
    const policy = RestartPolicy.make({ maxConsecutive: 3, whenSpent: "park" })
    assert.strictEqual(Decision.decide(situation({ policy, attempt: 1 }))._tag, "Restart")
    const third = Decision.decide(situation({ policy, attempt: 2 }))
    assert.deepInclude(third, {
      _tag: "Park",
      attempt: 3,
      reason:
        "it ended (Boom); that is 3 ends in a row without a healthy run of 10 s, and 3 are the limit: it is parked until somebody starts it"
    })
    assert.strictEqual(Decision.decide(situation({ policy, attempt: 2, ranFor: 10_000 }))._tag, "Restart")
  })
  it("a fallback takes over, the group restarts, or the host reboots", () => {
    const spent = (options: RestartPolicy.Options, change: Partial<Decision.Situation> = {}) =>
      Decision.decide(
        situation({
          policy: RestartPolicy.make({ budget, backoff: { jitter: 0 }, ...options }),
          restartsOfChild: () => 3,
          ...change
        })
      )
    assert.deepInclude(spent({ whenSpent: "fallback", fallback: "spare" }), { _tag: "Fallback", sibling: "spare" })
    assert.deepInclude(spent({ whenSpent: "restart-group" }), { _tag: "RestartGroup", delay: 100 })
    assert.deepInclude(spent({ whenSpent: "reboot-host" }), { _tag: "RebootHost", attempt: 1 })
    // Restarting everybody is the supervisor's affair, and bounded by its intensity.
    const intensity = { restarts: 2, within: 5_000 }
    assert.deepInclude(spent({ whenSpent: "restart-group" }, { intensity, restartsOfSupervisor: 2 }), {
      _tag: "Escalate",
      budget: "supervisor"
    })
  })
  it("says why, in words", () => {
    const policy = RestartPolicy.make({ budget, whenSpent: "park" })
    assert.strictEqual(
      Decision.decide(situation({ policy, restartsOfChild: () => 3 })).reason,
      "it ended (Boom); its budget of 3 restarts in 1 min is spent: it is parked until somebody starts it"
    )
  })
})

describe("rules", () => {
  const killed = exitOf("failure", false, { facts: { outOfMemory: true } })
  const rules = (...list: ReadonlyArray<RestartPolicy.RuleOptions>) =>
    RestartPolicy.make({ rules: list, backoff: { initial: 100, jitter: 0 } })
  const decideBy = (policy: RestartPolicy.RestartPolicy, exit: ExitView, change: Partial<Decision.Situation> = {}) =>
    Decision.decide(situation({ policy, exit, ...change }))

  it("the first that matches decides, otherwise the policy does", () => {
    const policy = rules(
      { on: { tags: ["Other"] }, then: "escalate" },
      { on: { outOfMemory: true }, then: "park" },
      { on: { classes: ["failure"] }, then: "finish" }
    )
    assert.deepInclude(decideBy(policy, killed), {
      _tag: "Park",
      reason: "it ended (Boom); rule 2 (out of memory): it is parked until somebody starts it"
    })
    assert.deepInclude(decideBy(policy, failure), { _tag: "Finish", failed: false, forget: false })
    assert.deepInclude(decideBy(policy, exitOf("defect")), { _tag: "Restart", rule: undefined, counts: true })
    assert.deepInclude(decideBy(policy, exitOf("failure", false, { tag: "Other" })), {
      _tag: "Escalate",
      budget: "rule"
    })
  })
  it("restart over the policy's type, and finish over it", () => {
    const once = RestartPolicy.make({ rules: [{ on: { outOfMemory: true } }] }, RestartPolicy.temporary)
    assert.deepInclude(decideBy(once, killed), { _tag: "Restart", rule: 0 })
    assert.deepInclude(decideBy(once, failure), { _tag: "Finish", forget: true })
  })
  it("have a limit of their own, and say what follows then", () => {
    const policy = rules({ on: { outOfMemory: true }, consecutive: 2, whenSpent: "park" })
    assert.deepInclude(decideBy(policy, killed, { ruleRestarts: () => 1 }), { _tag: "Restart", rule: 0 })
    assert.deepInclude(decideBy(policy, killed, { ruleRestarts: () => 2 }), {
      _tag: "Park",
      reason:
        "it ended (Boom); rule 1 (out of memory): its 2 restarts in a row are used up: it is parked until somebody starts it"
    })
    assert.strictEqual(decideBy(policy, killed, { ruleRestarts: () => 2, ranFor: 10_000 })._tag, "Restart")
    const tryOn = rules({ on: { outOfMemory: true }, consecutive: 2 })
    assert.deepInclude(decideBy(tryOn, killed, { ruleRestarts: () => 2 }), { _tag: "Restart", delay: 60_000 })
  })
  it("with a back-off of their own count their own restarts for its curve", () => {
    const policy = rules({ on: { outOfMemory: true }, backoff: { initial: 1_000, factor: 3 } })
    assert.deepInclude(decideBy(policy, killed, { attempt: 9, ruleRestarts: () => 1 }), { delay: 3_000, attempt: 10 })
    assert.deepInclude(decideBy(policy, killed, { ranFor: 10_000, ruleRestarts: () => 1 }), { delay: 1_000 })
  })
  it("that do not count spend nothing", () => {
    const policy = RestartPolicy.make(
      {
        rules: [{ on: { outOfMemory: true }, counts: false }],
        budget: { restarts: 0, within: 1_000 },
        maxConsecutive: 1,
        backoff: { initial: 100, jitter: 0 }
      },
      RestartPolicy.permanent
    )
    const intensity = { restarts: 0, within: 1_000 }
    assert.deepInclude(decideBy(policy, killed, { attempt: 3, intensity }), {
      _tag: "Restart",
      attempt: 3,
      delay: 400,
      counts: false,
      spendsIntensity: false,
      reason: "it ended (Boom); rule 1 (out of memory), which does not count: restart in 400 ms"
    })
    assert.deepInclude(decideBy(policy, failure, { attempt: 3, intensity }), { _tag: "Escalate", budget: "child" })
  })
  it("tell whether an end is final, whatever was before", () => {
    const policy = RestartPolicy.make({
      restart: "transient",
      rules: [
        { on: { exitCodes: [0] } },
        { on: { tags: ["Done"] }, then: "finish" },
        { on: { signals: ["SIGKILL"] }, then: "park" }
      ]
    })
    const final = (exit: ExitView) => Decision.isFinal(policy, exit)
    assert.isFalse(final(exitOf("normal")))
    assert.isTrue(final(exitOf("failure", false, { tag: "Done" })))
    assert.isFalse(final(exitOf("failure", false, { facts: { signal: "SIGKILL" } })))
    assert.isFalse(final(failure))
    assert.isTrue(Decision.isFinal(RestartPolicy.transient, exitOf("normal")))
    assert.isTrue(Decision.isFinal(RestartPolicy.temporary, failure))
  })
})
