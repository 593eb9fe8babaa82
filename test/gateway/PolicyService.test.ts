/** Presets and the dry run as they are answered over gRPC. */
import { create, fromJson, toJson, type JsonValue } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import {
  ExplainedExitSchema,
  ExplainPolicyRequestSchema,
  ExplainPolicyResponseSchema
} from "../../proto/generated/ironwood/v1/policy_service_pb.ts"
import { explainPolicy, listPresets } from "../../src/gateway/PolicyService.ts"

const explain = (request: JsonValue) =>
  Effect.map(explainPolicy(fromJson(ExplainPolicyRequestSchema, request)), (answer) =>
    create(ExplainPolicyResponseSchema, answer)
  )

describe("ExplainPolicy", () => {
  it.effect("plays the exits through", () =>
    Effect.gen(function* () {
      const answer = yield* explain({
        policy: {
          backoff: { initial: "1s", jitter: 0.5 },
          rules: [{ on: { outOfMemory: true }, consecutive: 1, whenSpent: "WHEN_SPENT_PARK" }]
        },
        exits: [{ after: "0.5s", facts: { outOfMemory: true } }, { facts: { outOfMemory: true } }]
      })
      const { policy, steps, ...rest } = answer
      assert.deepInclude(rest, { summary: "parked until somebody starts it" })
      assert.strictEqual(policy?.restart, 1)
      assert.deepStrictEqual(
        steps.map((step) => toJson(ExplainedExitSchema, step)),
        [
          {
            at: "0.500s",
            run: 1,
            ranFor: "0.500s",
            exit: {
              tag: "ContainerOomKilled",
              message: "killed because memory was out",
              exitClass: "EXIT_CLASS_FAILURE",
              facts: { outOfMemory: true }
            },
            decision: "restart",
            reason: "it ended (ContainerOomKilled); rule 1 (out of memory), consecutive end number 1: restart in 1 s",
            rule: 1,
            delay: "1s",
            delayMin: "0.500s",
            delayMax: "1.500s",
            nextStart: "1.500s",
            consecutiveFailures: 1
          },
          {
            at: "1.500s",
            run: 2,
            ranFor: "0s",
            exit: {
              tag: "ContainerOomKilled",
              message: "killed because memory was out",
              exitClass: "EXIT_CLASS_FAILURE",
              facts: { outOfMemory: true }
            },
            decision: "park",
            reason:
              "it ended (ContainerOomKilled); rule 1 (out of memory): its one restart is used up: it is parked until somebody starts it",
            consecutiveFailures: 2
          }
        ]
      )
    })
  )

  it.effect("takes an exit for what its facts say", () =>
    Effect.gen(function* () {
      const { steps } = yield* explain({
        exits: [
          {},
          { facts: { exitCode: 0 } },
          { facts: { exitCode: 3 } },
          { facts: { signal: "SIGKILL" } },
          { facts: { probe: "liveness" } },
          { tag: "ImageMissing" },
          { exitClass: "EXIT_CLASS_DEFECT", tag: "TypeError" },
          { exitClass: "EXIT_CLASS_INTERRUPTED" },
          { exitClass: "EXIT_CLASS_NOT_STARTED", beforeReady: true }
        ]
      })
      assert.deepStrictEqual(
        steps.map(({ exit }) => [exit?.exitClass, exit?.tag]),
        [
          [1, "Normal"],
          [1, "Normal"],
          [2, "ContainerExited"],
          [2, "ContainerSignaled"],
          [2, "ProbeFailed"],
          [2, "ImageMissing"],
          [3, "TypeError"],
          [4, "Interrupted"],
          [5, "StartTimeout"]
        ]
      )
    })
  )

  it.effect("counts against the supervisor's intensity", () =>
    Effect.gen(function* () {
      const { state, steps } = yield* explain({
        policy: { preset: "permanent" },
        intensity: { restarts: 1, within: "5s" },
        exits: [{ after: "1s" }, { after: "1s" }]
      })
      assert.deepStrictEqual(
        steps.map(({ decision }) => decision),
        ["restart", "escalate"]
      )
      assert.strictEqual(state, 9)
    })
  )

  it.effect("names every field that is wrong", () =>
    Effect.gen(function* () {
      const fieldsOf = (request: JsonValue) =>
        Effect.map(Effect.flip(explain(request)), ({ violations }) => violations.map(({ field }) => field))
      assert.deepStrictEqual(yield* fieldsOf({ policy: { preset: "nomad" } }), ["policy.preset"])
      assert.deepStrictEqual(yield* fieldsOf({ intensity: { restarts: 1 } }), ["intensity.within"])
      assert.deepStrictEqual(
        yield* fieldsOf({
          exits: [
            { after: "-1s" },
            { facts: { exitCode: 256, signal: "kill", probe: "p".repeat(201) } },
            { exitClass: 77, tag: "t".repeat(201) }
          ]
        }),
        [
          "exits[0].after",
          "exits[1].facts.exit_code",
          "exits[1].facts.signal",
          "exits[1].facts.probe",
          "exits[2].exit_class",
          "exits[2].tag"
        ]
      )
      assert.deepStrictEqual(yield* fieldsOf({ exits: Array.from({ length: 1_001 }, () => ({})) }), ["exits"])
    })
  )
})

it("ListPresets tells what each does", () => {
  const { presets = [] } = listPresets()
  assert.includeMembers(
    presets.map(({ name }) => name),
    ["permanent", "on-failure", "kubernetes", "systemd", "docker"]
  )
  for (const { description, policy } of presets) {
    assert.isNotEmpty(description)
    assert.isDefined(policy?.backoff)
  }
})
