/** Every cell of the table of `Lifecycle.ts`. */
import { assert, describe, it } from "@effect/vitest"
import type { Succession } from "../../src/taproot/Processes.ts"
import * as Lifecycle from "../../src/upgrade/Lifecycle.ts"
import { builtIn, initial, type Record } from "../../src/upgrade/Record.ts"

const own = { digest: "own", version: "1.0.0", stateLayout: 1 }
const one = "1".repeat(64)
const two = "2".repeat(64)

const noEnd = { how: "none", value: 0, time: 0n } as const
const none: Succession = { state: "none", fault: "none", end: noEnd }
const givenUp = (fault: Succession["fault"], time = 7n): Succession => ({
  state: "given-up",
  fault,
  end: { how: "exited", value: 9, time }
})

const begin = (record: Record, situation: Partial<Lifecycle.Situation> = {}) =>
  Lifecycle.begin(record, {
    self: builtIn,
    own,
    instance: "run",
    succession: none,
    problemOf: () => undefined,
    versionOf: (brain) => `version of ${brain.slice(0, 1)}`,
    now: 1_000,
    ...situation
  })

const asked = (record: Record, brain: string) =>
  Lifecycle.ask(record, { brain, version: "2.0.0", instance: "run", patienceMillis: 5_000, at: 500 })

const settled: Record = { ...initial(own), current: one, previous: builtIn }
const onTrial = asked(settled, two)

describe("the life of an upgrade", () => {
  it("begins on trial: what ran stays the one to go back to", () => {
    assert.strictEqual(onTrial.current, one)
    assert.deepInclude(onTrial.trial, { brain: two, instance: "run" })
    assert.deepInclude(onTrial.attempt, { brain: two, before: one, fate: "trying" })
  })

  it("confirmed by itself and by nobody else, it is current", () => {
    const confirmed = Lifecycle.confirm(onTrial, two)
    assert.deepInclude(confirmed, { current: two, previous: one })
    assert.strictEqual(confirmed.attempt?.fate, "confirmed")
    assert.isUndefined(confirmed.trial)
    assert.strictEqual(Lifecycle.confirm(onTrial, one), onTrial)
  })

  it("given up by taproot, it is bad, and the one before it runs", () => {
    const reasons = { ended: "ended", late: "unhealthy", protocol: "protocol" } as const
    for (const fault of ["ended", "late", "protocol"] as const) {
      const { record, run } = begin(onTrial, { succession: givenUp(fault) })
      assert.strictEqual(run, one)
      assert.deepInclude(record.bad[two], { reason: reasons[fault], detail: "the last one ended with exit code 9" })
      assert.strictEqual(record.attempt?.fate, "fell-back")
      assert.isTrue(record.restoring)
      // a second brain that is told the same does not blame the next
      const again = begin(record, { succession: givenUp(fault) })
      assert.strictEqual(again.record, record)
      assert.strictEqual(again.run, one)
    }
  })

  it("interrupted by a new start, or a brain that never handed over, it is not blamed", () => {
    for (const instance of ["run", "another run"]) {
      const { record, run } = begin(onTrial, { instance })
      assert.strictEqual(run, one)
      assert.strictEqual(record.attempt?.fault?.reason, "interrupted")
      assert.deepStrictEqual(record.bad, {})
      assert.isUndefined(record.trial)
    }
    const stays = begin(onTrial, { self: one, succession: { state: "proven", fault: "none", end: noEnd } })
    assert.strictEqual(stays.run, one)
    assert.strictEqual(stays.record.attempt?.fault?.reason, "interrupted")
    assert.strictEqual(begin(onTrial, { self: two }).record, onTrial)
  })

  it("proven and then unstable, it is left for the one before it, which may turn out to be bad, too", () => {
    const proven = Lifecycle.confirm(onTrial, two)
    const first = begin(proven, { succession: givenUp("unstable") })
    assert.strictEqual(first.run, one)
    assert.strictEqual(first.record.bad[two]?.reason, "unstable")
    const second = begin(first.record, { succession: givenUp("ended", 8n) })
    assert.strictEqual(second.run, builtIn)
    assert.hasAllKeys(second.record.bad, [one, two])
  })

  it("damaged, it is left for what is whole", () => {
    const proven = Lifecycle.confirm(onTrial, two)
    const { record, run } = begin(proven, { problemOf: (brain) => (brain === two ? "it has rotted" : undefined) })
    assert.strictEqual(run, one)
    assert.deepInclude(record.bad[two], { reason: "damaged", detail: "it has rotted" })
    assert.strictEqual(begin(proven, { problemOf: () => "it has rotted" }).run, builtIn)
  })

  it("an image with another brain of its own runs that, and says so; with the old image the choice holds again", () => {
    const proven = Lifecycle.confirm(onTrial, two)
    const other = begin(proven, { own: { ...own, digest: "other" } })
    assert.strictEqual(other.run, builtIn)
    assert.include(other.note, "another brain of its own")
    assert.strictEqual(begin(other.record).run, two)
  })

  it("a bad brain has another chance when somebody asks for it", () => {
    const { record } = begin(onTrial, { succession: givenUp("ended") })
    assert.deepStrictEqual(asked(record, two).bad, {})
  })

  it("the built-in brain needs no trial", () => {
    const record = asked(settled, builtIn)
    assert.isUndefined(record.trial)
    assert.deepInclude(record, { current: builtIn, previous: one })
    assert.strictEqual(begin(record).run, builtIn)
  })
})
