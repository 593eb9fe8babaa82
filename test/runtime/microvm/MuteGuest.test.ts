/** A guest that says WELCOME and nothing more: whoever waits for it can leave, and its machine be ended. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { MicroVms } from "../../../src/runtime/microvm/MicroVms.ts"
import { SimulatedTaproot } from "../../../src/taproot/ProcessesRecording.ts"
import { withMuteGuest } from "./Guests.ts"

describe("a guest that is mute", () => {
  it.live(
    "does not keep those who wait for it, and is killed when it shall stop",
    () =>
      Effect.gen(function* () {
        const asked = yield* Deferred.make<void>()
        yield* Effect.gen(function* () {
          const microVms = yield* MicroVms
          const machine = yield* (yield* SimulatedTaproot).process("microvm/box")
          const finding = yield* Effect.forkChild(microVms.find("box"))
          yield* Deferred.await(asked)
          assert.deepStrictEqual(machine.signals, [])
          yield* Fiber.interrupt(finding).pipe(Effect.timeout("5 seconds"))
          yield* Effect.timeout(microVms.stop("box"), "10 seconds")
          assert.deepStrictEqual(machine.signals, ["SIGKILL"])
          assert.deepStrictEqual(yield* (yield* SimulatedTaproot).labels, [])
        }).pipe(Effect.provide(withMuteGuest(() => Deferred.doneUnsafe(asked, Exit.void))))
      }).pipe(Effect.scoped),
    30_000
  )

  it.live(
    "is ended while somebody is waiting for it and does not leave",
    () =>
      Effect.gen(function* () {
        const asked = yield* Deferred.make<void>()
        yield* Effect.gen(function* () {
          const microVms = yield* MicroVms
          const machine = yield* (yield* SimulatedTaproot).process("microvm/box")
          const finding = yield* Effect.forkChild(Effect.uninterruptible(microVms.find("box")))
          yield* Deferred.await(asked)
          yield* Effect.timeout(microVms.stop("box"), "10 seconds")
          assert.include(machine.signals, "SIGKILL")
          assert.deepStrictEqual(yield* Effect.timeout(Fiber.join(finding), "10 seconds"), Option.none())
        }).pipe(Effect.provide(withMuteGuest(() => Deferred.doneUnsafe(asked, Exit.void))))
      }).pipe(Effect.scoped),
    30_000
  )
})
