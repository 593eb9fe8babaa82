/**
 * Machines with room to grow, which have grown: snapshots, restores, clones and migrations of what they are at that moment, with a
 * real guest.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readFileSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { DiskSpec, NicSpec } from "../../src/vmm/VmSpec.ts"
import { VmMoves, VmRestores, VmSnapshots } from "../../src/vmm/VmSnapshots.ts"
import { has, mark, memoryIn, says, specOf, type, withVms } from "./world.ts"

const MIB = 1024 * 1024

const file = (state: string, name: string, mebibytes: number) => {
  const path = join(state, name)
  writeFileSync(path, "")
  truncateSync(path, mebibytes * MIB)
  return path
}

const room = { chipset: "q35", maxCpus: 3, maxMemoryBytes: 448 * MIB }

describe("snapshots of machines that have grown", () => {
  it.live(
    "processors, memory, disks and cards that came while it ran are there after a restore, and go on coming and going",
    () =>
      withVms(({ state, vms }) =>
        Effect.gen(function* () {
          const snapshots = yield* VmSnapshots
          const restores = yield* VmRestores
          const boot = file(state, "web.img", 2)
          yield* vms.create(yield* specOf("web", { ...room, disks: [{ path: boot }] }), { wait: true })
          yield* says(vms, "web", "guest: ready")
          const first = yield* has(vms, "web", (text) => text.includes("processors 0 "))

          // as it was started, with nothing in its room
          yield* type(vms, "web", "set:small")
          yield* says(vms, "web", "guest: set")
          const small = yield* snapshots.create("web", "small")
          assert.deepStrictEqual([small.hypervisor.model.cpus, small.hypervisor.model.memoryBytes], [1, 192 * MIB])
          assert.isUndefined(small.hypervisor.model.plugged)

          yield* vms.resize("web", { cpus: 2, memoryBytes: 320 * MIB })
          const later = file(state, "later.img", 3)
          yield* vms.attachDisk("web", yield* Schema.decodeEffect(DiskSpec)({ path: later, serial: "later" }))
          yield* vms.attachNic("web", yield* Schema.decodeEffect(NicSpec)({ mac: "52:54:00:00:00:07" }))
          const isGrown = (text: string) =>
            text.includes("processors 0-1 ") &&
            text.includes("serial=later ro=0 sectors=6144") &&
            text.includes("52:54:00:00:00:07") &&
            memoryIn(text) - memoryIn(first) > 100
          const grown = yield* has(vms, "web", isGrown)
          yield* type(vms, "web", "set:grown")
          yield* says(vms, "web", "guest: set", 2)
          const taken = yield* snapshots.create("web", "grown")
          assert.deepStrictEqual([taken.spec.cpus, taken.spec.memoryBytes], [2, 320 * MIB])
          assert.deepStrictEqual([taken.hypervisor.model.cpus, taken.hypervisor.model.plugged?.length], [1, 1])
          assert.strictEqual(yield* mark(vms, "web"), "grown", "it went on")

          // another measure, and all the way back
          yield* vms.resize("web", { cpus: 3, memoryBytes: 384 * MIB })
          yield* has(vms, "web", (text) => text.includes("processors 0-2 "))
          const restored = yield* restores.restore("web", "grown")
          assert.strictEqual(restored.state, "running")
          assert.deepStrictEqual([restored.spec.cpus, restored.spec.memoryBytes], [2, 320 * MIB])
          assert.strictEqual(yield* mark(vms, "web"), "grown")
          const back = yield* has(vms, "web", isGrown)
          assert.isBelow(Math.abs(memoryIn(back) - memoryIn(grown)), 16)
          yield* type(vms, "web", "write:after")
          yield* says(vms, "web", "guest: written")
          assert.include(readFileSync(boot, "latin1").slice(0, 10), "after")

          // it goes on growing, and what came later can still leave
          yield* vms.resize("web", { cpus: 3, memoryBytes: 448 * MIB })
          yield* has(vms, "web", (text) => text.includes("processors 0-2 ") && memoryIn(text) - memoryIn(first) > 220)
          yield* vms.resize("web", { memoryBytes: 256 * MIB })
          yield* has(vms, "web", (text) => memoryIn(text) - memoryIn(first) < 100)
          yield* vms.detachDisk("web", "later")
          yield* has(vms, "web", (text) => !text.includes("serial=later"))

          // one of another measure
          assert.strictEqual((yield* restores.restore("web", "small")).spec.memoryBytes, 192 * MIB)
          assert.strictEqual(yield* mark(vms, "web"), "small")
          yield* has(vms, "web", (text) => text.includes("processors 0 ") && memoryIn(text) === memoryIn(first))
          yield* vms.resize("web", { cpus: 2 })
          yield* has(vms, "web", (text) => text.includes("processors 0-1 "))
          yield* vms.remove("web", { force: true })
        })
      )
  )

  it.live("a clone has what it had, and one that moves keeps it", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const snapshots = yield* VmSnapshots
        const restores = yield* VmRestores
        const moves = yield* VmMoves
        const spec = { ...room, disks: [{ path: file(state, "web.img", 2) }] }
        const { pid } = yield* vms.create(yield* specOf("web", spec), { wait: true })
        yield* says(vms, "web", "guest: ready")
        const first = yield* has(vms, "web", (text) => text.includes("processors 0 "))
        yield* vms.resize("web", { cpus: 2, memoryBytes: 320 * MIB })
        const isGrown = (text: string) => text.includes("processors 0-1 ") && memoryIn(text) - memoryIn(first) > 100
        yield* has(vms, "web", isGrown)
        yield* type(vms, "web", "set:here")
        yield* says(vms, "web", "guest: set")
        const moved = yield* moves.migrate("web")
        assert.notStrictEqual(moved.vm.pid, pid)
        assert.strictEqual(yield* mark(vms, "web"), "here")
        yield* has(vms, "web", isGrown)

        // what it has after the move is still what it was started with and what came later
        const taken = yield* snapshots.create("web", "moved")
        assert.deepStrictEqual([taken.hypervisor.model.cpus, taken.hypervisor.model.plugged?.length], [1, 1])
        assert.strictEqual(taken.hypervisor.model.memoryBytes, 192 * MIB)
        yield* restores.clone("web", "moved", "web2")
        assert.strictEqual(yield* mark(vms, "web2"), "here")
        yield* has(vms, "web2", isGrown)
        yield* has(vms, "web", isGrown)
        yield* vms.remove("web2", { force: true })

        // after a start of its own all of it is what it is started with
        yield* vms.stop("web")
        yield* vms.start("web")
        yield* says(vms, "web", "guest: ready", 2)
        const anew = yield* snapshots.create("web", "anew")
        assert.deepStrictEqual([anew.hypervisor.model.cpus, anew.hypervisor.model.memoryBytes], [2, 320 * MIB])
        assert.strictEqual((yield* restores.restore("web", "moved")).state, "running")
        assert.strictEqual(yield* mark(vms, "web"), "here")
        yield* vms.remove("web", { force: true })
      })
    )
  )
})
