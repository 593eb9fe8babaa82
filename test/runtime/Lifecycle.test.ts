/** The command table: complete, consistent, and every cell as written here by hand. */
import { assert, describe, it } from "@effect/vitest"
import { states } from "../../src/actor/Lifecycle.ts"
import {
  type Command,
  commands,
  containerStates,
  type Finding,
  findings,
  type Remedy
} from "../../src/runtime/Lifecycle.ts"
import { everyCell } from "../support/commandTable.ts"

/** One line per state: start, stop, restart, kill, exec, attach, pause, resume, update, remove, force-remove. */
const expected = `
unregistered  commit   commit  commit   refuse  refuse   refuse   refuse  refuse  commit  remove  remove
waiting       commit   stop    commit   refuse  refuse   refuse   refuse  refuse  commit  refuse  stop-and-remove
starting      commit   stop    restart  refuse  refuse   refuse   refuse  refuse  commit  refuse  stop-and-remove
running       commit   stop    restart  signal  execute  connect  pause   keep    limit   refuse  stop-and-remove
paused        commit   stop    restart  signal  refuse   connect  keep    resume  limit   refuse  stop-and-remove
backing-off   start    stop    restart  refuse  refuse   refuse   refuse  refuse  commit  refuse  stop-and-remove
stopping      restart  stop    restart  signal  execute  connect  refuse  refuse  commit  refuse  stop-and-remove
stopped       start    commit  restart  refuse  refuse   refuse   refuse  refuse  commit  remove  remove
parked        start    stop    restart  refuse  refuse   refuse   refuse  refuse  commit  remove  remove
finished      start    stop    restart  refuse  refuse   refuse   refuse  refuse  commit  remove  remove
failed        start    stop    restart  refuse  refuse   refuse   refuse  refuse  commit  remove  remove
`
const order: ReadonlyArray<Command> = [
  "start",
  "stop",
  "restart",
  "kill",
  "exec",
  "attach",
  "pause",
  "resume",
  "update",
  "remove",
  "force-remove"
]

describe("Lifecycle", () => {
  everyCell(expected, order, (state, command) => {
    const known = containerStates.find((candidate) => candidate === state)
    return known && commands[known][command]
  })

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
    assert.sameMembers([...containerStates], ["unregistered", "paused", ...states])
    assert.strictEqual(expected.trim().split("\n").length, containerStates.length)
  })

  it("force removes in every state, and only what has no life is removed without", () => {
    for (const state of containerStates) {
      assert.notStrictEqual(commands[state]["force-remove"], "refuse")
      if (["waiting", "starting", "running", "paused", "backing-off", "stopping"].includes(state)) {
        assert.strictEqual(commands[state].remove, "refuse")
      }
    }
  })
})
