/**
 * A storm of crashes on a whole Ironwood: it is held to the host's limit on restarts, is told why, and one that crashes for the
 * first time does not stand behind those that crash all the time.
 *
 * A start of a real container costs so much that a busy test machine may not reach the limit, so those of the storm fail
 * before anything is made of them: `crun` is a script that refuses them and passes everybody else on to the real one.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { availableParallelism } from "node:os"
import { TreeService } from "../../proto/generated/ironwood/v1/tree_pb.ts"
import { call, connect } from "../gateway/client.ts"
import { checkout, eventually, start } from "../support/ironwood.ts"
import { programs, where } from "../support/programs.ts"

/** As in main.ts. */
const perSecond = 5 * availableParallelism()

const crowd = Array.from({ length: 12 }, (_, index) => `storm-${index}`)

const container = (name: string) => `
---
kind: Container
name: ${name}
image: hello:latest
entrypoint: [/bin/sh, -c]
command: ["while :; do sleep 0.2; done"]
restart: { backoff: { initial: 0s, jitter: 0 } }`

describe("a storm of crashes", () => {
  it.live("is held back, says so, and leaves room for one that crashes for the first time", () =>
    Effect.gen(function* () {
      const refuse = `#!/bin/sh\ncase "$*" in *storm-*) echo no >&2; exit 1;; esac\nexec ${where("crun")} "$@"\n`
      const instance = yield* start({ environment: yield* programs(refuse) })
      const applied = yield* instance.apply(
        [`kind: Image\npath: ${checkout}/build/sample-image`, ...["well", ...crowd].map(container)].join("")
      )
      assert.strictEqual(applied.code, 0, applied.stdout + applied.stderr)
      const client = yield* connect(instance.address)
      const restarts = Effect.map(call(client, TreeService.method.getTree, { path: "init/runtime" }), ({ actors }) =>
        actors.reduce((sum, actor) => sum + actor.restarts, 0)
      )
      const history = (name: string) =>
        Effect.map(
          call(client, TreeService.method.getActorHistory, { path: `init/runtime/${name}/${name}` }),
          ({ entries }) => entries.map(({ event, reason, revision }) => ({ event, reason, revision: Number(revision) }))
        )

      // The burst is for a host that was quiet.
      const held = `its restart is due; all restarts together are held to ${perSecond} per second, and `
      yield* eventually(
        "the burst to be used up",
        history("storm-7"),
        ([newest]) => newest?.event === "held-back" && newest.reason.startsWith(held),
        120
      )
      assert.include(yield* instance.run("history", "storm-7"), held)
      yield* eventually(
        "it to be explained while it waits",
        instance.run("why", "storm-7"),
        (why) => why.includes("Its next start is due, and waits for its turn.") && why.includes(held)
      )

      const began = Date.now()
      const before = yield* restarts
      yield* Effect.sleep("3 seconds")
      const made = (yield* restarts) - before
      assert.isAbove(made, 0)
      assert.isAtMost(made, (perSecond * (Date.now() - began)) / 1_000 + 1)

      yield* instance.run("kill", "well")
      const [back, wait] = yield* eventually(
        "it to run again",
        history("well"),
        ([newest, , ended]) => newest?.event === "started" && ended?.event === "ended"
      )
      assert.strictEqual(wait?.event, "held-back")
      const others = (yield* Effect.forEach(crowd, history)).flat().filter(({ event }) => event === "start-failed")
      const first = wait?.revision ?? 0
      const last = back?.revision ?? 0
      const meanwhile = others.filter(({ revision }) => revision > first && revision < last)
      assert.isBelow(meanwhile.length, crowd.length / 2)
    })
  )
})
