/** Documents as people and strangers write them: right, wrong in several places, hostile. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { describe as words, digestOf, mostBytes, patched, read, readBytes, write } from "../../src/config/Document.ts"
import { isEndpoint } from "../../src/config/MachineConfig.ts"

const violations = (text: string): Record<string, string> =>
  Result.match(read(text), {
    onSuccess: () => ({}),
    onFailure: (all) => Object.fromEntries(all.map(({ description, field }) => [field, description]))
  })

const good = `# a comment
version: ironwood/v1
hostname: node-1.example
time: { servers: [192.0.2.123, "2001:db8::123"] }
kernel:
  sysctls: { vm.swappiness: 10, net/core/somaxconn: "4096" }
  consoleLevel: 4
state: { label: mine, format: /dev/vda }
api: { listenInsecure: ["192.0.2.1:50051", "[2001:db8::1]:50051"] }
restarts: { perSecond: 30, burst: 200 }
`

describe("a machine config", () => {
  it("is YAML or JSON, and its text is kept", () => {
    const document = Result.getOrThrow(read(good))
    assert.strictEqual(document.text, good)
    assert.strictEqual(document.config.kernel?.sysctls?.["vm.swappiness"], 10)
    const json = write(document.config)
    assert.deepStrictEqual(Result.getOrThrow(read(json)).config, document.config)
    assert.deepStrictEqual(Result.getOrThrow(readBytes(Buffer.from(good))).config, document.config)
  })

  it("that is wrong in several places says so of each, by its field", () => {
    const wrong = violations(`
version: ironwood/v2
hostname: -no-
time: { servers: [192.0.2.1, nonsense] }
network: { links: [{ name: eth0, dhcp: true }, { name: lo, addresses: [192.0.2.9] }] }
kernel: { sysctls: { "../../etc/passwd": 1, vm.swappiness: [1] }, consoleLevel: 9 }
api: { listenInsecure: ["192.0.2.1:0"] }
colour: green
`)
    assert.deepStrictEqual(Object.keys(wrong).toSorted(), [
      "api.listenInsecure[0]",
      "colour",
      "hostname",
      "kernel.consoleLevel",
      'kernel.sysctls["../../etc/passwd"]',
      'kernel.sysctls["vm.swappiness"]',
      "network.links[0].dhcp",
      "network.links[1].addresses[0]",
      "network.links[1].name",
      "time.servers[1]",
      "version"
    ])
    assert.include(wrong["colour"], "is no field of a machine config")
    assert.strictEqual(wrong["version"], 'Expected "ironwood/v1"')
  })

  it("must say its version", () => assert.deepStrictEqual(violations("hostname: a"), { version: "must be set" }))

  it("is not just any text", () => {
    for (const [text, problem] of [
      ["", "Expected fields"],
      ["just words", "Expected fields"],
      ["- a\n- b", "Expected fields"],
      ["version: [", "neither YAML nor JSON"],
      ["a: 1\na: 2", "Duplicate key 'a' at line 2"],
      [`version: ironwood/v1\nhostname: ${"a".repeat(mostBytes)}`, `at most ${mostBytes} bytes`]
    ] as const) {
      assert.include(violations(text)[""], problem, text.slice(0, 40))
    }
    assert.include(words(Result.getOrThrow(Result.flip(readBytes(Uint8Array.of(0xff, 0xfe))))), "no text in UTF-8")
  })

  it("cannot be made huge with anchors, or deep", () => {
    const bomb = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for (const [index, name] of ["b", "c", "d", "e", "f", "g"].entries()) {
      const inner = "*" + ("abcdef"[index] ?? "a")
      bomb.push(`${name}: &${name} [${Array.from({ length: 10 }, () => inner).join(", ")}]`)
    }
    assert.include(violations(bomb.join("\n"))[""], "at most 10000 values")
    const deep = `a: ${"[".repeat(40)}${"]".repeat(40)}`
    assert.include(violations(deep)[""], "deep")
  })

  it("can be patched; what changes nothing leaves its comments", () => {
    const document = Result.getOrThrow(read(good))
    assert.strictEqual(Result.getOrThrow(patched(document, { hostname: "node-1.example" })), document)
    const { config } = Result.getOrThrow(patched(document, { hostname: null, restarts: { burst: 9 } }))
    assert.notProperty(config, "hostname")
    assert.deepStrictEqual(config.restarts, { perSecond: 30, burst: 9 })
    const [wrong] = Result.getOrThrow(Result.flip(patched(document, { restarts: { burst: "many" } })))
    assert.strictEqual(wrong?.field, "restarts.burst")
  })

  it("has a digest as sha256sum prints it", () =>
    assert.strictEqual(digestOf("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))
})

it("an endpoint is an address and a port", () => {
  for (const right of ["0.0.0.0:1", "[::]:65535", "192.0.2.1:50051"]) assert.isTrue(isEndpoint(right), right)
  for (const wrong of ["192.0.2.1", ":1", "::1:1", "[192.0.2.1]:1", "host:1", "1.2.3.4:65536", "1.2.3.4:0", ""]) {
    assert.isFalse(isEndpoint(wrong), wrong)
  }
})
