/** Restart policies to protobuf and back, and the field that is named when one is wrong. */
import { create, fromBinary, fromJson, type JsonValue, toBinary } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Proto from "../../proto/generated/ironwood/v1/policy_pb.ts"
import { Curve } from "../../src/actor/Backoff.ts"
import { ExitClass } from "../../src/actor/ExitView.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import { presets } from "../../src/actor/RestartPreset.ts"
import * as RestartRule from "../../src/actor/RestartRule.ts"
import * as Policy from "../../src/gateway/Policy.ts"

/** Over the wire and back. */
const overTheWire = (policy: RestartPolicy.RestartPolicy) =>
  Policy.fromProto(
    fromBinary(
      Proto.RestartPolicySchema,
      toBinary(Proto.RestartPolicySchema, create(Proto.RestartPolicySchema, Policy.toProto(policy)))
    )
  )

const encode = Schema.encodeSync(RestartPolicy.RestartPolicy)
const durations = new Set(["first", "initial", "max", "resetAfter", "within"])

/** A policy as it is stored, durations in whole microseconds: the wire has nanoseconds, doubles of 10^12 ms do not. */
const plain = (policy: RestartPolicy.RestartPolicy): unknown =>
  JSON.parse(
    JSON.stringify(encode(policy), (key, value: unknown) =>
      typeof value === "number" && durations.has(key) ? Math.round(value * 1_000) : value
    )
  )

const between = (minimum: number, maximum: number) =>
  Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const whole = (minimum: number, maximum: number) =>
  Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum, maximum })))
const Milliseconds = between(0, 1e12)
const some = Schema.optionalKey
const few = <S extends Schema.Top>(member: S) =>
  some(Schema.Array(member).pipe(Schema.check(Schema.isBetweenLength(1, 3))))

const StoredBackoff = Schema.Struct({
  first: some(Milliseconds),
  initial: some(Milliseconds),
  curve: some(Curve),
  factor: some(between(1, 1_000)),
  max: some(Milliseconds),
  jitter: some(between(0, 1)),
  resetAfter: some(Milliseconds)
})

/** Policies as they are stored: every field there or not. */
const Stored = Schema.Struct({
  restart: some(RestartPolicy.RestartType),
  backoff: some(StoredBackoff),
  budget: some(
    Schema.Struct({ restarts: whole(0, 100_000), within: Milliseconds, window: some(RestartPolicy.Window) })
  ),
  maxConsecutive: some(whole(1, 100_000)),
  rules: some(
    Schema.Array(
      Schema.Struct({
        on: Schema.Struct({
          tags: few(Schema.Literals(["ImageMissing", "RootfsFailed", "Überlauf"])),
          classes: few(ExitClass),
          exitCodes: few(whole(0, 255)),
          signals: few(Schema.Literals(["SIGKILL", "SIGRTMIN+3"])),
          outOfMemory: some(Schema.Boolean),
          probeFailed: some(Schema.Boolean)
        }),
        then: some(RestartRule.Then),
        counts: some(Schema.Boolean),
        backoff: some(StoredBackoff),
        consecutive: some(whole(1, 100_000)),
        whenSpent: some(RestartRule.WhenSpent)
      })
    ).pipe(Schema.check(Schema.isMaxLength(4)))
  ),
  whenSpent: some(RestartRule.WhenSpent),
  rememberStop: some(Schema.Boolean)
})

/** The same without what contradicts itself. */
const consistent = ({ rules = [], ...stored }: typeof Stored.Type) => {
  const right = rules
    .filter(({ on }) => Object.keys(on).length > 0)
    .map(({ consecutive, whenSpent, ...rule }) =>
      consecutive === undefined || (rule.then ?? "restart") !== "restart"
        ? rule
        : { ...rule, consecutive, ...(whenSpent === undefined ? {} : { whenSpent }) }
    )
  const words = [stored.whenSpent, ...right.flatMap((rule) => [rule.then, "whenSpent" in rule ? rule.whenSpent : ""])]
  return { ...stored, rules: right, ...(words.includes("fallback") ? { fallback: "spare" } : {}) }
}

const decode = Schema.decodeUnknownEffect(RestartPolicy.RestartPolicy)

