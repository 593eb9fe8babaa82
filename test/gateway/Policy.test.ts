/** Restart policies to protobuf and back, and the field that is named when one is wrong. */
import { create, fromBinary, fromJson, toBinary } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Proto from "../../proto/generated/ironwood/v1/policy_pb.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Policy from "../../src/gateway/Policy.ts"

/** Over the wire and back. */
const overTheWire = (policy: RestartPolicy.RestartPolicy) =>
  Policy.fromProto(
    fromBinary(
      Proto.RestartPolicySchema,
      toBinary(Proto.RestartPolicySchema, create(Proto.RestartPolicySchema, Policy.toProto(policy)))
    )
  )

/** A policy as plain values, durations in whole microseconds: the wire has nanoseconds, doubles of 10^12 ms do not. */
const plain = ({ backoff, budget, restart, whenSpent }: RestartPolicy.RestartPolicy) => {
  const micros = (duration: Duration.Duration | undefined) =>
    duration === undefined ? undefined : Math.round(Duration.toMillis(duration) * 1_000)
  return {
    restart,
    whenSpent,
    first: micros(backoff.first),
    initial: micros(backoff.initial),
    factor: backoff.factor,
    max: micros(backoff.max),
    jitter: backoff.jitter,
    resetAfter: micros(backoff.resetAfter),
    budget: budget && { restarts: budget.restarts, within: micros(budget.within) }
  }
}

const Milliseconds = Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1e12 })))
const some = Schema.optionalKey

/** Policies as they are stored: every field there or not. */
const Stored = Schema.Struct({
  restart: some(Schema.Literals(["permanent", "transient", "temporary"])),
  backoff: some(
    Schema.Struct({
      first: some(Milliseconds),
      initial: some(Milliseconds),
      factor: some(Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 1_000 })))),
      max: some(Milliseconds),
      jitter: some(Schema.Finite.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1 })))),
      resetAfter: some(Milliseconds)
    })
  ),
  budget: some(
    Schema.Struct({
      restarts: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }))),
      within: Milliseconds
    })
  ),
  whenSpent: some(Schema.Literals(["escalate", "park", "keep-trying"]))
})

const decode = Schema.decodeUnknownEffect(RestartPolicy.RestartPolicy)

describe("Policy", () => {
  it.effect.prop("a policy goes over the wire and comes back the same", { stored: Stored }, ({ stored }) =>
    Effect.gen(function* () {
      const policy = yield* decode(stored)
      assert.deepStrictEqual(plain(yield* overTheWire(policy)), plain(policy))
    })
  )

  it.effect("what is left out takes the domain's defaults", () =>
    Effect.gen(function* () {
      const workload = plain(RestartPolicy.workload)
      assert.deepStrictEqual(plain(yield* Policy.fromProto(undefined)), workload)
      const some = create(Proto.RestartPolicySchema, { backoff: { factor: 3 }, restart: Proto.RestartType.TRANSIENT })
      assert.deepStrictEqual(plain(yield* Policy.fromProto(some)), { ...workload, factor: 3, restart: "transient" })
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
})
