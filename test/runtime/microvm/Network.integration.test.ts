/** A microVM with a network, with a real guest: published ports lead in, over the death of all that is in between. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { decodeSandboxSpec } from "../../../src/runtime/ContainerSpec.ts"
import { Processes } from "../../../src/taproot/Processes.ts"
import { freePort, heardAt, hears, listener, portOf } from "../../support/loopback.ts"
import { create, logText, shell, until, withContainers } from "../world.ts"

describe("the network of a microVM", () => {
  it.live(
    "leads published ports in, out to what the host reaches, and not to the host's own loopback",
    () =>
      withContainers(({ containers }) =>
        Effect.gen(function* () {
          const own = portOf(yield* listener)
          const port = yield* freePort
          const spec = yield* decodeSandboxSpec({
            name: "pod",
            isolation: "microvm",
            network: "user",
            ports: [{ hostAddress: "127.0.0.1", hostPort: port, containerPort: 80 }],
            hosts: [{ name: "db", address: "192.0.2.7" }],
            dns: { options: ["ndots:2"] }
          })
          yield* containers.createSandbox(spec)
          yield* create(containers, {
            name: "web",
            sandbox: "pod",
            command: shell(
              `cat /etc/resolv.conf /etc/hosts; ip -o -4 addr show eth0; nc -w 2 10.0.2.2 ${own} || nc -w 2 10.0.3.2 ${own} || echo not reached; ` +
                "while :; do nc -l -p 80 -e /bin/echo hello; done"
            )
          })
          yield* until(containers, "web", ({ state }) => state === "running", "2 minutes")
          yield* hears(port, "hello\n")
          const text = yield* logText(containers, "web")
          assert.match(
            text,
            /^nameserver 10\.0\.2\.3\noptions ndots:2\n127\.0\.0\.1 localhost\n::1 localhost\n10\.0\.3\.15 web\n192\.0\.2\.7 db\n/
          )
          assert.include(text, "inet 10.0.3.15/24")
          assert.include(text, "not reached")
          assert.notInclude(text, "the host's own")
          const { pid } = yield* containers.get("web")
          const [network] = yield* (yield* Processes).takeAll("network/pod")
          assert.isDefined(network)
          yield* network.signal("SIGKILL")
          yield* network.exit
          yield* hears(port, "hello\n")
          const after = yield* containers.get("web")
          assert.deepStrictEqual([after.pid, after.restarts], [pid, 0])
          yield* containers.remove("web", { force: true })
          yield* containers.removeSandbox("pod")
          assert.strictEqual(yield* heardAt(port), undefined)
        }).pipe(Effect.scoped)
      ),
    300_000
  )
})
