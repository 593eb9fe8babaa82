/** The network part of a machine's configuration: what it takes, and how it says what it does not. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { canonical, format, hostOf, isNetwork, networkOf, parseNetwork, partOf } from "../../src/network/IpNetwork.ts"
import { complete, configOf, NetworkDocument } from "../../src/network/NetworkConfig.ts"

const decode = Schema.decodeUnknownEffect(NetworkDocument, { errors: "all", onExcessProperty: "error" })

/** Each problem as `path: what`. */
const problems = (config: unknown) =>
  Effect.map(Effect.flip(decode(config)), ({ message }) =>
    [...message.matchAll(/^(?! )(.*)\n {2}at (.*)$/gm)].map(([, what = "", path = ""]) => `${path}: ${what}`)
  )

describe("a network's configuration", () => {
  it.effect("gives what is not said its default", () =>
    Effect.gen(function* () {
      const { links } = yield* Effect.map(decode({ links: [{ name: "eth0", dhcp4: true, mtu: 1400 }] }), configOf)
      assert.deepStrictEqual(links, [
        {
          name: "eth0",
          addresses: [],
          gateways: [],
          routes: [],
          dhcp4: true,
          dhcp6: false,
          acceptRouterAdvertisements: false,
          mtu: 1400,
          nameServers: [],
          searchDomains: []
        }
      ])
    })
  )

  it.effect("names every wrong field", () =>
    Effect.gen(function* () {
      const told = yield* problems({
        links: [
          { name: "lo", mac: "52:54", colour: "green" },
          { name: "eth1", addresses: ["192.0.2.9", "2001:db8::9/129"], routes: [{ to: "192.0.2.1/24" }] },
          { name: "b", bond: { mode: "best", members: [] }, mtu: 100 },
          { name: "v", vlan: { parent: "eth0", id: 4095 }, searchDomains: ["a b"], dhcp6: "yes" }
        ]
      })
      for (const [index, expected] of [
        /\["links"\]\[0\]\["name"\]: must be a link's name .* not one of lo/,
        /\["links"\]\[0\]\["mac"\]: must be a hardware address/,
        /\["links"\]\[0\]\["colour"\]: Expected no excess property/,
        /\["links"\]\[1\]\["addresses"\]\[0\]: must be an IP address and the length/,
        /\["links"\]\[1\]\["addresses"\]\[1\]: must be an IP address and the length/,
        /\["links"\]\[1\]\["routes"\]\[0\]\["to"\]: must be "default" or a network/,
        /\["links"\]\[2\]\["bond"\]\["mode"\]: Expected "balance-rr"/,
        /\["links"\]\[2\]\["bond"\]\["members"\]: Expected 1 to 16 members/,
        /\["links"\]\[2\]\["mtu"\]: Expected 576 to 65535/,
        /\["links"\]\[3\]\["vlan"\]\["id"\]: Expected 1 to 4094/,
        /\["links"\]\[3\]\["dhcp6"\]: Expected boolean/,
        /\["links"\]\[3\]\["searchDomains"\]\[0\]: must be a domain/
      ].entries()) {
        assert.isTrue(
          told.some((text) => expected.test(text)),
          `${index}: ${String(expected)} in\n${told.join("\n")}`
        )
      }
    })
  )

  it.effect("sees where its links contradict themselves", () =>
    Effect.gen(function* () {
      for (const [link, expected] of [
        [{ mac: "52:54:00:00:00:01", device: "eth1" }, '["mac"]: device says already which device it is'],
        [
          { addresses: ["192.0.2.9/24"], gateways: ["2001:db8::1"] },
          '["gateways"][0]: the link has no address of this kind'
        ],
        [{ addresses: ["192.0.2.9/24"], gateways: ["192.0.2.1", "192.0.2.2"] }, '["gateways"][1]: it is the second'],
        [{ any: "each", addresses: ["192.0.2.9/24"] }, '["addresses"]: one address cannot'],
        [{ prefixDelegation: {} }, '["prefixDelegation"]: it is asked for by DHCPv6'],
        [{ routes: [{ to: "2001:db8::/32", via: "192.0.2.1" }] }, '["via"]: the router must be of the same kind'],
        [{ routes: [{ to: "default" }] }, '["via"]: a route to default needs a router'],
        [{ mtu: 1000, dhcp6: true }, '["mtu"]: IPv6 needs 1280']
      ] as const) {
        const told = yield* problems({ links: [{ name: "eth0", ...link }] })
        assert.lengthOf(told, 1, JSON.stringify(link))
        assert.include(told[0], `["links"][0]`)
        assert.include(told[0], expected)
      }
    })
  )

  it.effect("sees where its links contradict each other", () =>
    Effect.gen(function* () {
      const bond = (...members: ReadonlyArray<string>) => ({ bond: { mode: "active-backup", members } })
      assert.deepStrictEqual(
        yield* problems({
          links: [
            { name: "one", ...bond("eth0", "eth0", "eth1") },
            { name: "two", ...bond("eth1", "eth2") },
            { name: "eth2", dhcp4: true },
            { name: "rest2", mac: "52:54:00:00:00:01" },
            { name: "rest2" },
            { name: "v", vlan: { parent: "v", id: 2 } },
            { name: "up", dhcp6: true, prefixDelegation: { subnets: [{ link: "nowhere", number: 0 }] } },
            { name: "rest", any: "each" },
            { name: "w", vlan: { parent: "rest", id: 2 } }
          ]
        }),
        [
          '["links"][0]["bond"]["members"][1]: it is a member already',
          '["links"][1]["bond"]["members"][0]: it is a member of one already',
          '["links"][1]["bond"]["members"][1]: a member of a bond has no addresses of its own; give them to the bond',
          '["links"][4]["name"]: another link is called rest2 already',
          '["links"][5]["vlan"]: it is a part of itself',
          '["links"][6]["prefixDelegation"]["subnets"][0]["link"]: it must be another link of this document',
          '["links"][8]["vlan"]["parent"]: it is more than one device'
        ]
      )
    })
  )

  it.effect("has a link for every part of one, before it", () =>
    Effect.gen(function* () {
      const config = yield* decode({
        links: [
          { name: "v", vlan: { parent: "b", id: 2 } },
          { name: "b", bond: { mode: "802.3ad", members: ["eth0", "eth1"] } },
          { name: "eth1", mac: "52:54:00:00:00:01" }
        ]
      })
      assert.deepStrictEqual(
        complete(configOf(config)).map(({ mac, name }) => [name, mac]),
        [
          ["eth0", undefined],
          ["eth1", "52:54:00:00:00:01"],
          ["b", undefined],
          ["v", undefined]
        ]
      )
    })
  )
})

