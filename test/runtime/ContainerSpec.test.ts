/** Specs: defaults, every wrong field named, stored and read back the same. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import { ContainerSpec, decodeContainerSpec, decodeSandboxSpec } from "../../src/runtime/ContainerSpec.ts"
import { SandboxSpec } from "../../src/runtime/SandboxSpec.ts"

describe("ContainerSpec", () => {
  it.effect("two words are enough, the rest has defaults", () =>
    Effect.gen(function* () {
      const spec = yield* decodeContainerSpec({ name: "web", image: "hello" })
      assert.strictEqual(Duration.toMillis(spec.stopGracePeriod), 10_000)
      assert.deepStrictEqual(spec.environment, {})
      assert.deepStrictEqual(spec.resources, {})
      assert.deepStrictEqual(spec.log, { maxBytes: 10_485_760, maxFiles: 3 })
      assert.strictEqual(spec.restart.restart, "permanent")
      assert.isFalse(spec.readonlyRootfs)
      assert.isUndefined(spec.command)
    })
  )

  it.effect("every wrong field is named with its path", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        decodeContainerSpec({
          name: "Not A Name",
          image: "",
          environment: { "A=B": "x", GOOD: 7 },
          command: ["ok", 5],
          workingDirectory: "relative",
          stopSignal: "SIGNOTHING",
          stopGracePeriod: -1,
          resources: { memoryBytes: 1, cpus: 0, pids: 0 },
          restart: { restart: "sometimes" },
          log: { maxFiles: 0 },
          colour: "blue"
        })
      )
      const fields = error.problems.map(({ field }) => field)
      for (const field of [
        "name",
        "image",
        "environment.GOOD",
        "command[1]",
        "workingDirectory",
        "stopSignal",
        "stopGracePeriod",
        "resources.memoryBytes",
        "resources.cpus",
        "resources.pids",
        "restart.restart",
        "log.maxFiles",
        "colour"
      ]) {
        assert.include(fields, field)
      }
      assert.isTrue(
        fields.some((field) => field.startsWith("environment") && field.includes("A=B")),
        fields.join(" ")
      )
      assert.isTrue(error.problems.every(({ problem }) => problem.length > 0))
      assert.match(error.message, /resources\.cpus: .*0\.01/)
    })
  )

  it.effect("what is no object at all is an error too", () =>
    Effect.gen(function* () {
      for (const input of [null, 7, "web", []]) {
        const error = yield* Effect.flip(decodeContainerSpec(input))
        assert.strictEqual(error._tag, "SpecInvalid")
      }
    })
  )

  it.effect("names are DNS labels", () =>
    Effect.gen(function* () {
      const accepts = (name: string) =>
        Effect.map(Effect.result(decodeSandboxSpec({ name })), ({ _tag }) => _tag === "Success")
      for (const name of ["a", "web-1", "0", "x".repeat(63)]) assert.isTrue(yield* accepts(name), name)
      for (const name of ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "ü", "a b", "a\n", "x".repeat(64)]) {
        assert.isFalse(yield* accepts(name), JSON.stringify(name))
      }
    })
  )

  // what is left out hardly any arbitrary value is one of
  const {
    devices: _,
    mounts: __,
    probes: ___,
    restart: ____,
    secrets: _____,
    stopGracePeriod: ______,
    ...fields
  } = ContainerSpec.fields
  const Given = Schema.Struct(fields)
  const codec = Schema.fromJsonString(ContainerSpec)
  it.effect.prop("stored as JSON and read back it is the same", { given: Given }, ({ given }) =>
    Effect.gen(function* () {
      // An endless duration fits the types but not what is decoded; the policy's own tests are about that.
      const spec = new ContainerSpec({
        ...given,
        mounts: [{ source: "/srv/data", target: "/data", readOnly: true, mapIds: true }],
        devices: [{ path: "/dev/fuse", access: "rw" }],
        secrets: [{ name: "token", target: "/etc/token" }],
        probes: {
          readiness: {
            http: { port: 80, path: "/healthz", host: "localhost", scheme: "https" },
            initialDelay: Duration.zero,
            period: Duration.seconds(10),
            timeout: Duration.millis(500),
            successThreshold: 2,
            failureThreshold: 3
          }
        },
        restart: RestartPolicy.workload,
        stopGracePeriod: Duration.seconds(3)
      })
      const json = yield* Schema.encodeEffect(codec)(spec)
      assert.deepStrictEqual(yield* Schema.decodeEffect(codec)(json), spec)
    })
  )

  it.effect("a sandbox has no network unless it says so", () =>
    Effect.map(decodeSandboxSpec({ name: "pod" }), (spec) =>
      assert.deepStrictEqual(spec, new SandboxSpec({ name: "pod", network: "none", labels: {} }))
    )
  )
})
