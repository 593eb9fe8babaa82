/** Containers of a microVM that see each other's processes, with a real guest. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { decodeSandboxSpec } from "../../../src/runtime/ContainerSpec.ts"
import { eventually } from "../../support/eventually.ts"
import { create, logText, shell, until, withContainers } from "../world.ts"

const look = "cat /proc/[0-9]*/cmdline"
/** Tells what runs as soon as it sees the words, and goes on. */
const seeing = (words: string) =>
  shell(`until ${look} | busybox grep -q ${words}; do sleep 0.2; done; ${look}; echo; exec sleep 22222`)

describe("the containers of a microVM", () => {
  it.live(
    "can share their processes, whoever of them ends",
    () =>
      withContainers(({ containers }) =>
        Effect.gen(function* () {
          const spec = yield* decodeSandboxSpec({ name: "pod", isolation: "microvm", processes: "shared" })
          yield* containers.createSandbox(spec)
          // beside it
          yield* create(containers, { name: "a", sandbox: "pod", command: ["/bin/sleep", "11111"] })
          yield* create(containers, { name: "b", sandbox: "pod", command: seeing("1111[1]") })
          yield* until(containers, "b", ({ state }) => state === "running", "2 minutes")
          const seen = (name: string) =>
            eventually(
              `${name} to see the other`,
              Effect.map(logText(containers, name), (text) => text.includes("\n"))
            ).pipe(Effect.andThen(logText(containers, name)))
          for (const words of ["/dev/init", "/bin/sleep\0" + "11111"]) assert.include(yield* seen("b"), words)
          const { pid } = yield* containers.get("b")
          yield* containers.kill("a", "SIGKILL")
          yield* until(
            containers,
            "a",
            ({ incarnation, state }) => incarnation === 2 && state === "running",
            "2 minutes"
          )
          const after = yield* containers.get("b")
          assert.deepStrictEqual([after.pid, after.restarts], [pid, 0])
          // who comes later sees them as well
          yield* create(containers, { name: "c", sandbox: "pod", command: seeing("2222[2]") })
          assert.include(yield* seen("c"), "11111")
        })
      ),
    300_000
  )
})
