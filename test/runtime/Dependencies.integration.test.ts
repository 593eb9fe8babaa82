/** Containers of one sandbox that need each other, on a real OCI runtime. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { decodeSandboxSpec } from "../../src/runtime/ContainerSpec.ts"
import type { Containers } from "../../src/runtime/Containers.ts"
import { create, isAlive, until, withContainers } from "./world.ts"

const pod = (containers: Containers["Service"]) =>
  Effect.flatMap(decodeSandboxSpec({ name: "pod" }), containers.createSandbox)

const isWaitingFor =
  (name: string) => (container: { readonly node: { readonly waitingFor: ReadonlyArray<string> } | undefined }) =>
    container.node?.waitingFor.includes(name) === true

describe("containers that need each other", () => {
  it.live("b requires a: it ends before a is stopped, waits, and comes up again with a", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* pod(containers)
        yield* create(containers, { name: "a", sandbox: "pod" })
        const first = yield* create(containers, { name: "b", sandbox: "pod", requires: ["a"] })
        assert.strictEqual(first.state, "running")
        yield* containers.stop("a")
        const waiting = yield* until(containers, "b", isWaitingFor("a"))
        assert.deepInclude(waiting, { state: "waiting", desired: "running", pid: undefined })
        assert.isFalse(isAlive(first.pid))
        // a start, a restart and another that needs it are answered, not held up for ever
        assert.strictEqual((yield* containers.start("b")).state, "waiting")
        assert.strictEqual((yield* containers.restart("b")).state, "waiting")
        const third = yield* create(containers, { name: "c", sandbox: "pod", requires: ["b"] })
        assert.deepStrictEqual(third.node?.waitingFor, ["b"])
        yield* containers.stop("b")
        assert.deepInclude(yield* containers.get("b"), { state: "stopped", desired: "stopped" })
        assert.strictEqual((yield* containers.start("b")).state, "waiting")
        yield* containers.start("a")
        for (const name of ["b", "c"])
          yield* until(containers, name, ({ pid, state }) => state === "running" && isAlive(pid))
      })
    )
  )

  it.live("b is bound to a, which is killed: it ends too, and follows when a is back", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* pod(containers)
        const slow = { restart: { backoff: { initial: 300, jitter: 0 } } }
        yield* create(containers, { name: "a", sandbox: "pod", ...slow })
        const before = yield* create(containers, { name: "b", sandbox: "pod", bindsTo: ["a"] })
        const waits = yield* Effect.forkChild(until(containers, "b", isWaitingFor("a")))
        yield* containers.kill("a", "SIGKILL")
        const { node } = yield* Fiber.join(waits)
        assert.strictEqual(node?.entry?.because, "init/runtime/pod/a")
        const after = yield* until(
          containers,
          "b",
          ({ incarnation, state }) => state === "running" && incarnation === 2
        )
        assert.notStrictEqual(after.pid, before.pid)
        assert.deepInclude(yield* containers.get("a"), { state: "running", restarts: 1 })
      })
    )
  )

  it.live("names that cannot be needed are refused, and nothing is left of it", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* pod(containers)
        yield* create(containers, { name: "elsewhere" })
        const error = yield* Effect.flip(
          create(containers, { name: "b", sandbox: "pod", after: ["b"], requires: ["nobody"], bindsTo: ["elsewhere"] })
        )
        assert(error._tag === "SpecInvalid")
        assert.deepStrictEqual(
          error.problems.map(({ field }) => field),
          ["after[0]", "requires[0]", "bindsTo[0]"]
        )
        assert.strictEqual((yield* Effect.flip(containers.get("b")))._tag, "ContainerNotFound")
        // a sandbox alone is told as such, and with more all of it at once
        const nowhere = yield* Effect.flip(create(containers, { name: "b", sandbox: "none" }))
        assert.strictEqual(nowhere._tag, "SandboxNotFound")
        const lacking = yield* Effect.flip(
          create(containers, { name: "b", sandbox: "none", image: "no:image", after: ["ghost"] })
        )
        assert(lacking._tag === "SpecInvalid")
        assert.deepStrictEqual(
          lacking.problems.map(({ field }) => field),
          ["sandbox", "after[0]", "image"]
        )
        // what others need may go, and come back, but not needing them
        yield* create(containers, { name: "a", sandbox: "pod" })
        yield* create(containers, { name: "b", sandbox: "pod", requires: ["a"] })
        yield* containers.remove("a", { force: true })
        yield* until(containers, "b", isWaitingFor("a"))
        const circle = yield* Effect.flip(create(containers, { name: "a", sandbox: "pod", after: ["b"] }))
        assert.include(circle.message, "after[0]: goes round in a circle: a → b → a")
        yield* create(containers, { name: "a", sandbox: "pod" })
        yield* until(containers, "b", ({ state }) => state === "running")
      })
    )
  )
})
