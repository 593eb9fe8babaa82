/** What microVMs leave: cleared away with what all share, and of those that are gone; and users, which no two share. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { spawn } from "node:child_process"
import { mkdirSync, readdirSync } from "node:fs"
import { decodeSandboxSpec } from "../../../src/runtime/ContainerSpec.ts"
import { MicroVms } from "../../../src/runtime/microvm/MicroVms.ts"
import * as Users from "../../../src/runtime/microvm/Users.ts"
import * as Records from "../../../src/runtime/Records.ts"
import { Systems } from "../../../src/runtime/System.ts"
import * as State from "../../../src/storage/State.ts"
import { SimulatedTaproot } from "../../../src/taproot/ProcessesRecording.ts"
import { stateDirectory } from "../world.ts"
import { withMuteGuest } from "./Guests.ts"

describe("what microVMs leave", () => {
  it.live("goes when its machine is gone, and with its sandbox", () => {
    const removed: Array<string> = []
    return Effect.gen(function* () {
      const microVms = yield* MicroVms
      const { paths } = yield* Systems
      for (const name of ["gone", "gone.log", "box.log"]) mkdirSync(`${paths.microvms}/${name}`)
      yield* microVms.reconcile(new Set(["box", "gone"]))
      assert.deepStrictEqual(readdirSync(paths.microvms).toSorted(), ["box", "box.log", "gone.log"])
      assert.deepStrictEqual(removed, [`${paths.cgroup}.microvms/gone`])
      assert.deepStrictEqual((yield* (yield* SimulatedTaproot).process("microvm/box")).signals, [])
      yield* microVms.reconcile(new Set())
      assert.deepStrictEqual(readdirSync(paths.microvms), [])
      assert.include(removed, `${paths.cgroup}.microvms/box`)
      assert.deepStrictEqual(yield* (yield* SimulatedTaproot).labels, [])
      yield* microVms.forgetAll
      assert.strictEqual(removed.at(-1), `${paths.cgroup}.microvms`)
    }).pipe(Effect.provide(withMuteGuest(() => {}, removed)), Effect.scoped)
  })

  it.live("a sandbox has a user that no other has, and keeps it", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      yield* Effect.gen(function* () {
        const records = yield* Records.open(yield* State.State)
        const names = ["one", "two", "three", "four"]
        for (const name of names) {
          const spec = yield* decodeSandboxSpec({ name, isolation: "microvm" })
          yield* records.sandboxes.put(name, { spec, implicit: false })
        }
        const users = yield* Effect.forEach(names, (name) => Users.userOf(records, name), { concurrency: "unbounded" })
        assert.strictEqual(new Set(users).size, names.length)
        assert.strictEqual(yield* Users.userOf(records, "two"), users[1])
        // what the kernel could not end, or another Ironwood's
        const stranger = yield* Effect.acquireRelease(
          Effect.sync(() => spawn("sleep", ["1000"], { uid: users[1], stdio: "ignore" })),
          (stranger) => Effect.sync(() => stranger.kill("SIGKILL"))
        )
        assert.isNumber(stranger.pid)
        const other = yield* Users.userOf(records, "two")
        assert.notInclude(users, other)
        assert.strictEqual(yield* Users.userOf(records, "two"), other)
        assert.propertyVal(yield* Effect.flip(Users.userOf(records, "six")), "_tag", "MicroVmFailed")
      }).pipe(Effect.provide(State.layer({ path: `${state}/state.db` }).pipe(Layer.fresh)))
    }).pipe(Effect.scoped)
  )
})
