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
        backoff: { initial: 100, factor: 2, max: 60_000, jitter: 0.2, resetAfter: 10_000 },
        whenSpent: "keep-trying"
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
})
