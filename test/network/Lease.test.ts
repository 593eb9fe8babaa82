/** What a DHCP client says it was told: decoded, whatever strangers put in it; and what it, and the resolver, are told then. */
import { assert, describe, it } from "@effect/vitest"
import { empty, plain } from "../../src/network/NetworkConfig.ts"
import { configOf } from "../../src/network/links/DhcpClient.ts"
import { fromMac, fromUuid } from "../../src/network/links/Duid.ts"
import { blocksOf, nothing, toldBy } from "../../src/network/links/Lease.ts"
import { linesOf, namesOf } from "../../src/network/links/Resolver.ts"

const number = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

const answer = (...blocks: ReadonlyArray<ReadonlyArray<string>>): Buffer =>
  Buffer.concat([
    number(blocks.length),
    ...blocks.flatMap((block) => {
      const bytes = Buffer.from(block.map((text) => `${text}\0`).join(""))
      return [number(bytes.length), bytes]
    })
  ])

const told = (...blocks: ReadonlyArray<ReadonlyArray<string>>) => {
  const read = blocksOf(answer(...blocks))
  return typeof read === "object" ? toldBy(read) : assert.fail(String(read))
}

describe("what a DHCP client was told", () => {
  it("is there when all of it has come", () => {
    const whole = answer(["protocol=link"], ["protocol=dhcp", "new_ip_address=192.0.2.7", "new_subnet_cidr=24"])
    for (let length = 0; length < whole.length; length += 1) assert.isUndefined(blocksOf(whole.subarray(0, length)))
    assert.isArray(blocksOf(whole))
    assert.deepStrictEqual(told(), nothing)
  })

  it("makes no sense with absurd lengths", () => {
    assert.include(blocksOf(number(1_000_000)), "announces 1000000 blocks")
    assert.include(blocksOf(Buffer.concat([number(1), number(2n ** 63n)])), "announces a block of")
  })

  it("is taken from all protocols", () => {
    assert.deepStrictEqual(
      told(
        [
          "protocol=dhcp",
          "new_ip_address=192.0.2.7",
          "new_subnet_cidr=24",
          "new_dhcp_server_identifier=192.0.2.1",
          "new_dhcp_lease_time=4294967295",
          "new_routers=192.0.2.1 192.0.2.2",
          "new_domain_name_servers=192.0.2.53",
          "new_domain_name=four.example",
          "new_host_name=box"
        ],
        [
          "protocol=ra",
          "nd1_from=fe80::1",
          "nd1_rdnss1_servers=2001:db8::53",
          "nd1_dnssl1_search=six.example",
          "nd1_addr1=2001:db8::7/64",
          "nd2_from=fe80::2"
        ],
        [
          "protocol=dhcp6",
          "new_dhcp6_ia_na1_iaid=00000001",
          "new_dhcp6_ia_na1_ia_addr1=2001:DB8::0:8",
          "new_dhcp6_ia_na1_ia_addr1_vltime=200",
          "new_dhcp6_ia_pd1_iaid=00000002",
          "new_dhcp6_ia_pd1_prefix1=2001:db8:100::",
          "new_dhcp6_ia_pd1_prefix1_length=56",
          "new_dhcp6_ia_pd1_prefix1_pltime=100",
          "new_dhcp6_ia_pd1_prefix1_vltime=200",
          "new_dhcp6_server_id=0001"
        ]
      ),
      {
        dhcp4: { addresses: ["192.0.2.7/24"], server: "192.0.2.1", seconds: undefined },
        dhcp6: { addresses: ["2001:db8::8/128"], server: "0001", seconds: 200 },
        delegated: [{ family: 6, address: "2001:db8:100::", prefix: 56, preferred: 100, valid: 200 }],
        gateways: ["192.0.2.1", "192.0.2.2"],
        routers: ["fe80::1", "fe80::2"],
        autoconfigured: ["2001:db8::7/64"],
        nameServers: ["192.0.2.53", "2001:db8::53"],
        searchDomains: ["four.example", "six.example"],
        hostname: "box"
      }
    )
  })

  it("has nothing in it that is not what it should be", () => {
    assert.deepStrictEqual(
      told(
        [
          "protocol=dhcp",
          "new_ip_address=192.0.2.7",
          "new_subnet_cidr=24",
          "new_dhcp_server_identifier=$(reboot)",
          "new_dhcp_lease_time=-1",
          "new_routers=x",
          "new_domain_name_servers=192.0.2.53\nnameserver 6.6.6.6",
          "new_domain_search=good.example a;b ../c \u00e9",
          "new_host_name=a b"
        ],
        ["protocol=ra", "nd1_from=fe80::1", "nd1_addr1=2001:db8::7/129"],
        [
          "protocol=dhcp6",
          "new_dhcp6_ia_pd1_iaid=1",
          "new_dhcp6_ia_pd1_prefix1=2001:db8::",
          "new_dhcp6_ia_pd1_prefix1_length=x"
        ],
        ["protocol=other", "new_ip_address=192.0.2.8"],
        ["=", "", "nonsense"]
      ),
      {
        ...nothing,
        dhcp4: { addresses: ["192.0.2.7/24"], server: "", seconds: undefined },
        routers: ["fe80::1"],
        nameServers: ["192.0.2.53", "6.6.6.6"],
        searchDomains: ["good.example"]
      }
    )
  })
})

describe("a host", () => {
  it("asks those for names whom a person wrote down, then those it was told, three of them, each once", () => {
    const config = {
      ...empty,
      nameServers: ["192.0.2.53"],
      links: [{ ...plain("eth0"), nameServers: ["2001:DB8::53", "192.0.2.53"], searchDomains: ["own.example."] }]
    }
    const tells = new Map([
      [
        "eth0",
        { ...nothing, nameServers: ["2001:db8::53", "192.0.2.54", "192.0.2.55"], searchDomains: ["own.example"] }
      ]
    ])
    assert.strictEqual(
      linesOf(namesOf(config, tells)),
      "search own.example\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver 192.0.2.54\n"
    )
    assert.strictEqual(linesOf(namesOf(empty, new Map())), "")
  })

  it("is known by the UUID of its firmware, if that was ever set", () => {
    assert.strictEqual(
      fromUuid("4C4C4544-0050-3510-8052-B4C04F4D3132\n"),
      "00:04:4c:4c:45:44:00:50:35:10:80:52:b4:c0:4f:4d:31:32"
    )
    for (const never of [
      "",
      "Not Settable",
      "00000000-0000-0000-0000-000000000000",
      "ffffffff-ffff-ffff-ffff-ffffffffffff"
    ]) {
      assert.isUndefined(fromUuid(never))
    }
    assert.strictEqual(fromMac("52:54:00:12:34:56"), "00:03:00:01:52:54:00:12:34:56")
  })

  it("has its client do what is wanted and nothing else", () => {
    const lines = (link: Parameters<typeof configOf>[0]) => configOf(link, "eth0").split("\n")
    const four = lines({ ...plain("up"), dhcp4: true, mtu: 1400 })
    assert.includeMembers(four, ["noipv6", "nodhcp6", "noipv6rs", "interface eth0"])
    assert.notInclude(four, "option interface_mtu")
    const six = lines({ ...plain("up"), dhcp6: true, prefixDelegation: { length: 56, subnets: [] } })
    assert.includeMembers(six, ["noipv4", "noipv6rs", "dhcp6", "ia_na", "ia_pd 1/::/56"])
    const router = lines({ ...plain("up"), acceptRouterAdvertisements: true })
    assert.includeMembers(router, ["noipv4", "ipv6rs", "nodhcp6"])
    assert.notInclude(router, "noipv6")
  })
})
