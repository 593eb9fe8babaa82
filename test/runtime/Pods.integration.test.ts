/** Sandboxes with several containers on a real OCI runtime: what they share, init containers, one stop for all. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { decodeSandboxSpec } from "../../src/runtime/ContainerSpec.ts"
import type { Containers } from "../../src/runtime/Containers.ts"
import { sandboxPath } from "../../src/runtime/RuntimeSupervisor.ts"
import { create, isAlive, logText, shell, until, withContainers } from "./world.ts"

const pod = (containers: Containers["Service"], fields: object = {}) =>
  Effect.flatMap(decodeSandboxSpec({ name: "pod", ...fields }), containers.createSandbox)

/** What a script in a running container writes. */
const run = (containers: Containers["Service"], name: string, script: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { output } = yield* containers.exec(name, {
        command: shell(script),
        environment: {},
        stdin: false,
        detach: false
      })
      return yield* Stream.mkString(Stream.decodeText(output("stdout")))
    })
  )

const everyRuntime = ["crun", "runc"] as const

describe("containers of one sandbox", () => {
  for (const runtime of everyRuntime) {
    it.live(`share network, IPC and memory, also with a later run, and not their processes (${runtime})`, () =>
      withContainers(
        ({ containers }) =>
          Effect.gen(function* () {
            yield* pod(containers)
            yield* create(containers, { name: "a", sandbox: "pod" })
            yield* create(containers, { name: "b", sandbox: "pod" })
            const namespaces = "ls -l /proc/self/ns | while read -r line; do echo ${line##* }; done"
            const kinds = ["ipc", "net"]
            const of = (name: string) =>
              Effect.map(run(containers, name, namespaces), (text) => {
                const all = text.split("\n").filter((line) => line.includes(":["))
                return { shared: all.filter((line) => kinds.includes(line.split(":")[0] ?? "")), all }
              })
            const [one, other] = [yield* of("a"), yield* of("b")]
            assert.strictEqual(one.shared.length, 2)
            assert.deepStrictEqual(one.shared, other.shared)
            assert.notDeepEqual(one.all, other.all)
            yield* run(containers, "a", "echo kept > /dev/shm/word")
            const { pid } = yield* containers.get("a")
            yield* containers.restart("a")
            const again = yield* until(containers, "a", (seen) => seen.state === "running" && seen.pid !== pid)
            assert.isTrue(isAlive(again.pid))
            assert.deepStrictEqual((yield* of("a")).shared, other.shared)
            assert.strictEqual(yield* run(containers, "b", "cat /dev/shm/word"), "kept\n")
            assert.notInclude(yield* run(containers, "b", "ls -d /proc/[0-9]*"), `/proc/${again.pid}`)
          }),
        { candidates: [runtime] }
      )
    )

    it.live(`can share their processes, whoever of them ends (${runtime})`, () =>
      withContainers(
        ({ containers }) =>
          Effect.gen(function* () {
            yield* pod(containers, { processes: "shared" })
            yield* create(containers, { name: "a", sandbox: "pod", command: ["/bin/sleep", "11111"] })
            const first = yield* create(containers, { name: "b", sandbox: "pod", command: ["/bin/sleep", "22222"] })
            const seen = (name: string) => run(containers, name, "cat /proc/[0-9]*/cmdline")
            const fromA = yield* seen("a")
            for (const words of ["/dev/init", "11111", "22222"]) assert.include(fromA, words)
            yield* containers.kill("a", "SIGKILL")
            yield* until(containers, "a", ({ incarnation, state }) => incarnation === 2 && state === "running")
            assert.strictEqual((yield* containers.get("b")).pid, first.pid)
            assert.include(yield* seen("b"), "11111")
          }),
        { candidates: [runtime] }
      )
    )
  }
})

