/** Disks and cards that come and go while a machine runs, with a real guest. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { closeSync, openSync, readSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as State from "../../src/storage/State.ts"
import * as Records from "../../src/vmm/Records.ts"
import type { Vms } from "../../src/vmm/Vms.ts"
import { diskId, DiskSpec, NicSpec } from "../../src/vmm/VmSpec.ts"
import { eventually } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"
import { brain, consoleText, says, specOf, stateDirectory, withVms } from "./world.ts"

const MIB = 1024 * 1024
const pc = { chipset: "q35", restart: { backoff: { initial: 10, max: 10 } } }

const makeDisk = (path: string, mebibytes = 1): string => {
  writeFileSync(path, Buffer.alloc(mebibytes * MIB))
  return path
}

const diskOf = Schema.decodeUnknownSync(DiskSpec)
const nicOf = Schema.decodeUnknownSync(NicSpec)

const type = (vms: Vms["Service"], name: string, text: string) =>
  Effect.flatMap(vms.attach(name), ({ write }) => write(Buffer.from(`${text}\n`)))

/** Asks the guest until what it has is right. */
const devices = (vms: Vms["Service"], name: string, right: (text: string) => boolean) =>
  eventually(
    `${name} to have other devices`,
    Effect.gen(function* () {
      const before = (yield* consoleText(vms, name)).split("guest: that is all").length
      yield* type(vms, name, "devices")
      yield* says(vms, name, "guest: that is all", before)
      return (yield* consoleText(vms, name)).split("guest: heard devices").at(-1) ?? ""
    }),
    right,
    60
  )