describe("a network", () => {
  it("is divided, and its addresses counted", () => {
    const prefix = parseNetwork("2001:db8:0:ff00::/56") ?? assert.fail()
    const part = partOf(prefix, 64, 3) ?? assert.fail()
    assert.strictEqual(format(part), "2001:db8:0:ff03::/64")
    assert.strictEqual(format(hostOf(part, 1)), "2001:db8:0:ff03::1/64")
    assert.isUndefined(partOf(prefix, 64, 256))
    assert.isUndefined(partOf(prefix, 48, 0))
    assert.strictEqual(format(networkOf(parseNetwork("192.0.2.77/26") ?? assert.fail())), "192.0.2.64/26")
    assert.isTrue(isNetwork(parseNetwork("::/0") ?? assert.fail()))
    assert.isFalse(isNetwork(parseNetwork("2001:db8::1/64") ?? assert.fail()))
  })

  it("has one spelling", () => {
    for (const [text, expected] of [
      ["2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
      ["::ffff:192.0.2.1", "::ffff:192.0.2.1"],
      ["::", "::"],
      ["192.0.2.1", "192.0.2.1"]
    ] as const) {
      assert.strictEqual(canonical(text), expected)
    }
  })

  it("is not what has no length, or too much of it", () => {
    for (const text of ["", "192.0.2.1/33", "2001:db8::/129", "fe80::1%eth0", "192.0.2/24", "1.2.3.4/-1"]) {
      assert.isUndefined(parseNetwork(text), text)
    }
  })
})
