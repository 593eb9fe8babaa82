/** In which order, and in what time, the containers of a sandbox are stopped and started. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import { decodeContainerSpec, decodeSandboxSpec } from "../../src/runtime/ContainerSpec.ts"
import type { ContainerState } from "../../src/runtime/Lifecycle.ts"
import * as SandboxSteering from "../../src/runtime/SandboxSteering.ts"

const member = (name: string, state: ContainerState, fields: object = {}) =>
  Effect.map(decodeContainerSpec({ name, image: "a", ...fields }), (spec) => ({ spec, state }))

/** Setup, then a database, then two that need it. */
const pod = (states: { readonly setup: ContainerState; readonly others: ContainerState }) =>
  Effect.all([
    member("web", states.others, { requires: ["db"], stopGracePeriod: 4_000 }),
    member("worker", states.others, { after: ["db"] }),
    member("db", states.others, { afterSuccess: ["setup"], stopGracePeriod: 30_000 }),
    member("setup", states.setup, { restart: { restart: "transient" } })
  ])

describe("the containers of a sandbox", () => {
  it.effect("are ordered by what they need; a circle holds up nobody", () =>
    Effect.gen(function* () {
      const members = yield* pod({ setup: "running", others: "running" })
      assert.deepStrictEqual(SandboxSteering.waves(members), [["setup"], ["db"], ["web", "worker"]])
      const circle = [yield* member("a", "running", { after: ["b"] }), yield* member("b", "running", { after: ["a"] })]
      assert.deepStrictEqual(SandboxSteering.waves(circle), [["a", "b"]])
    })
  )

  it.effect("stop within one time: each wave has what the one before has left of it", () =>
    Effect.gen(function* () {
      const members = yield* pod({ setup: "finished", others: "running" })
      const calls: Array<string> = []
      yield* SandboxSteering.stop(members, Duration.seconds(10), {
        commit: (names) => Effect.sync(() => void calls.push(`commit ${names.join(" ")}`)),
        stop: (name, grace) =>
          Effect.andThen(
            Effect.sync(() => void calls.push(`${name} in ${Duration.format(grace)}`)),
            TestClock.adjust(name === "web" ? "7 seconds" : "1 second")
          )
      })
      assert.deepStrictEqual(calls, ["commit web worker db", "web in 10s", "worker in 10s", "db in 2s"])
    })
  )

  it.effect("have the time that is given, or the sandbox's, or the longest of theirs", () =>
    Effect.gen(function* () {
      const members = yield* pod({ setup: "finished", others: "running" })
      const plain = yield* decodeSandboxSpec({ name: "pod" })
      const limited = yield* decodeSandboxSpec({ name: "pod", stopGracePeriod: 6_000 })
      const seconds = (spec: typeof plain, given?: Duration.Duration) =>
        Duration.toSeconds(SandboxSteering.graceOf(spec, members, given))
      assert.deepStrictEqual([seconds(plain), seconds(limited), seconds(limited, Duration.zero)], [30, 6, 0])
    })
  )

  it.effect("start in order; what has finished only while nothing is up", () =>
    Effect.gen(function* () {
      const started = (members: ReadonlyArray<SandboxSteering.Member>) => {
        const names: Array<string> = []
        return Effect.as(
          SandboxSteering.start(members, (name) => Effect.sync(() => void names.push(name))),
          names
        )
      }
      const down = yield* started(yield* pod({ setup: "finished", others: "stopped" }))
      assert.deepStrictEqual(down, ["setup", "db", "web", "worker"])
      const [web, worker, db, setup] = yield* pod({ setup: "finished", others: "running" })
      assert.deepStrictEqual(yield* started([web, { ...worker, state: "stopped" }, db, setup]), ["worker"])
    })
  )
})
