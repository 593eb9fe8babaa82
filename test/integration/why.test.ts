/** `ironwood why` and `ironwood tree` on an Ironwood of its own with containers that really fail. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { checkout, eventually, start } from "../support/ironwood.ts"

const spec = `
kind: Image
path: ${checkout}/build/sample-image
---
kind: Container
name: flaky
image: hello:latest
entrypoint: [/bin/sh, -c]
command: ["echo about to fail; exit 3"]
restart:
  backoff: { initial: 10ms, factor: 1, jitter: 0 }
  budget: { restarts: 3, within: 10m }
  whenSpent: WHEN_SPENT_PARK
---
kind: Container
name: well
image: hello:latest
entrypoint: [/bin/sh, -c]
command: ["trap 'exit 0' TERM; while :; do sleep 0.2; done"]
`

describe("a container that fails until its budget is spent", () => {
  it.live("is explained, and what is advised helps", () =>
    Effect.gen(function* () {
      const instance = yield* start()
      const applied = yield* instance.apply(spec)
      assert.strictEqual(applied.code, 0, applied.stdout + applied.stderr)
      const why = yield* eventually("it to be parked", instance.run("why", "flaky"), (text) =>
        text.includes("parked for")
      )
      const told = [
        /^init\/runtime\/flaky\/flaky {2}container {2}parked for /,
        /It is parked: its policy gave up, and waits for a person\./,
        /3 times {2}It ended after .*: exited with code 3 \(ContainerExited\); started again in 10 ms\./,
        /It ended \(ContainerExited\); its budget of 3 restarts in 10 min is spent: it is parked until somebody starts it\./,
        /whole again when somebody starts it; once spent: park it until somebody starts it\./,
        /Nothing, until somebody starts it\./,
        /ironwood start flaky +starts it again; its failures so far are forgotten/
      ]
      for (const expected of told) assert.match(why, expected)
      // the commands are exact: they can be typed
      const logs = /ironwood (logs .*flaky) {2}/.exec(why)?.[1]?.split(" ") ?? []
      assert.include(yield* instance.run(...logs), "about to fail")
      yield* instance.run("start", "flaky")
      yield* eventually(
        "it to be parked anew",
        instance.run("why", "flaky"),
        (text) => text.split("parked, to wait for a person").length === 3
      )
      const well = yield* instance.run("why", "well")
      assert.match(well, /It runs\./)
      assert.match(well, /Nothing needs to be done\./)
    })
  )
})
