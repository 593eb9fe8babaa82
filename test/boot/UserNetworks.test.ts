/**
 * A container of a machine publishes a port, and is reached there from the machine itself and from outside, also when the brain has
 * died.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { sampleDirectory } from "../../scripts/boot/Samples.ts"
import * as Qemu from "../../scripts/boot/Qemu.ts"
import { eventually } from "../support/ironwood.ts"
import { hears } from "../support/loopback.ts"
import { boot, stopping } from "../support/machine.ts"

const Version = Schema.Struct({ brainStarts: Schema.Int })

const Isolations = Schema.Struct({
  facts: Schema.Struct({
    sandboxIsolations: Schema.Array(
      Schema.Struct({ name: Schema.String, works: Schema.Boolean, problem: Schema.String })
    )
  })
})

const serve = "while :; do nc -l -p 80 -e /bin/echo hello; done"

const pod = `kind: Image
path: ${sampleDirectory}
---
kind: Pod
name: web
network: user
ports: [{ hostPort: 8080, containerPort: 80 }]
containers:
  - name: web
    image: hello:latest
    entrypoint: [/bin/sh, -c]
    command: ["${serve}"]
`

describe.skipIf(process.env["IRONWOOD_BOOT"] !== "all")("networks of containers on a machine", () => {
  it.live(
    "lead published ports in, over the death of the brain",
    () =>
      Effect.gen(function* () {
        const machine = yield* boot()
        yield* machine.up
        const { facts } = yield* machine.json(Isolations, "host")
        const own = facts.sandboxIsolations.find(({ name }) => name === "user network")
        assert.deepStrictEqual(own, { name: "user network", works: true, problem: "" })
        const applied = yield* machine.apply(pod)
        assert.strictEqual(applied.code, 0, applied.stderr)
        // from the machine itself
        const inside = Effect.map(
          machine.try("run", "--rm", "--network", "host", "hello", "nc", "127.0.0.1", "8080"),
          ({ stdout }) => stdout
        )
        yield* eventually("the container to be reached", inside, (text) => text === "hello\n", 240)
        // from where the machine stands
        const port = yield* Effect.promise(Qemu.freePort)
        yield* machine.monitor(`hostfwd_add net tcp:127.0.0.1:${port}-10.0.2.15:8080`)
        yield* hears(port, "hello\n")
        const { brainStarts } = yield* machine.json(Version, "version")
        yield* machine.failBrain("KILL")
        yield* eventually(
          "another brain",
          Effect.orElseSucceed(machine.json(Version, "version"), () => ({ brainStarts })),
          (now) => now.brainStarts > brainStarts,
          240
        )
        yield* hears(port, "hello\n")
        assert.strictEqual(yield* machine.run("down"), stopping)
        assert.strictEqual(yield* machine.ended, 0)
        assert.notInclude(machine.console(), "Kernel panic")
      }).pipe(Effect.scoped),
    900_000
  )
})
