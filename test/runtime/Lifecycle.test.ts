/** The command table: complete, consistent, and every cell as written here by hand. */
import { assert, describe, it } from "@effect/vitest"
import { states } from "../../src/actor/Lifecycle.ts"
import {
  type Action,
  type Command,
  commands,
  containerStates,
  type Finding,
  findings,
  type Remedy
} from "../../src/runtime/Lifecycle.ts"

/** One line per state: start, stop, restart, kill, exec, remove, force-remove. */
const expected = `
unregistered  commit   commit  commit   refuse  refuse   remove  remove
waiting       commit   stop    commit   refuse  refuse   refuse  stop-and-remove
starting      commit   stop    restart  refuse  refuse   refuse  stop-and-remove
running       commit   stop    restart  signal  execute  refuse  stop-and-remove
backing-off   start    stop    restart  refuse  refuse   refuse  stop-and-remove
stopping      restart  stop    restart  signal  execute  refuse  stop-and-remove
stopped       start    commit  restart  refuse  refuse   remove  remove
parked        start    stop    restart  refuse  refuse   remove  remove
finished      start    stop    restart  refuse  refuse   remove  remove
failed        start    stop    restart  refuse  refuse   remove  remove
`
const order: ReadonlyArray<Command> = ["start", "stop", "restart", "kill", "exec", "remove", "force-remove"]

describe("Lifecycle", () => {
  for (const line of expected.trim().split("\n")) {
    const [state, ...actions] = line.split(/\s+/)
    order.forEach((command, index) => {
      it(`${state} × ${command}`, () => {
        const cell: Action | undefined = containerStates
          .filter((candidate) => candidate === state)
          .map((candidate) => commands[candidate][command])[0]
        assert.strictEqual(cell, actions[index])
      })
    })
  }

  /** wanted, unwanted, unknown. */
  const remedies: Readonly<Record<Finding, ReadonlyArray<Remedy>>> = {
    running: ["adopt", "stop", "kill"],
    ended: ["judge", "forget", "forget"],
    "half-made": ["adopt", "stop", "kill"],
    leftover: ["clear", "clear", "clear"]
  }
  for (const finding of ["running", "ended", "half-made", "leftover"] as const) {
    for (const [index, wanted] of (["wanted", "unwanted", "unknown"] as const).entries()) {
      it(`${finding} × ${wanted}`, () => assert.strictEqual(findings[finding][wanted], remedies[finding][index]))
    }
  }

  it("has every state of an actor", () => {
    assert.sameMembers([...containerStates], ["unregistered", ...states])
    assert.strictEqual(expected.trim().split("\n").length, containerStates.length)
  })

  it("force removes in every state, and only what has no life is removed without", () => {
    for (const state of containerStates) {
      assert.notStrictEqual(commands[state]["force-remove"], "refuse")
      if (["waiting", "starting", "running", "backing-off", "stopping"].includes(state)) {
        assert.strictEqual(commands[state].remove, "refuse")
      }
    }
  })
})
