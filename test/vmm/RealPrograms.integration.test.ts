/**
 * The drivers for Cloud Hypervisor and Firecracker with the real programs, a real guest and KVM. Skipped, and said so, where a program
 * is not on the path, or nothing runs on its KVM. Firecracker boots ELF kernels alone: it needs one, in `IRONWOOD_VMLINUX`.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { accessSync, constants, existsSync } from "node:fs"
import { join } from "node:path"
import { Hypervisor } from "../../src/vmm/Hypervisor.ts"
import { PATH } from "../../src/vmm/Launching.ts"
import { guest } from "./guest.ts"
import { DiskSpec } from "../../src/vmm/VmSpec.ts"
import { VmRestores, VmSnapshots } from "../../src/vmm/VmSnapshots.ts"
import { makeDisk } from "./standIn/machines.ts"
import { has, mark, says, specOf, type, until, withVms } from "./world.ts"

const isThere = (program: string): boolean => PATH.split(":").some((place) => existsSync(join(place, program)))
const opens = (path: string): boolean => {
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

const vmlinux = process.env["IRONWOOD_VMLINUX"]
const drivers = [
  { hypervisor: "cloud-hypervisor", chipset: "q35", kernel: undefined, lacks: undefined },
  {
    hypervisor: "firecracker",
    chipset: "microvm",
    kernel: vmlinux,
    lacks: vmlinux === undefined ? "IRONWOOD_VMLINUX" : undefined
  }
] as const

describe("a real", () => {
  for (const { chipset, hypervisor, kernel, lacks } of drivers) {
    const problem = !isThere(hypervisor)
      ? `there is no ${hypervisor} on the path`
      : !opens("/dev/kvm")
        ? "there is no /dev/kvm"
        : lacks === undefined
          ? undefined
          : `${lacks} names no kernel`
    it.live.skipIf(problem !== undefined)(
      `${hypervisor}${problem === undefined ? "" : ` (skipped: ${problem})`}`,
      (context) =>
        withVms(({ state, vms }) =>
          Effect.gen(function* () {
            const facts = (yield* (yield* Hypervisor).facts).find(({ name }) => name === hypervisor)
            if (facts?.problem !== undefined) return context.skip(facts.problem)
            const spec = { chipset, hypervisor, kernel: kernel ?? guest().kernel, restart: { restart: "temporary" } }
            const created = yield* vms.create(yield* specOf("real", spec), { wait: true })
            assert.deepStrictEqual([created.state, created.hypervisor], ["running", hypervisor])
            yield* says(vms, "real", "guest: ready")
            assert.strictEqual((yield* vms.pause("real")).state, "paused")
            assert.strictEqual((yield* vms.resume("real")).state, "running")
            const console = yield* vms.attach("real")
            yield* console.write(Buffer.from("hello\n"))
            yield* says(vms, "real", "guest: heard hello")
            yield* console.write(Buffer.from("set:one\n"))
            yield* says(vms, "real", "guest: set")
            yield* (yield* VmSnapshots).create("real", "good")
            yield* type(vms, "real", "set:two")
            yield* says(vms, "real", "guest: set", 2)
            assert.strictEqual((yield* (yield* VmRestores).restore("real", "good")).state, "running")
            assert.strictEqual(yield* mark(vms, "real"), "one")
            yield* (yield* VmSnapshots).remove("real", "good")
            if (hypervisor === "cloud-hypervisor") {
              const path = makeDisk(join(state, "second"), 2 ** 20)
              yield* vms.attachDisk("real", yield* Schema.decodeUnknownEffect(DiskSpec)({ path, serial: "second" }))
              yield* has(vms, "real", (text) => text.includes("serial=second"))
              yield* vms.detachDisk("real", "second")
              yield* has(vms, "real", (text) => !text.includes("serial=second"))
            }
            yield* type(vms, "real", hypervisor === "firecracker" ? "reboot" : "off")
            const over = yield* until(vms, "real", "over", (vm) => vm.state === "finished")
            assert.strictEqual(over.lastExit?.class, "normal")
          })
        )
    )
  }
})
