/** Containers in microVMs, with real guests under QEMU. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { release } from "node:os"
import { decodeSandboxSpec } from "../../../src/runtime/ContainerSpec.ts"
import { create, logText, until, withContainers } from "../world.ts"

describe("a microVM", () => {
  it.live("runs a container on a kernel of its own", () =>
    withContainers(({ containers }) =>
      Effect.gen(function* () {
        yield* containers.createSandbox(yield* decodeSandboxSpec({ name: "box", isolation: "microvm" }))
        yield* create(containers, {
          name: "web",
          sandbox: "box",
          command: ["/bin/sh", "-c", "uname -r; id -u; exit 7"],
          restart: { restart: "temporary" }
        })
        const { lastExit } = yield* until(containers, "web", ({ state }) => state === "failed")
        assert.propertyVal(lastExit, "tag", "ContainerExited")
        const said = yield* logText(containers, "web")
        console.log(said, lastExit)
        assert.notInclude(said, release())
      })
    )
  , 120_000)
})
