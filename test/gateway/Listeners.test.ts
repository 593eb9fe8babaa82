/** The API on TCP where the host has the address, and where it does not have it yet. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { createServer } from "node:net"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { type GatewayError, statusOf } from "../../src/gateway/Errors.ts"
import { listeners } from "../../src/gateway/Listeners.ts"
import { isAddressHere } from "../../src/gateway/LocalAddress.ts"
import { freePort } from "../../scripts/boot/Qemu.ts"
import { eventually } from "../support/eventually.ts"

/** For documentation (RFC 5737): no host has it. */
const elsewhere = "192.0.2.77:50051"

describe("an address to listen on", () => {
  it.live("is this host's or not, whether its port is free or not", () =>
    Effect.gen(function* () {
      const port = yield* Effect.promise(freePort)
      yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const server = createServer().listen(port, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => void server.close())
      )
      assert.isTrue(yield* isAddressHere(`127.0.0.1:${port}`))
      assert.isTrue(yield* isAddressHere(`0.0.0.0:${port}`))
      assert.isFalse(yield* isAddressHere(elsewhere))
      assert.isFalse(yield* isAddressHere("[2001:db8::77]:1"))
    })
  )

  it.live("that no link has yet is waited for, without a failure and without holding up the others", () =>
    Effect.gen(function* () {
      const here = `127.0.0.1:${yield* Effect.promise(freePort)}`
      const wanted = [elsewhere, here]
      let reported = ""
      const setting = {
        current: Effect.succeed(wanted),
        changed: () => Effect.never,
        report: (_: unknown, problem: string) => Effect.sync(() => void (reported = problem))
      }
      const tcp = yield* listeners<GatewayError, never>(setting, [], { status: statusOf })
      const { tree } = yield* Root.start(Supervisor.make("init", { children: [tcp] }))
      yield* eventually("both have been tried", () => reported !== "")
      assert.strictEqual(reported, `cannot listen on ${elsewhere} yet: no link of this host has that address`)
      // longer than it takes to look again
      yield* Effect.sleep("600 millis")
      const waiting = yield* tree.get(`init/tcp/${elsewhere}`)
      assert.deepInclude(waiting, { state: "running", incarnation: 1 })
      assert.strictEqual(waiting.annotations["degraded"], reported)
      const serving = yield* tree.get(`init/tcp/${here}`)
      assert.strictEqual(serving.annotations["address"], here)
      assert.isUndefined(serving.annotations["degraded"])
    })
  )
})
