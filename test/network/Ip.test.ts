/** The kernel's links are set up by `ip`, which may hang in the kernel. */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import { ip } from "../../src/network/links/Ip.ts"
import * as ProcessesRecording from "../../src/taproot/ProcessesRecording.ts"

it.effect("an `ip` that hangs fails its link, with what was asked", () =>
  Effect.gen(function* () {
    const asking = yield* Effect.forkChild(Effect.flip(ip("uplink", "link", "set", "eth0", "up")))
    const taproot = yield* ProcessesRecording.SimulatedTaproot
    yield* taproot.process("ip:uplink")
    yield* TestClock.adjust("1 minute")
    const { message, reason } = yield* Fiber.join(asking)
    assert.strictEqual(message, "link uplink: `ip link set eth0 up` did not end within 10 seconds")
    assert.strictEqual(reason, "command-failed")
  }).pipe(Effect.provide(ProcessesRecording.layer()))
)
