/** A policy as a schema: defaults, presets, bounds, and the way to JSON and back. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"

const json = Schema.fromJsonString(RestartPolicy.RestartPolicy)

describe("a restart policy in the stored desired state", () => {
  it.effect("has good defaults for everything", () =>
    Effect.gen(function* () {
      const policy = yield* Schema.decodeEffect(json)("{}")
      assert.deepStrictEqual(yield* Schema.encodeEffect(RestartPolicy.RestartPolicy)(policy), {
        restart: "permanent",
        rules: [],
        backoff: { initial: 100, curve: "exponential", factor: 2, max: 60_000, jitter: 0.2, resetAfter: 10_000 },
        whenSpent: "keep-trying",
        rememberStop: true
      })
    })
  )
  it.effect("comes back as it went", () =>
    Effect.gen(function* () {
      const policies = [
        RestartPolicy.infrastructure,
        RestartPolicy.transient,
        RestartPolicy.make({
          restart: "transient",
          backoff: { first: "1 second", initial: 5, factor: 1.5, max: "3 minutes", jitter: 1, resetAfter: "1 hour" },
          budget: { restarts: 5, within: "10 minutes" },
          whenSpent: "park"
        }),
        RestartPolicy.make({
          restart: "on-success",
          rules: [
            { on: { outOfMemory: true }, consecutive: 3, whenSpent: "park" },
            { on: { tags: ["ImageMissing"] }, backoff: { initial: "10 seconds", curve: "fibonacci" }, counts: false },
            { on: { exitCodes: [78], signals: ["SIGTERM"] }, then: "fallback" }
          ],
          budget: { restarts: 5, within: "10 seconds", window: "tumbling" },
          maxConsecutive: 9,
          fallback: "spare",
          rememberStop: false
        })
      ]
      for (const policy of policies) {
        const stored = yield* Schema.encodeEffect(json)(policy)
        assert.deepStrictEqual(yield* Schema.decodeEffect(json)(stored), policy)
      }
    })
  )
  it.effect("names every wrong field", () =>
    Effect.gen(function* () {
      const wrong = { restart: "sometimes", backoff: { factor: 0.5, jitter: 2 }, budget: { restarts: -1, within: -5 } }
      const decode = Schema.decodeUnknownEffect(RestartPolicy.RestartPolicy, { errors: "all" })
      const { message } = yield* Effect.flip(decode(wrong))
      for (const path of ['["restart"]', '["factor"]', '["jitter"]', '["restarts"]', '["within"]']) {
        assert.include(message, path)
      }
    })
  )
  it.effect("refuses what says nothing or contradicts itself, by its field", () =>
    Effect.gen(function* () {
      const decode = Schema.decodeUnknownEffect(RestartPolicy.RestartPolicy, { errors: "all" })
      const wrong: ReadonlyArray<readonly [unknown, string, string]> = [
        [{ rules: [{ on: {} }] }, '["rules"][0]["on"]', "says nothing"],
        [{ rules: [{ on: { tags: [] } }] }, '["rules"][0]["on"]["tags"]', "1 to 256"],
        [{ rules: [{ on: { exitCodes: [256] } }] }, '["rules"][0]["on"]["exitCodes"][0]', "0 to 255"],
        [{ rules: [{ on: { signals: ["kill"] } }] }, '["rules"][0]["on"]["signals"][0]', "such as SIGKILL"],
        [
          { rules: [{ on: { outOfMemory: true }, then: "park", consecutive: 2 }] },
          '["rules"][0]["consecutive"]',
          "does not restart"
        ],
        [
          { rules: [{ on: { outOfMemory: true }, whenSpent: "park" }] },
          '["rules"][0]["whenSpent"]',
          "which is not set"
        ],
        [{ rules: Array.from({ length: 33 }, () => ({ on: { outOfMemory: true } })) }, '["rules"]', "at most 32 rules"],
        [{ whenSpent: "fallback" }, '["fallback"]', "must be set"],
        [{ rules: [{ on: { outOfMemory: true }, then: "fallback" }] }, '["fallback"]', "must be set"],
        [{ fallback: "spare" }, '["fallback"]', "is started by nothing"],
        [{ whenSpent: "fallback", fallback: "a/b" }, '["fallback"]', "the id of a sibling"],
        [{ maxConsecutive: 0 }, '["maxConsecutive"]', "1 to 100000"]
      ]
      for (const [policy, path, words] of wrong) {
        const { message } = yield* Effect.flip(decode(policy))
        assert.include(message, path)
        assert.include(message, words)
      }
    })
  )
})
