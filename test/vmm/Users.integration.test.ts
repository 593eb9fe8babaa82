/** Whom hypervisors run as: nobody is given a user that another still has. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { join } from "node:path"
import { helperPath } from "../../src/taproot/Helper.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import * as State from "../../src/storage/State.ts"
import * as Records from "../../src/vmm/Records.ts"
import * as Users from "../../src/vmm/Users.ts"
import { eventually } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"
import { stateDirectory } from "./world.ts"

describe("users of machines", () => {
  it("the lowest that is free", () => {
    assert.strictEqual(Users.lowestFree(new Set([0, 1000])), 1_900_000_000)
    assert.strictEqual(Users.lowestFree(new Set([1_900_000_000, 1_900_000_002])), 1_900_000_001)
  })

  it.live("one as whom something runs is not free, whatever the records say", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const launcher = helperPath(processes.hello.taprootPid, "launch")
      const process = yield* processes.spawn({
        label: "left over",
        argv: [launcher, "1900000777", "1900000777", "--", "sleep", "1000"],
        environment: { PATH: "/usr/bin:/bin" }
      })
      yield* eventually("the user to be taken", Users.running, (users) => users.has(1_900_000_777))
      yield* process.signal("SIGKILL")
      yield* process.exit
      yield* process.acknowledge
      assert.isFalse((yield* Users.running).has(1_900_000_777))
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )

  it.live("a record that cannot be read keeps its user", () =>
    Effect.gen(function* () {
      const path = join(yield* stateDirectory, "state.db")
      yield* Effect.gen(function* () {
        const state = yield* State.State
        const odd = yield* state.collection("vm", Schema.Struct({ user: Schema.Int, spec: Schema.String }))
        yield* odd.put("odd", { user: 1_900_000_000, spec: "of a later version" })
        assert.lengthOf((yield* (yield* Records.open(state)).partition).invalid, 1)
        assert.deepStrictEqual(yield* yield* Records.usersIn(state), [1_900_000_000])
      }).pipe(Effect.provide(Layer.fresh(State.layer({ path }))))
    }).pipe(Effect.scoped)
  )
})
