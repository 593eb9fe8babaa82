/** Facts of the host, against what its own tools say. */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { hostFacts } from "../../src/host/HostFacts.ts"

const command = (name: string, ...args: ReadonlyArray<string>) => execFileSync(name, args, { encoding: "utf8" }).trim()

it.live("tells of this host what its own tools tell", () =>
  Effect.gen(function* () {
    const facts = yield* hostFacts
    assert.strictEqual(facts.kernelRelease, command("uname", "-r"))
    assert.strictEqual(facts.architecture, command("uname", "-m"))
    assert.strictEqual(facts.hostname, command("uname", "-n"))
    assert.strictEqual(facts.processors, Number(command("nproc")))
    assert.strictEqual(facts.bootId, readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim())
    const uptime = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 1000
    assert.isTrue(Math.abs(Date.now() - uptime - facts.bootedAt) < 5000)
    assert.isTrue(facts.memoryAvailableBytes > 0 && facts.memoryAvailableBytes < facts.memoryTotalBytes)
  })
)