describe("Policy", () => {
  it.effect.prop("a policy goes over the wire and comes back the same", { stored: Stored }, ({ stored }) =>
    Effect.gen(function* () {
      const policy = yield* decode(consistent(stored))
      assert.deepStrictEqual(plain(yield* overTheWire(policy)), plain(policy))
    })
  )

  it.effect("what is left out takes the domain's defaults", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(plain(yield* Policy.fromProto(undefined)), plain(RestartPolicy.workload))
      const some = create(Proto.RestartPolicySchema, { backoff: { factor: 3 }, restart: Proto.RestartType.TRANSIENT })
      assert.deepStrictEqual(
        plain(yield* Policy.fromProto(some)),
        plain(RestartPolicy.make({ restart: "transient", backoff: { factor: 3 } }))
      )
    })
  )

  it.effect("all that is wrong is told, by the names of the request", () =>
    Effect.gen(function* () {
      const wrong = fromJson(Proto.RestartPolicySchema, {
        restart: 9,
        backoff: { initial: "-1s", jitter: 2 },
        budget: { restarts: 1_000_000 }
      })
      const { violations } = yield* Effect.flip(Policy.fromProto(wrong))
      assert.deepStrictEqual(
        violations.map(({ field }) => field),
        [
          "policy.restart",
          "policy.backoff.initial",
          "policy.backoff.jitter",
          "policy.budget.restarts",
          "policy.budget.within"
        ]
      )
    })
  )

  it.effect("a preset fills in what is left out, and never comes back", () =>
    Effect.gen(function* () {
      const said = fromJson(Proto.RestartPolicySchema, { preset: "kubernetes", backoff: { max: "60s" } })
      const policy = yield* Policy.fromProto(said)
      assert.deepStrictEqual(
        plain(policy),
        plain(RestartPolicy.make({ backoff: { max: "1 minute" } }, presets.kubernetes.policy))
      )
      assert.isUndefined(Policy.toProto(policy).preset)
      const { violations } = yield* Effect.flip(
        Policy.fromProto(fromJson(Proto.RestartPolicySchema, { preset: "kubernets" }))
      )
      assert.strictEqual(violations[0]?.field, "policy.preset")
      assert.include(violations[0]?.description, "kubernetes")
    })
  )

  it.effect("a rule's back-off takes the policy's values, but for the first delay", () =>
    Effect.gen(function* () {
      const said = fromJson(Proto.RestartPolicySchema, {
        backoff: { first: "0s", initial: "2s", factor: 3 },
        rules: [{ on: { outOfMemory: true }, backoff: { max: "9s" } }]
      })
      const { rules } = yield* Policy.fromProto(said)
      const backoff = rules[0]?.backoff
      assert.deepInclude(backoff, { factor: 3, curve: "exponential" })
      assert.strictEqual(Duration.toMillis(backoff?.initial ?? 0), 2_000)
      assert.strictEqual(Duration.toMillis(backoff?.max ?? 0), 9_000)
      assert.isUndefined(backoff?.first)
    })
  )

  it.effect("what is wrong in a rule is told by its place", () =>
    Effect.gen(function* () {
      const wrong = fromJson(Proto.RestartPolicySchema, {
        rules: [
          { on: {} },
          { then: "RULE_ACTION_PARK" },
          { on: { exitCodes: [1, 300], classes: [0], signals: ["kill"] } }
        ],
        maxConsecutive: 0
      })
      const { violations } = yield* Effect.flip(Policy.fromProto(wrong))
      assert.deepStrictEqual(
        violations.map(({ field }) => field),
        [
          "policy.rules[0].on",
          "policy.rules[1].on",
          "policy.rules[2].on.classes[0]",
          "policy.rules[2].on.exit_codes[1]",
          "policy.rules[2].on.signals[0]",
          "policy.max_consecutive"
        ]
      )
      // What contradicts itself is told when every field by itself is right.
      const contradictions: ReadonlyArray<readonly [JsonValue, string]> = [
        [{ whenSpent: "WHEN_SPENT_FALLBACK" }, "policy.fallback"],
        [
          { rules: [{ on: { outOfMemory: true }, then: "RULE_ACTION_PARK", consecutive: 1 }] },
          "policy.rules[0].consecutive"
        ]
      ]
      for (const [policy, field] of contradictions) {
        const { violations } = yield* Effect.flip(Policy.fromProto(fromJson(Proto.RestartPolicySchema, policy)))
        assert.deepStrictEqual(
          violations.map(({ field }) => field),
          [field]
        )
      }
    })
  )
})