describe("disks and cards", () => {
  it.live("come and go while the machine runs, and stay over a new start", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const [first, second, third] = ["first", "second", "third"].map((name) => makeDisk(join(state, name)))
        assert.isDefined(third)
        const { generation, pid } = yield* vms.create(
          yield* specOf("pc", { ...pc, disks: [{ path: first, serial: "first" }], nics: [{}] }),
          { wait: true }
        )
        yield* vms.create(yield* specOf("other", { ...pc, disks: [{ path: third }] }), { start: false })
        yield* says(vms, "pc", "guest: ready")

        const disk = diskOf({ path: second, serial: "second" })
        const plugged = yield* vms.attachDisk("pc", disk)
        assert.deepStrictEqual(
          plugged.spec.disks.map(({ path }) => path),
          [first, second]
        )
        assert.isAbove(plugged.generation, generation)
        assert.strictEqual((yield* vms.attachDisk("pc", disk)).generation, plugged.generation, "the same is the same")
        yield* vms.attachNic("pc", nicOf({ mac: "52:54:00:00:00:77", forwards: [] }))
        yield* devices(vms, "pc", (text) => text.includes("serial=second") && text.includes("52:54:00:00:00:77"))

        const theirs = yield* Effect.flip(vms.attachDisk("pc", diskOf({ path: third })))
        assert.include(theirs.message, "disk.path: is a disk of virtual machine other")
        const gone = yield* Effect.flip(vms.attachDisk("pc", diskOf({ path: "/no/such" })))
        assert.strictEqual(gone.message, "disk.path: there is no such file")
        const used = yield* Effect.flip(vms.attachDisk("pc", diskOf({ path: second, readOnly: true })))
        assert.include(used.message, "disk.path: is a disk of it already")
        const none = yield* Effect.flip(vms.detachDisk("pc", "/no/such"))
        assert.strictEqual(none._tag, "VmDeviceMissing")

        // also one that it was started with
        const less = yield* vms.detachDisk("pc", first ?? "")
        assert.deepStrictEqual(
          less.spec.disks.map(({ path }) => path),
          [second]
        )
        yield* vms.detachNic("pc", "52:54:00:00:00:77")
        yield* devices(vms, "pc", (text) => !text.includes("serial=first") && !text.includes("52:54:00:00:00:77"))
        // whom nobody has any more another may have
        yield* vms.attachDisk("other", diskOf({ path: first }))
        yield* vms.remove("other")
        // a guest that stands still lets go of nothing
        yield* vms.pause("pc")
        assert.include(
          (yield* Effect.flip(vms.detachDisk("pc", second ?? ""))).message,
          "cannot unplug from virtual machine pc while it is paused: its guest must run"
        )
        yield* vms.attachDisk("pc", diskOf({ path: first, readOnly: true, serial: "again" }))
        yield* vms.resume("pc")
        yield* devices(vms, "pc", (text) => text.includes("serial=again ro=1"))
        assert.strictEqual((yield* vms.get("pc")).pid, pid)

        yield* vms.stop("pc")
        yield* vms.start("pc")
        yield* says(vms, "pc", "guest: ready", 2)
        const text = (yield* consoleText(vms, "pc")).split("guest: ready")[1] ?? ""
        assert.match(text, /disk vda serial=second ro=0/)
        assert.match(text, /disk vdb serial=again ro=1/)
        yield* vms.stop("pc")
        const down = yield* vms.detachDisk("pc", "again")
        assert.deepStrictEqual(
          down.spec.disks.map(({ path }) => path),
          [second],
          "by its serial"
        )
        // a name that two of them have says nothing
        yield* vms.attachDisk("pc", diskOf({ path: first, serial: "second" }))
        const twice = yield* Effect.flip(vms.detachDisk("pc", "second"))
        assert.strictEqual(
          twice.message,
          `path: is a name of more than one of its disks: ${second}, ${first}; say which path`
        )
        assert.lengthOf((yield* vms.detachDisk("pc", second ?? "")).spec.disks, 1)
      })
    )
  )

  it.live("a microvm takes none while it runs, and what its hypervisor does not take is not in the record", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const disk = diskOf({ path: makeDisk(join(state, "disk")) })
        yield* vms.create(yield* specOf("micro"), { wait: true })
        const refused = yield* Effect.flip(vms.attachDisk("micro", disk))
        assert.strictEqual(refused.message, "disk: a microvm takes and gives no device while it runs: stop it first")
        yield* vms.remove("micro", { force: true })

        yield* vms.create(yield* specOf("pc", pc), { wait: true })
        const closed = yield* Effect.flip(
          vms.attachNic("pc", nicOf({ forwards: [{ hostPort: 22_222, guestPort: 22 }] }))
        )
        assert.include(closed.message, "it was started without a card")
        assert.deepStrictEqual((yield* vms.get("pc")).spec.nics, [])
        yield* vms.attachNic("pc", nicOf({}))
        for (let index = 0; index < 7; index++) {
          yield* vms.attachDisk("pc", diskOf({ path: makeDisk(join(state, `disk${index}`)) }))
        }
        const full = yield* Effect.flip(vms.attachDisk("pc", disk))
        assert.include(full.message, "it has no free slot: 8 can be plugged in")
        assert.lengthOf((yield* vms.get("pc")).spec.disks, 7)
        yield* vms.remove("pc", { force: true })
      })
    )
  )

  it.live("a brain that died between two steps leaves nothing half plugged in", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      yield* Effect.gen(function* () {
        const paths = ["stays", "leaves", "comes"].map((name) => makeDisk(join(state, name)))
        const [stays = "", leaves = "", comes = ""] = paths
        const first = yield* Scope.make()
        const { context, vms } = yield* Scope.provide(brain(state, { ending: "release" }), first)
        const disks = [
          { path: stays, serial: "stays" },
          { path: leaves, serial: "leaves" }
        ]
        yield* vms.create(yield* specOf("pc", { ...pc, disks }), { wait: true })
        yield* says(vms, "pc", "guest: ready")
        // as if it had committed, and done nothing yet
        const records = yield* Records.open(Context.get(context, State.State))
        const added = yield* specOf("pc", { ...pc, disks: [...disks, { path: comes, serial: "comes" }] })
        yield* records.update("pc", ({ value }) => ({
          ...value,
          spec: added,
          leaving: [diskId({ path: leaves })]
        }))
        yield* Scope.close(first, Exit.void)

        const second = yield* Scope.make()
        const next = yield* Scope.provide(brain(state), second)
        const stored = yield* Records.open(Context.get(next.context, State.State))
        yield* eventually(
          "the record without what has left",
          stored.get("pc"),
          (found) => Option.isSome(found) && found.value.value.leaving === undefined,
          60
        )
        const text = yield* devices(next.vms, "pc", (seen) => seen.includes("serial=comes"))
        assert.include(text, "serial=stays")
        assert.notInclude(text, "serial=leaves")
        assert.deepStrictEqual(
          (yield* next.vms.get("pc")).spec.disks.map(({ path }) => path),
          [stays, comes]
        )
        yield* next.vms.remove("pc", { force: true })
        yield* Scope.close(second, Exit.void)
        // what was in it is still there
        const file = openSync(leaves, "r")
        assert.strictEqual(readSync(file, Buffer.alloc(MIB)), MIB)
        closeSync(file)
      }).pipe(Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )
})
