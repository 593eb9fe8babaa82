/** The parts of a machine's start that can be looked at without one. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { mkdtempSync, openSync, closeSync, ftruncateSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ask, offsetIn } from "../../src/host/Sntp.ts"
import { isEmpty, labelIn } from "../../src/host/StateDisk.ts"
import * as KernelParameters from "../../src/host/KernelParameters.ts"
import { pathOf, plan } from "../../src/host/Sysctls.ts"

const nonce = Buffer.from("12345678")
/** An answer of a server whose clock shows `seconds` since 1970, twice. */
const answer = (seconds: number, change: (packet: Buffer) => void = () => {}): Buffer => {
  const packet = Buffer.alloc(48)
  packet[0] = 0x24
  packet[1] = 2
  nonce.copy(packet, 24)
  for (const at of [32, 40]) packet.writeUInt32BE((seconds + 2_208_988_800) % 2 ** 32, at)
  change(packet)
  return packet
}

describe("a time server's answer", () => {
  it("tells how far the clock is off, in the time after 2036 too", () => {
    assert.strictEqual(offsetIn(answer(1_800_000_000), nonce, 1_799_999_990_000, 1_799_999_990_000), 10_000)
    assert.strictEqual(offsetIn(answer(2_200_000_000), nonce, 0, 0), 2_200_000_000_000)
  })

  it("is worth nothing when it is not one", () => {
    for (const [packet, problem] of [
      [answer(1).subarray(0, 47), "short"],
      [answer(1, (it) => it.fill(0, 24, 25)), "another question"],
      [answer(1, (it) => it.writeUInt8(0x23, 0)), "not a server's"],
      [answer(1, (it) => it.writeUInt8(0xe4, 0)), "does not know"],
      [answer(1, (it) => it.writeUInt8(0, 1)), "left alone"]
    ] as const) {
      assert.include(offsetIn(packet, nonce, 0, 0), problem)
    }
  })
})

describe("a time server", () => {
  it.live("that cannot even be asked is an error, and no exception that ends the brain", () =>
    Effect.gen(function* () {
      // the kernel lets nobody connect to a broadcast address who has not asked for that right
      const error = yield* Effect.flip(ask("255.255.255.255", 5_000))
      assert.strictEqual(error._tag, "NoTime")
      assert.match(error.message, /time server 255\.255\.255\.255: .*EACCES/)
    })
  )
})

describe("a disk", () => {
  it("is known by the label that mke2fs gave it, and is empty only when nothing is on it", async () => {
    const directory = mkdtempSync(join(tmpdir(), "ironwood-disk-"))
    try {
      const disk = join(directory, "disk")
      const file = openSync(disk, "w")
      ftruncateSync(file, 16 * 1024 * 1024)
      closeSync(file)
      assert.isTrue(await isEmpty(disk))
      execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", "-L", "my-label", disk])
      assert.isFalse(await isEmpty(disk))
      assert.strictEqual(labelIn(readFileSync(disk).subarray(1024, 2048)), "my-label")
      assert.isUndefined(labelIn(new Uint8Array(1024)))
      assert.isUndefined(labelIn(new Uint8Array(0)))
      writeFileSync(disk, "x")
      assert.isFalse(await isEmpty(disk))
      writeFileSync(disk, "")
      assert.isFalse(await isEmpty(disk))
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})

describe("kernel settings", () => {
  it("that the command line makes itself are left alone", () => {
    assert.deepStrictEqual(
      [...KernelParameters.parse("quiet sysctl.net.ipv4.ip_forward=0 sysctl.vm/max_map_count=1 x=sysctl.no").sysctls],
      ["net.ipv4.ip_forward", "vm.max_map_count"]
    )
  })

  it("of the machine config come on top of the usual ones, and what it no longer names goes back", () => {
    const before = { "vm.swappiness": "60", "net.core.somaxconn": "128" }
    const wanted = plan({ "vm.swappiness": "10", "net.core.somaxconn": "9" }, before)
    assert.strictEqual(wanted.get("vm.swappiness"), "10")
    assert.strictEqual(wanted.get("net.core.somaxconn"), "9")
    assert.strictEqual(wanted.get("kernel.panic"), "10")
    const without = plan({}, before)
    assert.strictEqual(without.get("vm.swappiness"), "60")
    assert.strictEqual(without.get("net.core.somaxconn"), "4096", "what is usual here, not what the kernel had")
    assert.strictEqual(pathOf("net.ipv4.conf.eth0/100.rp_filter"), "/proc/sys/net/ipv4/conf/eth0.100/rp_filter")
  })
})
