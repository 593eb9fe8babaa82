/** Machines that get another measure while they run, with a real guest. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Hypervisor } from "../../src/vmm/Hypervisor.ts"
import { has, memoryIn, says, specOf, withVms } from "./world.ts"

const MIB = 1024 * 1024
const pc = { chipset: "q35", restart: { backoff: { initial: 10, max: 10 } } }

describe("resize", () => {
  it.live("processors, memory and disks of a machine that runs", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const disk = join(state, "disk")
        writeFileSync(disk, Buffer.alloc(2 * MIB))
        const spec = { ...pc, maxCpus: 3, maxMemoryBytes: 448 * MIB, balloon: true, disks: [{ path: disk }] }
        const { pid } = yield* vms.create(yield* specOf("pc", spec), { wait: true })
        yield* says(vms, "pc", "guest: ready")
        const before = yield* has(vms, "pc", (text) => text.includes("processors 0 "))

        const wrong = yield* Effect.flip(
          vms.resize("pc", {
            cpus: 4,
            memoryBytes: 512 * MIB,
            maxCpus: 8,
            disks: [{ path: disk, sizeBytes: MIB }, { path: "/no/such" }]
          })
        )
        for (const words of [
          "cpus: must be at most 3 while it runs",
          `memoryBytes: must be at most ${448 * MIB} while it runs`,
          "maxCpus: cannot be changed while it runs: stop it first",
          `disks[0].sizeBytes: must not be less than the ${2 * MIB} bytes that it has`,
          "disks[1].path: is no disk of it"
        ]) {
          assert.include(wrong.message, words)
        }

        const grown = yield* vms.resize("pc", {
          cpus: 3,
          memoryBytes: 320 * MIB,
          disks: [{ path: disk, sizeBytes: 3 * MIB, limits: { operations: 1000 } }]
        })
        assert.deepStrictEqual([grown.spec.cpus, grown.spec.memoryBytes], [3, 320 * MIB])
        assert.strictEqual(statSync(disk).size, 3 * MIB)
        const after = yield* has(vms, "pc", (text) => text.includes("processors 0-2 ") && text.includes("sectors=6144"))
        assert.isAtLeast(memoryIn(after) - memoryIn(before), 120)

        yield* vms.resize("pc", { memoryBytes: 256 * MIB, balloonBytes: 192 * MIB })
        const shrunk = yield* has(vms, "pc", (text) => memoryIn(text) < 230)
        assert.isBelow(memoryIn(shrunk), memoryIn(after))
        const kept = yield* Effect.flip(vms.resize("pc", { memoryBytes: 128 * MIB, balloonBytes: 128 * MIB }))
        assert.include(kept.message, "the 192 MiB that it was started with stay until it is stopped")
        assert.strictEqual((yield* vms.get("pc")).spec.memoryBytes, 256 * MIB)
        assert.strictEqual((yield* vms.get("pc")).pid, pid)

        const drivers = yield* (yield* Hypervisor).facts
        const isEmulated = drivers.find(({ name }) => name === "qemu")?.acceleration?.accelerator === "tcg"
        if (isEmulated) {
          const fewer = yield* Effect.flip(vms.resize("pc", { cpus: 2 }))
          assert.include(fewer.message, "a machine that is emulated keeps its processors until it is stopped")
          const { pid: same, spec } = yield* vms.get("pc")
          assert.deepStrictEqual([same, spec.cpus], [pid, 3])
        } else {
          yield* vms.resize("pc", { cpus: 2 })
          yield* has(vms, "pc", (text) => text.includes("processors 0-1 "))
        }

        // what it was given is what it starts with
        yield* vms.stop("pc")
        yield* vms.resize("pc", {
          cpus: 2,
          maxCpus: 2,
          balloonBytes: 256 * MIB,
          disks: [{ path: disk, sizeBytes: 4 * MIB }]
        })
        yield* vms.start("pc")
        yield* says(vms, "pc", "guest: ready", 2)
        yield* has(vms, "pc", (text) => text.includes("processors 0-1 ") && text.includes("sectors=8192"))
        yield* vms.remove("pc", { force: true })
      })
    )
  )

  it.live("a disk is held to its limits, and set free again", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const disk = join(state, "disk")
        writeFileSync(disk, Buffer.alloc(8 * MIB))
        const limits = { bytes: 256 * 1024 }
        yield* vms.create(yield* specOf("web", { disks: [{ path: disk, limits }] }), { wait: true })
        yield* says(vms, "web", "guest: ready")
        const write = (often: number) =>
          Effect.gen(function* () {
            yield* Effect.flatMap(vms.attach("web"), ({ write }) => write(Buffer.from("fill:2\n")))
            yield* says(vms, "web", "guest: filled", often)
          })
        const fixed = yield* Effect.flip(vms.resize("web", { cpus: 2 }))
        assert.include(fixed.message, "cpus: cannot be changed while it runs, by its hypervisor: stop it first")
        const began = process.hrtime.bigint()
        yield* write(1)
        // 2 MiB at 256 KiB a second; a burst of one second is free
        assert.isAbove(Number(process.hrtime.bigint() - began) / 1e9, 3)
        const { spec } = yield* vms.resize("web", { disks: [{ path: disk, limits: {} }] })
        assert.deepStrictEqual(spec.disks[0]?.limits, {})
        yield* write(2)
        yield* vms.remove("web", { force: true })
      })
    )
  )
})
