/** What the kernel command line says, and what becomes of what it should not say. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { page } from "../../scripts/kernel-parameters-page.ts"
import { parseIp } from "../../src/host/IpParameter.ts"
import { fromParameters } from "../../src/network/FromParameters.ts"
import { empty, plain } from "../../src/network/NetworkConfig.ts"
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
      "console=ttyS0 ip=192.0.2.9::192.0.2.1:255.255.255.0:box:eth1:none:192.0.2.53 ip=ibft:none nameserver=one bond=bond0 " +
        "ironwood.debug=yes ironwood.listen-insecure=[2001:db8::1]:50051 ironwood.listen_insecure=1.2.3.4 ironwood.colour=green"
    )
    assert.deepStrictEqual(read.listenInsecure, ["[2001:db8::1]:50051"])
    assert.isFalse(read.debug)
    assert.deepStrictEqual(read.links.slice(0, 1), [
      {
        device: "eth1",
        address: "192.0.2.9/24",
        gateway: "192.0.2.1",
        hostname: "box",
        sources: [],
        mtu: undefined,
        nameServers: ["192.0.2.53"],
        timeServer: undefined
      }
    ])
    assert.deepStrictEqual(read.problems, [
      "nameserver=one is ignored: it takes the address of a name server, like 192.0.2.53 or 2001:db8::53",
      "bond=bond0 is ignored: it takes a name and devices, like bond0:eth0,eth1:mode=active-backup",
      "ironwood.debug=yes is ignored: it takes 0 or 1",
      "ironwood.listen_insecure=1.2.3.4 is ignored: it takes an address and a port, like 192.0.2.1:50051 or [2001:db8::1]:50051",
      "ironwood.colour is unknown and ignored; is it a typing mistake?"
    ])
  })

  it("takes addresses of both kinds", () => {
    assert.deepInclude(parseIp("[2001:db8::9]::[2001:db8::1]:64::eth0:none"), {
      address: "2001:db8::9/64",
      gateway: "2001:db8::1"
    })
    for (const [wrong, problem] of [
      ["", "no address"],
      ["10.0.0.1::10.0.0.2:255.0.255.0::eth0:none", "netmask"],
      ["10.0.0.1::10.0.0.2:33::eth0:none", "netmask"],
      ["10.0.0.1::[2001:db8::1]:8::eth0:none", "gateway"],
      ["::10.0.0.2:8::eth0:dhcp", "gateway"],
      ["10.0.0.1:::8::a/b:none", "device"],
      ["10.0.0.1:::8::eth0:none:x", "name server"],
      ["eth0:dhcp:100", "MTU"],
      ["eth0:dhcp:1400:52-54-00-00-00-01", "hardware address"],
      ["eth1:dhcp:1500:52:54:00:12:34:56", "hardware address"],
      ["10.0.0.1:::8::eth0:none:1500:52:54:00:12:34:56", "hardware address"],
      ["10.0.0.1:::8::eth0:none:10.0.0.53::ntp", "time server"],
      ["10.0.0.1:::8::eth0:none:10.0.0.53::10.0.0.123:x", "behind its time server"],
      ["eth0:ibft", "ibft"]
    ] as const) {
      assert.include(parseIp(wrong), problem, wrong)
    }
  })

  it("takes time servers behind the name servers of ip=, unless ironwood.ntp says others", () => {
    const links =
      "ip=10.0.0.1:::8::eth0:none:10.0.0.53:10.0.0.54:10.0.0.123 ip=10.0.0.2:::8::eth1:none:::[2001:db8::123]"
    assert.deepStrictEqual(parse(links).problems, [])
    assert.deepStrictEqual(parse(links).timeServers, ["10.0.0.123", "2001:db8::123"])
    assert.deepStrictEqual(parse(`${links} ironwood.ntp=192.0.2.123`).timeServers, ["192.0.2.123"])
  })

  it("takes the words for what servers and routers give, in all their places", () => {
    for (const [value, device, sources] of [
      ["dhcp", undefined, ["dhcp4"]],
      ["any", undefined, ["dhcp4"]],
      ["off", undefined, []],
      [":::::eth0:dhcp", "eth0", ["dhcp4"]],
      ["eth0:dhcp6", "eth0", ["dhcp6", "router"]],
      ["eth0:auto6", "eth0", ["router"]],
      ["eth0:link6", "eth0", []]
    ] as const) {
      assert.deepInclude(parseIp(value), { device, sources, address: undefined }, value)
    }
    assert.deepInclude(parseIp("eth0:dhcp:1400"), { device: "eth0", mtu: 1400 })
  })

  it("makes one document of all that it says of the network", () => {
    const { config, hostname, problems } = fromParameters(
      parse(
        "ip=10.0.0.1::10.0.0.2:8:box:eth0:none:10.0.0.53 ip=eth0:auto6 ip=10.0.0.1:::8::eth0:none ip=[2001:db8::1]:::64::eth0:none " +
          "ip=192.0.2.9:::24:::none ip=dhcp bond=bond0:eth1,eth2:mode=802.3ad:9000 ip=bond0:dhcp vlan=bond0.42:bond0 " +
          "nameserver=2001:DB8::53"
      )
    )
    assert.deepStrictEqual(problems, [])
    assert.strictEqual(hostname, "box")
    assert.deepStrictEqual(config, {
      links: [
        { ...plain("bond0"), dhcp4: true, bond: { mode: "802.3ad", members: ["eth1", "eth2"] }, mtu: 9000 },
        { ...plain("bond0.42"), vlan: { parent: "bond0", id: 42 } },
        {
          ...plain("eth0"),
          addresses: ["10.0.0.1/8", "2001:db8::1/64"],
          gateways: ["10.0.0.2"],
          acceptRouterAdvertisements: true,
          nameServers: ["10.0.0.53"]
        },
        { ...plain("first"), any: "first", addresses: ["192.0.2.9/24"] },
        { ...plain("each"), any: "each", dhcp4: true }
      ],
      nameServers: ["2001:DB8::53"],
      searchDomains: []
    })
  })

  it("that contradicts itself about the network leaves it alone, and says so", () => {
    const { config, problems } = fromParameters(parse("vlan=vlan5:vlan6 vlan=vlan6:vlan5"))
    assert.deepStrictEqual(config, empty)
    assert.match(problems[0] ?? "", /is ignored: it is a part of itself/)
  })

  it("may say the same address for the API twice", () => {
    const { listenInsecure } = parse("ironwood.listen_insecure=10.0.0.1:1 ironwood.listen_insecure=10.0.0.1:1")
    assert.deepStrictEqual(listenInsecure, ["10.0.0.1:1"])
  })

  it("is documented", () => {
    assert.strictEqual(readFileSync(new URL("../../docs/kernel-parameters.md", import.meta.url), "utf8"), page())
  })
})
