import { assert, describe, it } from "@effect/vitest"
import * as Lifecycle from "../../src/actor/Lifecycle.ts"

/** The table once more, by event: from which states to which. Every pair that is not here must be illegal. */
const legal: Record<Lifecycle.LifecycleEvent, Partial<Record<Lifecycle.ActorState, Lifecycle.ActorState>>> = {
  start: {
    waiting: "starting",
    "backing-off": "starting",
    stopped: "starting",
    parked: "starting",
    finished: "starting",
    failed: "starting"
  },
  acknowledge: { starting: "running", running: "running", stopping: "stopping" },
  retry: { starting: "backing-off", running: "backing-off" },
  park: { starting: "parked", running: "parked" },
  finish: { starting: "finished", running: "finished" },
  fail: { starting: "failed", running: "failed" },
  stop: { starting: "stopping", running: "stopping", stopping: "stopping" },
  halt: {
    waiting: "stopped",
    "backing-off": "stopped",
    stopping: "stopped",
    stopped: "stopped",
    parked: "stopped",
    finished: "stopped",
    failed: "stopped"
  },
  hold: {
    waiting: "waiting",
    "backing-off": "waiting",
    stopping: "waiting",
    stopped: "waiting",
    parked: "waiting",
    finished: "waiting",
    failed: "waiting"
  }
}

const isEvent = (text: string): text is Lifecycle.LifecycleEvent => text in Lifecycle.events

describe("every cell of the lifecycle table", () => {
  for (const state of Lifecycle.states) {
    for (const event of Object.keys(Lifecycle.events).filter(isEvent)) {
      const next = legal[event][state]
      it(`${state} × ${event} → ${next ?? "illegal"}`, () => {
        if (next === undefined) assert.throws(() => Lifecycle.next(state, event), /a bug in the supervision engine/)
        else assert.strictEqual(Lifecycle.next(state, event), next)
      })
    }
  }
  it("only a living incarnation makes an actor alive", () => {
    assert.deepStrictEqual(Lifecycle.states.filter(Lifecycle.isAlive), ["starting", "running", "stopping"])
  })
})
