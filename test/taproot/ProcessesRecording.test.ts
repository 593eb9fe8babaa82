/** The simulated taproot does what a test tells it, and writes down what it was asked. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Processes } from "../../src/taproot/Processes.ts"
import * as ProcessesRecording from "../../src/taproot/ProcessesRecording.ts"

const { SimulatedTaproot } = ProcessesRecording

describe("ProcessesRecording", () => {
  it.effect("answers commands as it was told to", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const state = yield* processes.run({ label: "helper", argv: ["crun", "state", "a"] })
      assert.deepInclude(state.exit, { _tag: "Exited", code: 1 })
      assert.strictEqual(Buffer.from(state.stdout).toString(), "{}")
      assert.strictEqual(Buffer.from(state.stderr).toString(), "not found")
      const missing = yield* processes.run({ label: "helper", argv: ["runc"] })
      assert.deepInclude(missing.exit, { _tag: "NotExecuted", stage: "exec", errno: 2 })
      const refused = yield* Effect.flip(processes.run({ label: "helper", argv: ["too", "much"] }))
      assert.deepInclude(refused, { _tag: "SpawnRefused", reason: "table-full", label: "helper" })
      const { labels, spawns } = yield* SimulatedTaproot
      assert.deepStrictEqual(
        spawns.map(({ argv }) => argv[0]),
        ["crun", "runc", "too"]
      )
      yield* processes.status
      assert.deepStrictEqual(yield* labels, [])
    }).pipe(
      Effect.provide(
        ProcessesRecording.layer({
          answer: ({ argv }) =>
            argv[0] === "crun"
              ? { _tag: "Ends", code: 1, stdout: "{}", stderr: "not found" }
              : argv[0] === "runc"
                ? { _tag: "Ends", stage: "exec", errno: 2 }
                : { _tag: "Refused", reason: "table-full" }
        })
      )
    )
  )

  it.effect("a process runs until the test or a signal ends it", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const taproot = yield* SimulatedTaproot
      const awaited = yield* Effect.forkChild(taproot.process("late"))
      const late = yield* processes.spawn({ label: "late", argv: ["late"] })
      const simulated = yield* Fiber.join(awaited)
      assert.strictEqual(simulated.pid, late.pid)
      yield* late.signal("SIGWINCH")
      yield* late.signal("SIGTERM")
      assert.deepInclude(yield* late.exit, { _tag: "Signaled", signal: "SIGTERM" })
      assert.deepStrictEqual(simulated.signals, ["SIGWINCH", "SIGTERM"])
      const other = yield* processes.spawn({ label: "other", argv: ["other"] })
      yield* (yield* taproot.process("other")).end({ signal: "SIGSEGV", coreDumped: true })
      assert.deepInclude(yield* other.exit, { _tag: "Signaled", signal: "SIGSEGV", coreDumped: true })
    }).pipe(Effect.provide(ProcessesRecording.layer()))
  )

  it.effect("is told to stop, and hears when the brain is done", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const taproot = yield* SimulatedTaproot
      yield* taproot.stop({ why: "power-button", action: "power-off" })
      const request = yield* processes.stopRequested
      assert.deepStrictEqual(request, { why: "power-button", action: "power-off", deadlineMillis: 60_000 })
      yield* processes.finish(request.action)
      assert.strictEqual(yield* taproot.shutdown, "power-off")
      assert.deepInclude(yield* processes.lost, { _tag: "ChannelLost", reason: "closed" })
    }).pipe(Effect.provide(ProcessesRecording.layer()))
  )

  it.effect("refuses mounts as it was told to, and vanishes", () =>
    Effect.gen(function* () {
      const processes = yield* Processes
      const mount = { source: "overlay", target: "/rootfs", type: "overlay", data: "lowerdir=a" }
      const failed = yield* Effect.flip(processes.mount(mount))
      assert.deepInclude(failed, { _tag: "MountFailed", errno: 28 })
      assert.include(failed.message, "ENOSPC")
      yield* processes.unmount("/rootfs")
      const { frames, vanish } = yield* SimulatedTaproot
      assert.deepInclude(frames[1], { _tag: "Mount", target: "/rootfs", flags: 0n, directory: "" })
      yield* vanish
      assert.deepInclude(yield* processes.lost, { _tag: "ChannelLost", reason: "closed" })
    }).pipe(
      Effect.provide(
        ProcessesRecording.layer({
          answerOther: ({ _tag }) =>
            _tag === "Mount" ? { _tag: "Refused", reason: "system-call", errno: 28 } : { _tag: "Done" }
        })
      )
    )
  )
})
