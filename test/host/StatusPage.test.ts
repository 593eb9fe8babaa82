/** What the console of a machine shows. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as TestClock from "effect/testing/TestClock"
import * as Actor from "../../src/actor/Actor.ts"
import * as ActorPath from "../../src/actor/ActorPath.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import { Tree } from "../../src/actor/Tree.ts"
import { follow, type Line, lines } from "../../src/host/StatusPage.ts"

const node = (path: string, more: Partial<Line> = {}): Line => ({
  path: ActorPath.ActorPath.make(path),
  kind: "step",
  type: "worker",
  state: "running",
  annotations: {},
  lastExit: undefined,
  ...more
})

/** In steps, since a sleep begins when what woke before it has had its turn. */
const pass = (seconds: number) => Effect.repeat(TestClock.adjust("1 second"), { times: seconds })

describe("the status page", () => {
  it("has the addresses, the ways to the API, the counts and the trouble, the worst first", () => {
    const page = lines("node-1", [
      node("init", { type: "supervisor" }),
      node("init/host/state-disk", { annotations: { device: "memory", degraded: "nothing will last" } }),
      node("init/network/links/eth0", { kind: "link", annotations: { device: "eth0", address: "192.0.2.1/24" } }),
      node("init/gateway/grpc", { kind: "gateway", annotations: { socket: "/run/ironwood/ironwood.sock" } }),
      node("init/gateway/tcp/x", { kind: "gateway", annotations: { address: "192.0.2.1:1", authentication: "none" } }),
      node("init/gateway/tcp/y", { kind: "gateway", state: "backing-off" }),
      node("init/runtime/web/web", { kind: "container", state: "parked" })
    ])
    assert.deepStrictEqual(page, [
      "--- node-1 ---",
      "addresses  eth0 192.0.2.1/24",
      "API        /run/ironwood/ironwood.sock, 192.0.2.1:1 (anybody)",
      "actors     4 running, 1 backing-off, 1 parked",
      "trouble    init/runtime/web/web parked",
      "trouble    init/gateway/tcp/y backing-off",
      "trouble    init/host/state-disk degraded: nothing will last"
    ])
  })

  it("stays as short as a screen, however much fails", () => {
    const page = lines(
      "node-1",
      Array.from({ length: 1000 }, (_, index) => node(`init/runtime/a/b${index}`, { state: "parked" }))
    )
    assert.strictEqual(page.length, 10)
    assert.strictEqual(page.at(-1), "trouble    and 995 more")
    assert.include(page, "addresses  none")
    assert.include(page, "API        nowhere")
  })

  it.effect("is told ever less often of one that comes and goes, and soon again after a quiet while", () =>
    Effect.gen(function* () {
      let pages = 0
      const changes = yield* Queue.unbounded<string>()
      const flapping = Actor.make(
        "flapping",
        {},
        Effect.andThen(Actor.ready(), Effect.forever(Effect.flatMap(Queue.take(changes), Actor.degraded)))
      )
      const { tree } = yield* Root.start(Supervisor.make("init", { children: [flapping] }))
      const page = follow((line) => (pages += line.includes("---") ? 1 : 0))
      yield* Effect.forkScoped(Effect.provideService(page, Tree, tree))
      for (let second = 0; second < 3600; second += 5) {
        yield* Queue.offer(changes, `it has failed ${second}`)
        yield* TestClock.adjust("5 seconds")
      }
      // after 15, 30, 60 seconds and so on, at last every ten minutes
      assert.isAtLeast(pages, 9)
      assert.isAtMost(pages, 12)

      yield* pass(3600)
      const before = pages
      yield* Queue.offer(changes, "it is well")
      yield* pass(5)
      assert.strictEqual(pages, before + 1)
      yield* Queue.offer(changes, "it is not")
      yield* pass(20)
      assert.strictEqual(pages, before + 2)
    }).pipe(Effect.scoped)
  )
})
