/** When probes are tried and what follows, under a clock of the test's own. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Clock from "effect/Clock"
import { TestClock } from "effect/testing"
import { type Check, Unwell, watch } from "../../src/runtime/Probes.ts"
import { ProbesSpec } from "../../src/runtime/ProbeSpec.ts"

const decode = Schema.decodeUnknownSync(ProbesSpec, { onExcessProperty: "error" })

/** Watches with tries that take `takes` milliseconds and answer what `answer` says at that second. */
const begin = Effect.fnUntraced(function* (
  probes: unknown,
  answer: (second: number, port: number) => boolean,
  options: { readonly takes?: number; readonly age?: number } = {}
) {
  const tried: Array<string> = []
  const told: Array<string> = []
  const seconds = Effect.map(Clock.currentTimeMillis, (now) => now / 1000)
  const check: Check = (probe) =>
    Effect.gen(function* () {
      const now = yield* seconds
      const port = probe.tcp?.port ?? 0
      tried.push(`${port}@${now}`)
      yield* Effect.sleep(options.takes ?? 0)
      if (!answer(now, port)) return yield* new Unwell({ why: "no" })
    })
  const fiber = yield* Effect.forkChild(
    watch({
      name: "web",
      spec: decode(probes),
      check,
      awake: Effect.void,
      age: options.age ?? 0,
      ready: (ready, why) =>
        Effect.map(seconds, (now) => void told.push(`${ready ? "ready" : `unready (${why})`}@${now}`))
    })
  )
  return { tried, told, fiber, failure: Effect.flip(Fiber.join(fiber)) }
})

const tcp = (port: number, fields: object = {}) => ({ tcp: { port }, ...fields })

describe("probes", () => {
  it.effect("liveness: as many failures in a row as it takes, a period apart from start to start", () =>
    Effect.gen(function* () {
      const probes = { liveness: tcp(1, { period: 2_000, initialDelay: 3_000, failureThreshold: 3 }) }
      // well but for 5 s, and from 11 s on
      const { failure, tried } = yield* begin(probes, (now) => now !== 5 && now < 11, { takes: 500 })
      yield* TestClock.adjust("30 seconds")
      const error = yield* failure
      assert.deepStrictEqual(
        tried,
        [3, 5, 7, 9, 11, 13, 15].map((now) => `1@${now}`)
      )
      assert.strictEqual(error.message, "its liveness probe failed 3 times in a row: no")
      assert.deepStrictEqual(error.exitFacts, { probe: "liveness" })
    })
  )

  it.effect("a try that takes too long has failed, and the next comes at once when it is due", () =>
    Effect.gen(function* () {
      const probes = { liveness: tcp(1, { period: 1_000, timeout: 4_000, failureThreshold: 2 }) }
      const { failure, tried } = yield* begin(probes, () => true, { takes: 10_000 })
      yield* TestClock.adjust("20 seconds")
      assert.include((yield* failure).message, "no answer within 4s")
      assert.deepStrictEqual(tried, ["1@0", "1@4"])
    })
  )

  it.effect("startup holds the others back, and ends what does not come up", () =>
    Effect.gen(function* () {
      const probes = {
        startup: tcp(1, { period: 1_000, failureThreshold: 10 }),
        liveness: tcp(2, { period: 5_000 }),
        readiness: tcp(3, { period: 5_000 })
      }
      const up = yield* begin(probes, (now, port) => port !== 1 || now >= 4)
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(up.tried, ["1@0", "1@1", "1@2", "1@3", "1@4", "2@4", "3@4"])
      assert.deepStrictEqual(up.told, ["unready (starting)@0", "ready@4"])
      yield* Fiber.interrupt(up.fiber)

      const never = yield* begin(probes, (_, port) => port !== 1)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* never.failure).exitFacts, { probe: "startup" })
      assert.lengthOf(never.tried, 10)
    })
  )

  it.effect("readiness goes and comes by its thresholds, and ends nothing", () =>
    Effect.gen(function* () {
      const probes = { readiness: tcp(1, { period: 1_000, successThreshold: 2, failureThreshold: 3 }) }
      // unwell at 5 and 6 (not enough), and from 10 to 13
      const { fiber, told } = yield* begin(probes, (now) => !(now === 5 || now === 6 || (now >= 10 && now < 14)))
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(told, ["unready (not asked yet)@0", "ready@1", "unready (no)@12", "ready@15"])
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("one that has run for a while has had its initial delay", () =>
    Effect.gen(function* () {
      const probes = { liveness: tcp(1, { initialDelay: 60_000 }) }
      const { fiber, tried } = yield* begin(probes, () => true, { age: 50_000 })
      yield* TestClock.adjust("15 seconds")
      assert.deepStrictEqual(tried, ["1@10"])
      yield* Fiber.interrupt(fiber)
    })
  )

  it("is refused when it asks in two ways or none, or cannot mean what it says", () => {
    for (const probes of [
      { liveness: {} },
      { liveness: { tcp: { port: 1 }, exec: { command: ["x"] } } },
      { liveness: { exec: { command: [] } } },
      { liveness: { tcp: { port: 0 } } },
      { liveness: { http: { port: 80, path: "x" } } },
      { liveness: { http: { port: 80, path: "/ HTTP/1.1\r\nX: y" } } },
      { liveness: tcp(1, { successThreshold: 2 }) },
      { readiness: tcp(1, { period: 1 }) }
    ]) {
      assert.throws(() => decode(probes), undefined, undefined, JSON.stringify(probes))
    }
  })
})
