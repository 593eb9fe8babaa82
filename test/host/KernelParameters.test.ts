/** What the kernel command line says, and what becomes of what it should not say. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { page } from "../../scripts/kernel-parameters-page.ts"
import { parseIp } from "../../src/host/IpParameter.ts"
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

  it("is documented", () => {
    assert.strictEqual(readFileSync(new URL("../../docs/kernel-parameters.md", import.meta.url), "utf8"), page())
  })
})
