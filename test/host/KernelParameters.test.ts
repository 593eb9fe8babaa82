/** What the kernel command line says, and what becomes of what it should not say. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { page } from "../../scripts/kernel-parameters-page.ts"
import { parseIp } from "../../src/host/IpParameter.ts"
import { namesOf } from "../../src/network/Network.ts"
import { linesOf } from "../../src/network/links/Resolver.ts"
import { parse, words } from "../../src/host/KernelParameters.ts"

describe("the kernel command line", () => {
  it("is split as the kernel does it", () => {
    assert.deepStrictEqual(words('quiet root="a b"  x=1=2 "y=c d" -- ironwood.debug=1'), [
      { name: "quiet", value: undefined },
      { name: "root", value: "a b" },
      { name: "x", value: "1=2" },
      { name: "y", value: "c d" }
    ])
  })

  it("is read word by word; what is not understood is a problem and nothing else", () => {
    const read = parse(
      "console=ttyS0 ip=192.0.2.9::192.0.2.1:255.255.255.0:box:eth1:none:192.0.2.53 ip=dhcp ironwood.debug=yes " +
        "ironwood.listen-insecure=[2001:db8::1]:50051 ironwood.listen_insecure=1.2.3.4 ironwood.colour=green"
    )
    assert.deepStrictEqual(read.listenInsecure, ["[2001:db8::1]:50051"])
    assert.isFalse(read.debug)
    assert.deepStrictEqual(read.links, [
      {
        device: "eth1",
        address: "192.0.2.9",
        prefix: 24,
        gateway: "192.0.2.1",
        hostname: "box",
        nameServers: ["192.0.2.53"]
      }
    ])
    assert.deepStrictEqual(read.problems, [
      "ip=dhcp is ignored: it has no address at its start, like ip=192.0.2.9::192.0.2.1:24::eth0:none",
      "ironwood.debug=yes is ignored: it takes 0 or 1",
      "ironwood.listen_insecure=1.2.3.4 is ignored: it takes an address and a port, like 192.0.2.1:50051 or [2001:db8::1]:50051",
      "ironwood.colour is unknown and ignored; is it a typing mistake?"
    ])
  })

  it("takes addresses of both kinds", () => {
    assert.deepInclude(parseIp("[2001:db8::9]::[2001:db8::1]:64::eth0:none"), {
      address: "2001:db8::9",
      prefix: 64,
      gateway: "2001:db8::1"
    })
    for (const [wrong, problem] of [
      ["10.0.0.1::10.0.0.2:255.0.255.0::eth0:none", "netmask"],
      ["10.0.0.1::10.0.0.2:33::eth0:none", "netmask"],
      ["10.0.0.1::[2001:db8::1]:8::eth0:none", "gateway"],
      ["10.0.0.1:::8::a/b:none", "device"],
      ["10.0.0.1:::8::eth0:none:x", "name server"],
      ["10.0.0.1:::8::eth0:dhcp", "dhcp"]
    ] as const) {
      assert.include(parseIp(wrong), problem)
    }
  })

  it("may give a device two addresses, and say the same twice", () => {
    const twice = "ip=10.0.0.1:::8::eth0:none ip=[2001:db8::1]:::64::eth0:none ip=10.0.0.1:::8::eth0:none"
    const { links, listenInsecure } = parse(
      `${twice} ironwood.listen_insecure=10.0.0.1:1 ironwood.listen_insecure=10.0.0.1:1`
    )
    assert.deepStrictEqual(namesOf(links), ["eth0", "eth0#2"])
    assert.deepStrictEqual(listenInsecure, ["10.0.0.1:1"])
  })

  it("names the servers to ask for names, three of them, each once", () => {
    const one = parseIp("10.0.0.1:::8::eth0:none:10.0.0.53:10.0.0.54")
    const other = parseIp("10.1.0.1:::8::eth1:none:10.0.0.53:10.1.0.53")
    const more = parseIp("10.2.0.1:::8::eth2:none:10.2.0.53")
    const addresses = [one, other, more].filter((address) => typeof address !== "string")
    assert.strictEqual(linesOf(addresses), "nameserver 10.0.0.53\nnameserver 10.0.0.54\nnameserver 10.1.0.53\n")
  })

  it("is documented", () => {
    assert.strictEqual(readFileSync(new URL("../../docs/kernel-parameters.md", import.meta.url), "utf8"), page())
  })
})
