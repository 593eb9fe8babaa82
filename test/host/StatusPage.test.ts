/** What the console of a machine shows. */
import { assert, describe, it } from "@effect/vitest"
import * as ActorPath from "../../src/actor/ActorPath.ts"
import { type Line, lines } from "../../src/host/StatusPage.ts"

const node = (path: string, more: Partial<Line> = {}): Line => ({
  path: ActorPath.ActorPath.make(path),
  kind: "step",
  type: "worker",
  state: "running",
  annotations: {},
  lastExit: undefined,
  ...more
})

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
})
