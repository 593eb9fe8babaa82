/** The tables of virtual machines: complete, consistent, and every cell as written here by hand. */
import { assert, describe, it } from "@effect/vitest"
import { states } from "../../src/actor/Lifecycle.ts"
import { type Command, commands, endings, hint, vmStates } from "../../src/vmm/Lifecycle.ts"

/** One line per state: start, stop, reset, pause, resume, attach, remove, force-remove. */
const expected = `
unregistered  commit   commit  refuse  refuse  refuse  refuse   remove  remove
waiting       commit   stop    refuse  refuse  refuse  refuse   refuse  stop-and-remove
starting      commit   stop    refuse  refuse  refuse  refuse   refuse  stop-and-remove
running       commit   stop    reset   pause   keep    connect  refuse  stop-and-remove
paused        commit   stop    reset   keep    resume  connect  refuse  stop-and-remove
stalled       commit   stop    reset   keep    resume  connect  refuse  stop-and-remove
backing-off   start    stop    refuse  refuse  refuse  refuse   refuse  stop-and-remove
stopping      restart  stop    refuse  refuse  refuse  connect  refuse  stop-and-remove
stopped       start    commit  refuse  refuse  refuse  refuse   remove  remove
parked        start    stop    refuse  refuse  refuse  refuse   remove  remove
finished      start    stop    refuse  refuse  refuse  refuse   remove  remove
failed        start    stop    refuse  refuse  refuse  refuse   remove  remove
`
const order: ReadonlyArray<Command> = ["start", "stop", "reset", "pause", "resume", "attach", "remove", "force-remove"]

describe("Lifecycle of a virtual machine", () => {
  for (const line of expected.trim().split("\n")) {
    const [state, ...actions] = line.split(/\s+/)
    order.forEach((command, index) => {
      it(`${state} × ${command}`, () => {
        const [cell] = vmStates.filter((candidate) => candidate === state).map((known) => commands[known][command])
        assert.strictEqual(cell, actions[index])
      })
    })
  }

  it("has every state of an actor, and its own three", () => {
    assert.sameMembers([...vmStates], [...states, "unregistered", "paused", "stalled"])
  })

  it("every refusal says what to do instead", () => {
    for (const state of vmStates) {
      for (const command of order) {
        if (commands[state][command] === "refuse") assert.isAbove(hint(command).length, 0)
      }
    }
  })

  it("only a reboot ends differently by its spec", () => {
    for (const [ending, { end, reset }] of Object.entries(endings)) {
      assert.strictEqual(ending === "guest rebooted", end !== reset, ending)
    }
  })
})
