/** The tables of virtual machines: complete, consistent, and every cell as written here by hand. */
import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { states } from "../../src/actor/Lifecycle.ts"
import { type Command, commands, endings, hint, vmStates } from "../../src/vmm/Lifecycle.ts"
import { asidesOf, lifeToSettle, onward, Work } from "../../src/vmm/Work.ts"
import { everyCell } from "../support/commandTable.ts"

/** One line per state: start, stop, reset, pause, resume, attach, remove, force-remove, snapshot, restore, migrate. */
const expected = `
unregistered  commit   commit  refuse  refuse  refuse  refuse   remove  remove  refuse  refuse  refuse
waiting       commit   stop    refuse  refuse  refuse  refuse   refuse  stop-and-remove  refuse  refuse  refuse
starting      commit   stop    refuse  refuse  refuse  refuse   refuse  stop-and-remove  refuse  refuse  refuse
running       commit   stop    reset   pause   keep    connect  refuse  stop-and-remove  snapshot  restore  migrate
paused        commit   stop    reset   keep    resume  connect  refuse  stop-and-remove  snapshot  restore  migrate
stalled       commit   stop    reset   keep    resume  connect  refuse  stop-and-remove  refuse  restore  refuse
backing-off   start    stop    refuse  refuse  refuse  refuse   refuse  stop-and-remove  refuse  restore  refuse
stopping      restart  stop    refuse  refuse  refuse  connect  refuse  stop-and-remove  refuse  refuse  refuse
stopped       start    commit  refuse  refuse  refuse  refuse   remove  remove  refuse  restore  refuse
parked        start    stop    refuse  refuse  refuse  refuse   remove  remove  refuse  restore  refuse
finished      start    stop    refuse  refuse  refuse  refuse   remove  remove  refuse  restore  refuse
failed        start    stop    refuse  refuse  refuse  refuse   remove  remove  refuse  restore  refuse
`
const order: ReadonlyArray<Command> = [
  "start",
  "stop",
  "reset",
  "pause",
  "resume",
  "attach",
  "remove",
  "force-remove",
  "snapshot",
  "restore",
  "migrate"
]

describe("Lifecycle of a virtual machine", () => {
  everyCell(expected, order, (state, command) => {
    const known = vmStates.find((candidate) => candidate === state)
    return known && commands[known][command]
  })

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

  /** One line per phase: done, failed, another brain. */
  const steps = {
    Saving: ["resume and keep", "resume and drop", "resume and drop"],
    Copying: ["decide", "drop", "drop"],
    Restoring: ["let go", "start cold", "load"],
    Making: ["start", "forget", "forget"],
    Moving: ["hand over", "stay", "stay"],
    Arrived: ["let go", "let go", "let go"]
  } as const
  for (const [phase, [done, failed, anotherBrain]] of Object.entries(steps)) {
    it(`what is under way: ${phase}`, () => {
      const cells = Object.entries(onward).filter(([name]) => name === phase)
      assert.deepStrictEqual(cells, [[phase, { done, failed, "another brain": anotherBrain }]])
    })
  }

  it("another brain settles a life, or takes files away, or goes on; it never leaves both", () => {
    const files = [{ aside: "/a", target: "/b" }]
    const work = (given: typeof Work.Encoded) => Schema.decodeSync(Work)(given)
    const saving = work({ _tag: "Saving", life: "vm/a#1" })
    const moving = work({ _tag: "Moving", from: "vm/a#1", to: "vm/a#1.1" })
    const arrived = work({ _tag: "Arrived", life: "vm/a#1.1" })
    assert.deepStrictEqual([saving, moving, arrived].map(lifeToSettle), ["vm/a#1", "vm/a#1", "vm/a#1.1"])
    const copying = work({ _tag: "Copying", files })
    const making = work({ _tag: "Making", files: ["/c"] })
    assert.deepStrictEqual([copying, making].map(asidesOf), [["/a"], ["/c"]])
    const restoring = work({
      _tag: "Restoring",
      files,
      memory: "/m",
      hypervisor: "qemu",
      model: { type: "m", slots: [] },
      paused: false
    })
    assert.deepStrictEqual([lifeToSettle(restoring), asidesOf(restoring)], [undefined, []])
  })

  it("only a reboot ends differently by its spec", () => {
    for (const [ending, { end, reset }] of Object.entries(endings)) {
      assert.strictEqual(ending === "guest rebooted", end !== reset, ending)
    }
  })
})
