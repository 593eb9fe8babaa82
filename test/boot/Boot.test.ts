/**
 * A machine from the kernel to its end: boots straight into Ironwood, answers, runs a container, loses its brain in every
 * way without the container noticing, and goes down in order.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { sampleDirectory } from "../../scripts/boot/Samples.ts"
import { eventually } from "../support/ironwood.ts"
import { boot, type Machine } from "../support/machine.ts"

const Version = Schema.Struct({ taprootPid: Schema.Int, brainPid: Schema.Int, brainStarts: Schema.Int })

const Containers = Schema.Struct({
  containers: Schema.Array(
    Schema.Struct({ status: Schema.Struct({ state: Schema.String, pid: Schema.optionalKey(Schema.Int) }) })
  )
})

const Tree = Schema.Struct({ actors: Schema.Array(Schema.Struct({ path: Schema.String, state: Schema.String })) })

const hello = `kind: Image
path: ${sampleDirectory}
---
kind: Container
name: hello
image: hello:latest
`

const containerPid = (machine: Machine) =>
  Effect.map(
    eventually(
      "the container to run",
      Effect.orElseSucceed(machine.json(Containers, "ps", "-a"), () => ({ containers: [] })),
      ({ containers }) =>
        containers[0]?.status.state === "CONTAINER_STATE_RUNNING" && containers[0].status.pid !== undefined,
      240
    ),
    ({ containers }) => containers[0]?.status.pid ?? -1
  )

describe("a machine", () => {
  it.live(
    "boots from the kernel, survives the death of its brain, and goes down in order",
    () =>
      Effect.gen(function* () {
        const machine = yield* boot()
        yield* machine.up
        const first = yield* machine.json(Version, "version")
        assert.deepInclude(first, { taprootPid: 1, brainStarts: 1 })
        const { actors } = yield* machine.json(Tree, "tree")
        assert.deepStrictEqual(
          actors.filter(({ state }) => state !== "ACTOR_STATE_RUNNING"),
          []
        )
        assert.includeMembers(
          actors.map(({ path }) => path),
          ["init/network/links/eth0", "init/gateway/grpc", "init/storage/state"]
        )
        const applied = yield* machine.apply(hello)
        assert.strictEqual(applied.code, 0, applied.stderr)
        const pid = yield* containerPid(machine)

        yield* machine.failBrain("KILL")
        yield* eventually(
          "another brain",
          Effect.orElseSucceed(machine.json(Version, "version"), () => first),
          ({ brainStarts }) => brainStarts === 2,
          240
        )
        assert.strictEqual(yield* containerPid(machine), pid, "the container has not noticed")

        const down = yield* machine.run("down")
        assert.strictEqual(down, "stopped\n")
        assert.strictEqual(yield* machine.ended, 0)
        assert.include(machine.console(), "reboot: Power down")
        assert.notInclude(machine.console(), "Kernel panic")
      }).pipe(Effect.scoped),
    900_000
  )
})
