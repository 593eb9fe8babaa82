/** Snapshots, restores, clones and migrations, with real guests. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { kill } from "node:process"
import { DiskSpec } from "../../src/vmm/VmSpec.ts"
import { VmMoves, VmRestores, VmSnapshots } from "../../src/vmm/VmSnapshots.ts"
import type { Vms } from "../../src/vmm/Vms.ts"
import { consoleText, says, specOf, until, withVms } from "./world.ts"

const type = (vms: Vms["Service"], name: string, text: string) =>
  Effect.flatMap(vms.attach(name), ({ write }) => write(Buffer.from(`${text}\n`)))

/** What its memory and its disk say. */
const asks = (vms: Vms["Service"], name: string) =>
  Effect.gen(function* () {
    const before = yield* consoleText(vms, name)
    const times = before.split("guest: disk says").length
    yield* type(vms, name, "get")
    yield* type(vms, name, "read")
    yield* says(vms, name, "guest: disk says", times)
    const after = yield* consoleText(vms, name)
    return [/.*guest: mark <(.*)>/s.exec(after)?.[1], /.*guest: disk says (\S*)/s.exec(after)?.[1]]
  })

const disk = (state: string, name: string) => {
  const path = join(state, name)
  writeFileSync(path, "")
  truncateSync(path, 8 * 1024 ** 2)
  return path
}

describe("snapshots", () => {
  it.live("of a machine that runs: it goes on, goes back to it, and another one is made of it", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const snapshots = yield* VmSnapshots
        const restores = yield* VmRestores
        const path = disk(state, "web.img")
        yield* vms.create(yield* specOf("web", { disks: [{ path }] }), { wait: true })
        yield* says(vms, "web", "guest: ready")
        yield* type(vms, "web", "write:first")
        yield* says(vms, "web", "guest: written")
        yield* type(vms, "web", "set:one")
        yield* says(vms, "web", "guest: set")

        const taken = yield* snapshots.create("web", "good")
        assert.strictEqual(taken.hypervisor.model.type, "microvm")
        assert.strictEqual((yield* vms.get("web")).state, "running")
        assert.deepStrictEqual(yield* asks(vms, "web"), ["one", "first"])
        assert.strictEqual((yield* Effect.flip(snapshots.create("web", "good")))._tag, "SnapshotAlreadyExists")

        yield* type(vms, "web", "write:second")
        yield* says(vms, "web", "guest: written", 2)
        yield* type(vms, "web", "set:two")
        yield* says(vms, "web", "guest: set", 2)
        assert.deepStrictEqual(yield* asks(vms, "web"), ["two", "second"])
        const before = yield* vms.get("web")
        const restored = yield* restores.restore("web", "good")
        assert.strictEqual(restored.state, "running")
        assert.notStrictEqual(restored.pid, before.pid)
        assert.deepStrictEqual(yield* asks(vms, "web"), ["one", "first"])
        assert.deepStrictEqual(
          readdirSync(state).filter((one) => one.includes("restore")),
          []
        )

        const cloned = yield* restores.clone("web", "good", "web2")
        assert.strictEqual(cloned.state, "running")
        assert.deepStrictEqual(yield* asks(vms, "web2"), ["one", "first"])
        yield* type(vms, "web2", "write:other")
        yield* says(vms, "web2", "guest: written")
        assert.include(readFileSync(join(state, "web2-web.img"), "latin1").slice(0, 10), "other")
        assert.deepStrictEqual(yield* asks(vms, "web"), ["one", "first"])

        // after a crash a restored one boots from its disks
        kill(restored.pid ?? Number.NaN, "SIGKILL")
        yield* until(vms, "web", "back", (vm) => vm.state === "running" && vm.pid !== restored.pid)
        yield* says(vms, "web", "guest: ready", 2)
        assert.deepStrictEqual(yield* asks(vms, "web"), ["", "first"])

        assert.strictEqual((yield* Effect.flip(vms.remove("web")))._tag, "VmWrongState")
        yield* vms.stop("web")
        assert.strictEqual((yield* Effect.flip(vms.remove("web")))._tag, "VmHasSnapshots")
        yield* snapshots.remove("web", "good")
        assert.deepStrictEqual(yield* snapshots.list(), [])
        yield* vms.remove("web")
        yield* vms.remove("web2", { force: true })
        assert.isFalse(existsSync(join(state, "vm/machines/web2")))
      })
    )
  )

  it.live("a machine moves to another process, and its guest does not notice", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const moves = yield* VmMoves
        const path = disk(state, "web.img")
        const nics = [{ forwards: [{ hostPort: 20_000 + (process.pid % 10_000), guestPort: 80 }] }]
        const spec = yield* specOf("web", { chipset: "q35", disks: [{ path }], nics })
        const created = yield* vms.create(spec, { wait: true })
        yield* says(vms, "web", "guest: ready")
        // one that came later sits where no new machine of the same spec would have it
        const later = yield* Schema.decodeUnknownEffect(DiskSpec)({ path: disk(state, "later.img") })
        yield* vms.attachDisk("web", later)
        yield* type(vms, "web", "set:here")
        yield* says(vms, "web", "guest: set")
        const { stoodStill, vm } = yield* moves.migrate("web")
        assert.isAbove(stoodStill, 0)
        assert.notStrictEqual(vm.pid, created.pid)
        yield* type(vms, "web", "write:there")
        yield* says(vms, "web", "guest: written")
        assert.deepStrictEqual(yield* asks(vms, "web"), ["here", "there"])
        const again = yield* moves.migrate("web")
        assert.deepStrictEqual(yield* asks(vms, "web"), ["here", "there"])
        assert.strictEqual(again.vm.incarnation, 1)
        yield* vms.stop("web")
        assert.include(yield* consoleText(vms, "web"), "guest: power button")
      })
    )
  )
})
