/** Links of a host with real servers, routers and silence beyond them. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { type Host, host, type Node } from "./world.ts"

const isRunning = ({ state }: Node): boolean => state === "running"
const isWell = (node: Node): boolean => isRunning(node) && (node.annotations["degraded"] ?? "") === ""

const isDegraded = ({ annotations }: Node): boolean => (annotations["degraded"] ?? "") !== ""

/** All that {@link serve} give to a link. */
const hasAll = (node: Node): boolean =>
  isWell(node) &&
  /192\.0\.2\.\d+\/24 2001:db8:1::[0-9a-f]+\/128 2001:db8:1:0:\S+\/64/.test(node.annotations["address"] ?? "")

/** A router beyond eth0, in the namespace `up`: DHCPv4 and router's advertisements by dnsmasq, DHCPv6 with prefixes by ISC's dhcpd. */
const serve = (here: Host) =>
  Effect.gen(function* () {
    here.run("ip", "netns", "exec", "up", "ip", "address", "add", "192.0.2.1/24", "dev", "eth0")
    here.run("ip", "netns", "exec", "up", "ip", "address", "add", "2001:db8:1::1/64", "dev", "eth0", "nodad")
    yield* here.serve("up", [
      "dnsmasq",
      "--conf-file=/dev/null",
      "--keep-in-foreground",
      "--port=0",
      "--user=root",
      "--leasefile-ro",
      "--bind-interfaces",
      "--interface=eth0",
      "--dhcp-range=192.0.2.50,192.0.2.60,2m",
      "--dhcp-option=option:dns-server,192.0.2.53",
      "--dhcp-option=option:domain-search,four.example",
      "--enable-ra",
      "--dhcp-range=2001:db8:1::,ra-only,64,2m",
      "--dhcp-option=option6:dns-server,[2001:db8:1::53]"
    ])
    const config = here.file(
      "dhcpd.conf",
      `default-lease-time 200;
       subnet6 2001:db8:1::/64 {
         range6 2001:db8:1::1000 2001:db8:1::2000;
         prefix6 2001:db8:100:: 2001:db8:f00:: /56;
         option dhcp6.name-servers 2001:db8:1::54;
         option dhcp6.domain-search "six.example";
       }`
    )
    const leases = here.file("dhcpd.leases", "")
    yield* here.serve("up", ["dhcpd", "-6", "-f", "-cf", config, "-lf", leases, "-pf", `${leases}.pid`, "eth0"])
  })

