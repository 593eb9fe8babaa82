/** `ironwood why`: the server's sentences as a page, letter by letter. */
import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import { TestClock } from "effect/testing"
import { parse } from "yaml"
import { ExplainActorResponseSchema, TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { plain } from "../../src/cli/Style.ts"
import * as Text from "../../src/cli/Text.ts"
import * as WhyText from "../../src/cli/WhyText.ts"
import { ironwood, reading } from "./CommandLine.ts"
import { GrpcFailure, serve, unary } from "./FakeServer.ts"
import { explanations, now } from "./Samples.ts"

const printed = (args: ReadonlyArray<string>, options: Parameters<typeof ironwood>[1] = {}) =>
  Effect.gen(function* () {
    yield* TestClock.setTime(now)
    const address = yield* serve(
      ...reading,
      unary(TreeService.method.explainActor, ({ path }) => {
        const answer = explanations.get(path)
        if (answer === undefined) throw new GrpcFailure(grpc.status.NOT_FOUND, `there is no actor ${path}`)
        return answer
      })
    )
    return yield* ironwood(["--address", address, ...args], options)
  })

const page = (path: string, width?: number): string => {
  const answer = explanations.get(path) ?? create(ExplainActorResponseSchema)
  return WhyText.lines(answer, { now, style: plain, ...(width === undefined ? {} : { width }) }).join("\n")
}

describe("ironwood why", () => {
  it.effect("explains a container by its name: now, before, why, next, and the exact commands", () =>
    Effect.gen(function* () {
      const { code, err, out } = yield* printed(["why", "flaky"])
      assert.deepStrictEqual([code, err], [0, ""])
      assert.strictEqual(
        out,
        `init/runtime/flaky/flaky  container  backing-off for 1s

It has ended, and waits for its next start.

What happened
  2h1m ago                It was stopped after 9 min: somebody asked for it.
  14s to 1s ago, 4 times  It ended after 1 s: exited with code 1 (ContainerExited); started again in 500 ms to 4 s.

Why it was decided so
  It ended (ContainerExited), consecutive end number 4; permanent: restart in 4 s.

What comes next
  in 2.8s  Incarnation 16 is started.
           If it ends the same way again before that: it is started again in about 8 s.

What you can do
  Its log has what it said before it ended.
  ironwood logs --tail 20 flaky    shows what it said before it ended
  ironwood start flaky             starts it now instead
  ironwood stop flaky              keeps it down
  ironwood policy set flaky FLAGS  changes when it is started
`
      )
    })
  )

  it.effect("says of one that is well that nothing needs to be done", () =>
    Effect.gen(function* () {
      assert.strictEqual(
        (yield* printed(["why", "init/runtime/hello/hello"])).out,
        `init/runtime/hello/hello  container  running for 2h12m

It runs.

What happened
  2h12m ago  It came up.

Its restart policy
  It is permanent: started again however it ends.

What comes next
  If it fails now: it is started again in about 500 ms.

What you can do
  Nothing needs to be done.
`
      )
    })
  )

  it("names those that have to do with it, keeps to the width, and lets no text repaint the terminal", () => {
    assert.strictEqual(
      page("init/runtime/pod/app", 60),
      `init/runtime/pod/app  container  waiting for 30s

It waits for "cache" before it starts.

What happened
  30s ago  It was stopped after 5 s: it needs "cache", which
           is being ended.

What comes next
  now  "cache" is started.
       It is started as soon as these are there.

Who else
  came of     init/runtime/pod/cache passed it on
  came of     init/runtime/pod/db began it: disk\\x1b[2J full
              (Crash)
  waits for   init/runtime/pod/cache is waiting
  holds up    init/runtime/pod/web waits for it
  supervisor  init/runtime/pod is backing-off
  below it    init/runtime/pod/app/x is failed

What you can do
  ironwood why init/runtime/pod/db      tells why that one ended
  ironwood restart init/runtime/pod/db  starts it anew`
    )
    for (const path of explanations.keys()) {
      for (const line of page(path, 60).split("\n")) assert.isAtMost(Text.width(line), 64, line)
    }
  })

  it.effect("as JSON and YAML is the API's answer", () =>
    Effect.gen(function* () {
      const { out } = yield* printed(["why", "flaky", "-o", "json"])
      const answer: unknown = JSON.parse(out)
      assert.deepStrictEqual(parse((yield* printed(["why", "flaky", "-o", "yaml"])).out), answer)
      assert.nestedPropertyVal(answer, "actor.state", "ACTOR_STATE_BACKING_OFF")
      assert.nestedPropertyVal(answer, "story[1].times", 4)
      assert.nestedPropertyVal(answer, "prospects[0].time", "2026-11-22T14:00:02.800Z")
      assert.nestedPropertyVal(answer, "remedies[1].action", "REMEDY_ACTION_READ_LOGS")
    })
  )

  it.effect("helps with a name that nobody has", () =>
    Effect.gen(function* () {
      const { code, err } = yield* printed(["why", "flakey"])
      assert.strictEqual(code, 3)
      assert.include(err, 'Did you mean "flaky"?')
    })
  )
})
