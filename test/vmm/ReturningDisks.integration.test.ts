/** Restores of machines that have lost a disk since: it comes back with what was on it, unless somebody else has it now. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Volumes, VolumeSpec } from "../../src/storage/Volumes.ts"
import { DiskSpec } from "../../src/vmm/VmSpec.ts"
import { VmRestores, VmSnapshots } from "../../src/vmm/VmSnapshots.ts"
import type { Vms } from "../../src/vmm/Vms.ts"
import { consoleText, says, specOf, withVms } from "./world.ts"

const MIB = 1024 * 1024

const type = (vms: Vms["Service"], name: string, text: string) =>
  Effect.flatMap(vms.attach(name), ({ write }) => write(Buffer.from(`${text}\n`)))

const volumeOf = Schema.decodeUnknownSync(VolumeSpec)
const diskOf = Schema.decodeUnknownSync(DiskSpec)

describe("restores", () => {
  it.live("a disk that was taken out since comes back, or it is said who has it", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const restores = yield* VmRestores
        const volumes = yield* Volumes
        const disk = (name: string, words: string) => {
          writeFileSync(join(state, name), Buffer.alloc(MIB, words))
          return join(state, name)
        }
        const boot = disk("web.img", "boot")
        const more = disk("more.img", "then ")
        const tools = disk("tools.img", "tool")
        const data = volumeOf({ name: "data", sizeBytes: 64 * MIB })
        yield* volumes.create(data)
        const disks = [
          { path: boot },
          { path: more, serial: "more" },
          { path: tools, readOnly: true, serial: "tools" },
          { volume: "data", serial: "data" }
        ]
        yield* vms.create(yield* specOf("web", { disks, stopGracePeriod: 0 }), { wait: true })
        yield* says(vms, "web", "guest: ready")
        yield* type(vms, "web", "set:then")
        yield* says(vms, "web", "guest: set")
        yield* (yield* VmSnapshots).create("web", "good")
        yield* vms.stop("web")
        for (const name of ["more", "tools", "data"]) yield* vms.detachDisk("web", name)
        assert.lengthOf((yield* vms.get("web")).spec.disks, 1)

        const refused = Effect.gen(function* () {
          const { _tag, message } = yield* Effect.flip(restores.restore("web", "good"))
          assert.strictEqual(_tag, "VmCannot")
          const { spec, state: present } = yield* vms.get("web")
          assert.deepStrictEqual([present, spec.disks.length], ["stopped", 1], "nothing has changed")
          assert.deepStrictEqual(
            readdirSync(state).filter((one) => one.includes("restore")),
            []
          )
          return message
        })
        yield* vms.create(yield* specOf("db", { disks: [{ path: more }] }), { start: false })
        assert.strictEqual(
          yield* refused,
          `cannot restore virtual machine web: it had ${more} then, which is a disk of virtual machine db now: \`ironwood vm detach-disk db ${more}\` first, or make another machine of the snapshot: \`ironwood vm clone web good NAME\``
        )
        yield* vms.attachDisk("db", diskOf({ volume: "data" }))
        yield* vms.detachDisk("db", more)
        assert.include(yield* refused, "it had volume data then: volume data belongs to virtual machine db")
        yield* vms.remove("db")
        yield* volumes.remove("data")
        assert.include(yield* refused, "it had volume data then: there is no volume data: make it first")
        yield* volumes.create(data)
        renameSync(tools, `${tools}.away`)
        assert.strictEqual(
          yield* refused,
          `cannot restore virtual machine web: it had ${tools} then, which it only read and the snapshot does not hold: there is no such file`
        )
        renameSync(`${tools}.away`, tools)

        // whatever has become of what the snapshot holds
        rmSync(more)
        const restored = yield* restores.restore("web", "good")
        assert.strictEqual(restored.state, "running")
        assert.deepStrictEqual(
          restored.spec.disks.map(({ serial }) => serial),
          [undefined, "more", "tools", "data"]
        )
        assert.strictEqual(readFileSync(more).subarray(0, 5).toString(), "then ")
        assert.isTrue(existsSync(restored.spec.disks[3]?.path ?? ""))
        yield* type(vms, "web", "get")
        yield* says(vms, "web", "guest: mark <then>")
        yield* type(vms, "web", "devices")
        yield* says(vms, "web", "guest: that is all")
        const seen = yield* consoleText(vms, "web")
        assert.match(seen, /guest: disk vdd serial=data ro=0 sectors=131072/)

        // it is the machine's own again
        yield* vms.create(yield* specOf("db"), { start: false })
        const taken = yield* Effect.flip(vms.attachDisk("db", diskOf({ path: more })))
        assert.include(taken.message, "is a disk of virtual machine web")
        assert.deepStrictEqual(
          readdirSync(state).filter((one) => one.includes("restore")),
          []
        )
      })
    )
  )
})