describe("the links of a host", () => {
  it.live("have what servers and routers give, over a brain's death and a client's", () =>
    Effect.gen(function* () {
      const uplink = {
        name: "uplink",
        device: "eth0",
        dhcp4: true,
        dhcp6: true,
        acceptRouterAdvertisements: true,
        prefixDelegation: { length: 56, subnets: [{ link: "inner", number: 3 }] }
      }
      const config = { links: [uplink, { name: "inner", device: "eth1", addresses: ["198.51.100.1/24"] }] }
      const here = yield* host(config, (there) =>
        Effect.andThen(
          Effect.sync(() => {
            there.pair("eth0", "up")
            there.pair("eth1", "inside")
          }),
          serve(there)
        )
      )
      const first = yield* here.sees("links/uplink", "all leases", hasAll)
      assert.match(first.annotations["prefix"] ?? "", /^2001:db8:[0-9a-f]+::\/56$/)
      const subnet = first.annotations["subnets"] ?? ""
      assert.match(subnet, /^2001:db8:[0-9a-f]+:3::1\/64 dev eth1$/)
      assert.include(here.run("ip", "-6", "address", "show", "dev", "eth1"), subnet.replace(/ .*/, ""))
      assert.include(here.run("ip", "route", "show", "default"), "via 192.0.2.1 dev eth0")
      assert.include(here.run("ip", "-6", "route", "show", "default"), "dev eth0")
      yield* here.sees(
        "resolver",
        "its servers",
        ({ annotations }) => annotations["name servers"]?.includes("192.0.2.53") === true
      )
      const resolv = here.run("cat", "/run/ironwood/resolv.conf")
      assert.include(resolv, "nameserver 192.0.2.53\n")
      assert.match(resolv, /search .*four\.example/)
      assert.match(resolv, /search .*six\.example/)
      assert.strictEqual(here.run("hostname"), "box\n")

      // the next brain adopts the client
      const client = here.run("cat", "/run/dhcpcd/eth0.pid")
      const brain = yield* here.brain
      process.kill(brain, "SIGKILL")
      yield* Effect.repeat(Effect.sleep("50 millis"), { until: () => Effect.map(here.brain, (pid) => pid !== brain) })
      const second = yield* here.sees("links/uplink", "the same leases", hasAll)
      assert.strictEqual(here.run("cat", "/run/dhcpcd/eth0.pid"), client)
      assert.strictEqual(second.annotations["address"], first.annotations["address"])

      // the next client asks for the same
      const duid = here.run("cat", "/var/lib/ironwood/dhcpcd/duid")
      assert.match(duid, /^00:0[34]:/)
      here.run("kill", "-KILL", client.trim())
      yield* here.sees("links/uplink", "its end", ({ lastExit }) => lastExit.includes("DHCP client killed by SIGKILL"))
      const third = yield* here.sees(
        "links/uplink",
        "the same leases",
        (node) => isWell(node) && node.annotations["address"] === first.annotations["address"]
      )
      assert.notStrictEqual(here.run("cat", "/run/dhcpcd/eth0.pid"), client)
      assert.strictEqual(third.annotations["prefix"], first.annotations["prefix"])
      assert.strictEqual(here.run("cat", "/var/lib/ironwood/dhcpcd/duid"), duid)

      // a client that hangs is told, and replaced by one that asks for the same
      const hanging = here.run("cat", "/run/dhcpcd/eth0.pid").trim()
      here.run("kill", "-STOP", hanging)
      yield* here.sees(
        "links/uplink",
        "that its client is silent",
        ({ annotations }) => annotations["degraded"]?.startsWith("its DHCP client does not answer") === true
      )
      yield* here.sees("links/uplink", "its end", ({ lastExit }) => lastExit.includes("DHCP client has not answered"))
      const fourth = yield* here.sees(
        "links/uplink",
        "the same leases",
        (node) => isWell(node) && node.annotations["address"] === first.annotations["address"]
      )
      assert.notStrictEqual(here.run("cat", "/run/dhcpcd/eth0.pid").trim(), hanging)
      assert.strictEqual(fourth.annotations["prefix"], first.annotations["prefix"])

      // a link that is not wanted any more is taken down, the others stay as they are
      here.configure({ links: config.links.slice(1) })
      yield* here.sees("links/inner", "itself alone", isWell)
      yield* Effect.repeat(Effect.sleep("50 millis"), {
        until: () => Effect.map(here.nodes, (nodes) => nodes.every(({ path }) => !path.endsWith("/uplink")))
      })
      assert.notInclude(here.run("ip", "-brief", "address", "show", "dev", "eth0"), "192.0.2.")
      assert.notInclude(here.run("ip", "-6", "address", "show", "dev", "eth1"), "2001:db8")
      assert.include(here.run("ip", "address", "show", "dev", "eth1"), "198.51.100.1/24")
      assert.notInclude(here.run("ip", "-6", "route"), "unreachable")
    }).pipe(Effect.scoped)
  )

  it.live("that stay silent are told, are asked for ever, and keep nothing else from its address", () =>
    Effect.gen(function* () {
      const here = yield* host(
        {
          links: [
            { name: "eth0", dhcp4: true, dhcp6: true, acceptRouterAdvertisements: true, addresses: ["198.51.100.9/24"] }
          ]
        },
        (there) => Effect.sync(() => there.pair("eth0", "up"))
      )
      const told = yield* here.sees("links/eth0", "silence", isDegraded)
      assert.strictEqual(
        told.annotations["degraded"],
        "no DHCP server has answered, no DHCPv6 server has answered, no router has advertised itself within 6 s; they are asked " +
          "for ever. Is the link in the right network? If it has none, write an address out"
      )
      assert.strictEqual(told.annotations["waits for"], "DHCP, DHCPv6, routers")
      assert.include(here.run("ip", "address", "show", "dev", "eth0"), "198.51.100.9/24")
      // the other end is pulled out, and put back where there are servers
      here.run("ip", "netns", "exec", "up", "ip", "link", "set", "eth0", "down")
      yield* here.sees(
        "links/eth0",
        "no carrier",
        ({ annotations }) => annotations["degraded"]?.includes("no carrier") === true
      )
      here.run("ip", "netns", "exec", "up", "ip", "link", "set", "eth0", "up")
      yield* serve(here)
      yield* here.sees("links/eth0", "all leases", hasAll, 60)
    }).pipe(Effect.scoped)
  )

  it.live("that are not there are waited for; what is written out is put on, changed and taken off", () =>
    Effect.gen(function* () {
      const eth0 = {
        name: "eth0",
        addresses: ["192.0.2.9/24", "2001:db8::9/64"],
        gateways: ["192.0.2.1", "2001:db8::1"],
        routes: [{ to: "203.0.113.0/24", via: "192.0.2.2", metric: 7 }],
        mtu: 1400,
        nameServers: ["192.0.2.53"],
        searchDomains: ["one.example"]
      }
      const here = yield* host(
        {
          links: [eth0, { name: "late", device: "eth1", addresses: ["198.51.100.1/24"] }],
          nameServers: ["192.0.2.54"]
        },
        (there) => Effect.sync(() => there.pair("eth0", "up"))
      )
      yield* here.sees("links/eth0", "its address", ({ annotations }) => annotations["address"] !== undefined)
      yield* here.sees(
        "links/late",
        "what it waits for",
        ({ annotations }) =>
          annotations["degraded"] === "there is no device eth1; has it another name, or is its driver not loaded?"
      )
      const routes = here.run("ip", "route")
      assert.include(routes, "default via 192.0.2.1 dev eth0 metric 100")
      assert.include(routes, "203.0.113.0/24 via 192.0.2.2 dev eth0 metric 7")
      assert.include(here.run("ip", "-6", "route"), "default via 2001:db8::1 dev eth0 metric 100")
      assert.include(here.run("ip", "link", "show", "dev", "eth0"), "mtu 1400")
      assert.strictEqual(
        here.run("cat", "/run/ironwood/resolv.conf"),
        "search one.example\nnameserver 192.0.2.54\nnameserver 192.0.2.53\n"
      )
      here.pair("eth1", "inside")
      yield* here.sees("links/late", "its device", (node) => isWell(node) && node.annotations["device"] === "eth1")

      here.run("ip", "address", "add", "192.0.2.77/24", "dev", "eth0")
      here.configure({
        links: [{ ...eth0, addresses: ["192.0.2.10/24", "2001:db8::9/64"], routes: [], nameServers: [] }]
      })
      yield* here.sees(
        "links/eth0",
        "its other address",
        ({ annotations }) => annotations["address"] === "192.0.2.10/24 2001:db8::9/64"
      )
      yield* here.sees("resolver", "no servers", ({ annotations }) => annotations["name servers"] === undefined)
      const addresses = here.run("ip", "-brief", "address", "show", "dev", "eth0")
      for (const wanted of ["192.0.2.10/24", "192.0.2.77/24", "2001:db8::9/64"]) assert.include(addresses, wanted)
      assert.notInclude(addresses, "192.0.2.9/24")
      assert.notInclude(here.run("ip", "route"), "203.0.113.0/24")
      // one that somebody takes down is brought up again
      here.run("ip", "link", "set", "eth0", "down")
      yield* here.sees("links/eth0", "its failure", ({ lastExit }) =>
        lastExit.includes("its device eth0 was taken down")
      )
      yield* here.sees("links/eth0", "its address", (node) => isWell(node) && node.annotations["address"] !== undefined)
      assert.include(here.run("ip", "route"), "default via 192.0.2.1 dev eth0 metric 100")
    }).pipe(Effect.scoped)
  )

  it.live("that the kernel cannot make are refused with what to do; the others are not held up", () =>
    Effect.gen(function* () {
      const here = yield* host(
        {
          links: [
            { name: "pair", bond: { mode: "active-backup", members: ["eth0", "eth1"] }, addresses: ["192.0.2.9/24"] },
            { name: "pair.42", vlan: { parent: "pair", id: 42 }, addresses: ["198.51.100.9/24"] },
            { name: "eth2", addresses: ["203.0.113.9/24"] }
          ]
        },
        (there) =>
          Effect.sync(() => {
            there.pair("eth0", "up")
            there.pair("eth1", "up")
            there.pair("eth2", "up")
          })
      )
      yield* here.sees(
        "links/eth2",
        "its address",
        (node) => isWell(node) && node.annotations["address"] === "203.0.113.9/24"
      )
      if (here.can("bond")) {
        yield* here.sees(
          "links/pair",
          "its address",
          (node) => isWell(node) && node.annotations["address"] !== undefined
        )
        assert.include(here.run("cat", "/sys/class/net/pair/bonding/slaves"), "eth0 eth1")
      } else {
        yield* here.sees(
          "links/pair",
          "why not",
          ({ lastExit }) =>
            lastExit ===
            "link pair: this kernel has no bonds (bonding); boot one that has, or take the link out of the configuration"
        )
      }
      if (here.can("vlan")) {
        yield* here.sees(
          "links/pair.42",
          "its address",
          (node) => isWell(node) && node.annotations["address"] !== undefined
        )
      } else {
        yield* here.sees(
          "links/pair.42",
          "what it waits for",
          ({ annotations }) => annotations["degraded"] === "it waits for the link pair"
        )
      }
    }).pipe(Effect.scoped)
  )
})