describe("init containers", () => {
  it.live("run one after another, are tried until they succeed, and the others start then", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* pod(containers)
        const restart = { restart: "transient", backoff: { initial: 50, max: 50 } }
        const once = "[ -e /dev/shm/tried ] && echo first >> /dev/shm/order && exit 0; touch /dev/shm/tried; exit 3"
        yield* create(containers, { name: "first", sandbox: "pod", restart, command: shell(once) })
        const second = shell("echo second >> /dev/shm/order")
        yield* create(containers, { name: "second", sandbox: "pod", restart, command: second, afterSuccess: ["first"] })
        yield* create(containers, { name: "app", sandbox: "pod", afterSuccess: ["second"] })
        yield* until(containers, "app", ({ state }) => state === "running")
        assert.strictEqual(yield* run(containers, "app", "cat /dev/shm/order"), "first\nsecond\n")
        const { lastExit, restarts, state } = yield* containers.get("first")
        assert.deepStrictEqual([state, restarts, lastExit?.class], ["finished", 1, "normal"])
        // a crash of the app is no reason to run them again
        yield* containers.kill("app", "SIGKILL")
        yield* until(containers, "app", ({ incarnation, state }) => incarnation === 2 && state === "running")
        assert.strictEqual((yield* containers.get("second")).incarnation, 1)
      })
    )
  )

  it.live("that fail for good hold the others up, which say for whom they wait", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* pod(containers)
        yield* create(containers, {
          name: "setup",
          sandbox: "pod",
          restart: { restart: "temporary" },
          command: shell("exit 3")
        })
        const app = yield* create(containers, { name: "app", sandbox: "pod", afterSuccess: ["setup"] })
        assert.deepStrictEqual([app.state, app.node?.waitingFor], ["waiting", ["setup"]])
        yield* until(containers, "setup", ({ state }) => state === "failed")
        assert.strictEqual((yield* containers.get("app")).state, "waiting")
        const refused = yield* Effect.flip(create(containers, { name: "b", sandbox: "pod", afterSuccess: ["app"] }))
        assert.include(refused.message, "never finishes")
      })
    )
  )

  it.live("run again in each life of their sandbox", () =>
    withContainers(({ containers, root }) =>
      Effect.gen(function* () {
        yield* pod(containers)
        const setup = { name: "setup", sandbox: "pod", restart: { restart: "transient" } }
        yield* create(containers, { ...setup, command: shell("echo ran") })
        yield* create(containers, { name: "app", sandbox: "pod", afterSuccess: ["setup"] })
        yield* until(containers, "app", ({ state }) => state === "running")
        yield* root.tree.restart(sandboxPath("pod"))
        yield* until(containers, "app", ({ state }) => state === "running")
        assert.strictEqual(yield* logText(containers, "setup"), "ran\nran\n")
        yield* containers.stopSandbox("pod")
        assert.deepStrictEqual(
          (yield* containers.list).map(({ state }) => state),
          ["stopped", "finished"]
        )
        yield* containers.startSandbox("pod")
        yield* until(containers, "app", ({ state }) => state === "running")
        assert.strictEqual(yield* logText(containers, "setup"), "ran\nran\nran\n")
      })
    )
  )
})

describe("a stop of a sandbox", () => {
  it.live("ends those that need others first, and kills the rest when the time of all is over", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* pod(containers)
        const stopped = "trap 'echo stopped; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
        const stubborn = shell("trap '' TERM; echo ready; while :; do sleep 0.02; done")
        const hour = { stopGracePeriod: 3_600_000, sandbox: "pod" }
        yield* create(containers, { name: "db", command: shell(stopped), ...hour })
        yield* create(containers, { name: "web", command: stubborn, after: ["db"], ...hour })
        for (const name of ["db", "web"]) {
          while (!(yield* logText(containers, name)).includes("ready")) yield* Effect.sleep("5 millis")
        }
        yield* containers.stopSandbox("pod", { gracePeriod: Duration.millis(300) })
        const [db, web] = yield* containers.list
        assert.deepStrictEqual(
          [db?.desired, db?.state, web?.desired, web?.state],
          ["stopped", "stopped", "stopped", "stopped"]
        )
        // nothing of the time was left for the second one
        assert.deepStrictEqual([db?.lastExit?.facts?.signal, web?.lastExit?.facts?.signal], ["SIGKILL", "SIGKILL"])
      })
    )
  )
})
