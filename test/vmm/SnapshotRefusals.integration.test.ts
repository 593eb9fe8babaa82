/** What is refused about snapshots, and what goes wrong with them: the machine goes on, and nothing half is left. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { spawnSync } from "node:child_process"
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { kill } from "node:process"
import * as State from "../../src/storage/State.ts"
import * as Records from "../../src/vmm/Records.ts"
import { VmMoves, VmRestores, VmSnapshots } from "../../src/vmm/VmSnapshots.ts"
import { eventually } from "../support/eventually.ts"
import * as Taproot from "../support/taproot.ts"
import { brain, leftovers, mount, room, specOf, stateDirectory, withVms } from "./world.ts"

const small = { memoryBytes: 64 * 1024 ** 2, commandLine: "console=ttyS0 guest.do=deaf", stopGracePeriod: 0 }

/** Takes all of the room that is left. */
const fill = (directory: string) => {
  const { bavail, bsize } = statfsSync(directory)
  spawnSync("fallocate", ["-l", String(bavail * bsize), join(directory, "filler")])
}

/** The process that writes a copy, if there is one. */
const copierOf = (to: string): number | undefined =>
  readdirSync("/proc")
    .filter((one) => /^\d+$/.test(one))
    .map(Number)
    .find((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0").includes(to)
      } catch {
        return false
      }
    })

describe("snapshots", () => {
  it.live("one that is damaged, incomplete or of another hypervisor is refused before anything is touched", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const snapshots = yield* VmSnapshots
        const restores = yield* VmRestores
        const disk = join(state, "web.img")
        writeFileSync(disk, "")
        truncateSync(disk, 1024 ** 2)
        const { pid } = yield* vms.create(yield* specOf("web", { ...small, disks: [{ path: disk }] }), { wait: true })
        yield* snapshots.create("web", "good")
        const home = join(state, "vm/snapshots/web/good")
        const refusal = Effect.map(Effect.flip(restores.restore("web", "good")), ({ _tag, message }) => {
          assert.strictEqual(_tag, "SnapshotUnusable")
          return message
        })

        const manifest = readFileSync(join(home, "manifest.json"), "utf8")
        const said = (words: string, instead: string) =>
          writeFileSync(join(home, "manifest.json"), manifest.replace(words, instead))
        const version = /"version":"([\d.]+)/.exec(manifest)?.[1] ?? ""
        said(`"version":"${version}`, '"version":"6.0.0')
        assert.include(yield* refusal, "a microvm goes on only with qemu 6.0.0")
        said('"type":"microvm"', '"type":"pc-q35-99.0"')
        assert.include(yield* refusal, "it is a pc-q35-99.0, which qemu")
        said('"accelerator":"tcg"', '"accelerator":"kvm"')
        assert.include(yield* refusal, "it ran on kvm, and here is tcg")
        said('"snapshot":"good"', '"snapshot":"other"')
        assert.include(yield* refusal, "is of snapshot other of web")
        said('"name":"web","snapshot"', '"name":"db","snapshot"')
        assert.include(yield* refusal, "is of snapshot good of db")
        said('"spec":{"name":"web"', '"spec":{"name":"db"')
        assert.include(yield* refusal, "is of snapshot good of web")
        said('"version":1', '"version":2')
        assert.include(yield* refusal, "manifest.json")
        said('"name":"disk0"', '"name":"../../../../../etc/passwd"')
        assert.include(yield* refusal, "manifest.json")
        writeFileSync(join(home, "manifest.json"), manifest.slice(0, 100))
        assert.include(yield* refusal, "manifest.json")
        writeFileSync(join(home, "manifest.json"), manifest)

        const flipped = readFileSync(join(home, "disk0"))
        flipped[4711] = 1
        renameSync(join(home, "disk0"), join(home, "kept"))
        writeFileSync(join(home, "disk0"), flipped)
        assert.include(yield* refusal, "disk0 is damaged")
        renameSync(join(home, "kept"), join(home, "disk0"))
        truncateSync(join(home, "memory"), 1_000_000)
        assert.include(yield* refusal, "memory has 1000000 bytes instead of")
        rmSync(join(home, "memory"))
        assert.include(yield* refusal, "memory is missing")
        const cloned = yield* Effect.flip(restores.clone("web", "good", "web2"))
        assert.include(cloned.message, "memory is missing")

        // its disks alone are still good for a machine that boots
        assert.strictEqual((yield* restores.clone("web", "good", "web2", { cold: true })).state, "running")
        assert.isTrue(existsSync(join(state, "web2-web.img")))
        yield* vms.remove("web2", { force: true })
        rmSync(join(state, "web2-web.img"))
        const after = yield* vms.get("web")
        assert.deepStrictEqual([after.pid, after.state], [pid, "running"])
        assert.deepStrictEqual(
          readdirSync(state).filter((one) => one.includes("web")),
          ["web.img"]
        )
      })
    )
  )

  it.live("of a machine that is removed while it goes back, nothing is left beside its disks", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const snapshots = yield* VmSnapshots
        const restores = yield* VmRestores
        const disk = join(state, "web.img")
        writeFileSync(disk, Buffer.alloc(32 * 1024 ** 2, "disk"))
        const spec = yield* specOf("web", { ...small, disks: [{ path: disk }] })
        yield* vms.create(spec, { wait: true })
        yield* snapshots.create("web", "good")
        const restoring = yield* Effect.forkChild(Effect.flip(restores.restore("web", "good")))
        let copier: number | undefined
        yield* eventually("its disk to be copied", () => {
          copier = copierOf(`${state}/.web.img.web.restore`)
          return copier !== undefined && kill(copier, "SIGSTOP")
        })
        yield* vms.remove("web", { force: true })
        const { uid } = yield* vms.create(spec, { start: false })
        kill(copier ?? Number.NaN, "SIGCONT")
        assert.strictEqual((yield* Fiber.join(restoring))._tag, "VmNotFound")
        const after = yield* vms.get("web")
        assert.deepStrictEqual([after.uid, after.state], [uid, "stopped"], "the new one is another one")
        assert.deepStrictEqual(
          readdirSync(state).filter((one) => one.includes("web")),
          ["web.img"]
        )
      })
    )
  )

  it.live("without room, or when there is none any more, nothing is left of it and the machine goes on", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      const place = join(state, "vm/snapshots")
      const home = join(place, "web")
      yield* room(place, 64)
      yield* Effect.gen(function* () {
        const { root, snapshots, vms } = yield* brain(state)
        const { pid } = yield* vms.create(yield* specOf("web", small), { wait: true })
        const goesOn = Effect.map(vms.get("web"), (vm) => assert.deepStrictEqual([vm.pid, vm.state], [pid, "running"]))
        const refused = yield* Effect.flip(snapshots.create("web", "good"))
        assert.strictEqual(refused._tag, "SnapshotNoRoom")
        assert.deepStrictEqual(readdirSync(home), [])
        yield* goesOn

        mount("-o", "remount,size=160m", place)
        const making = yield* Effect.forkChild(Effect.flip(snapshots.create("web", "good")))
        yield* eventually("it to be written", () => existsSync(join(home, ".good/memory")))
        fill(place)
        const failed = yield* Fiber.join(making)
        assert.strictEqual(failed._tag, "SnapshotFailed", failed.message)
        assert.deepStrictEqual(readdirSync(home), [])
        yield* goesOn

        rmSync(join(place, "filler"))
        assert.strictEqual((yield* snapshots.create("web", "good")).snapshot, "good")
        yield* root.end("stop")
        assert.deepStrictEqual(leftovers(state), [])
      }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )

  it.live("one that is paused stays so, and cannot be written twice before it has gone on", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        const snapshots = yield* VmSnapshots
        const restores = yield* VmRestores
        const moves = yield* VmMoves
        yield* vms.create(yield* specOf("web", small), { wait: true })
        assert.strictEqual((yield* vms.pause("web")).state, "paused")
        assert.isTrue((yield* snapshots.create("web", "good")).paused)
        assert.strictEqual((yield* vms.get("web")).state, "paused")
        const again = yield* Effect.flip(snapshots.create("web", "again"))
        assert.include(again.message, "resume it first")
        assert.include((yield* Effect.flip(moves.migrate("web"))).message, "resume it first")
        assert.strictEqual((yield* vms.get("web")).state, "paused")

        assert.strictEqual((yield* restores.restore("web", "good")).state, "paused")
        const { vm } = yield* moves.migrate("web")
        assert.strictEqual(vm.state, "paused")
        assert.strictEqual((yield* vms.resume("web")).state, "running")
        // as a brain leaves it that dies while it lets the guest go on
        const records = yield* Records.open(yield* State.State)
        const { label } = yield* vms.attach("web")
        yield* records.update("web", ({ value }) => Records.withPaused(value, label))
        assert.isFalse((yield* snapshots.create("web", "late")).paused)
        const after = yield* records.get("web")
        assert.isUndefined(Option.getOrThrow(after).value.paused, "whoever settles it lets it go on")
        yield* vms.stop("web", Duration.zero)
        assert.strictEqual((yield* Effect.flip(snapshots.create("web", "again")))._tag, "VmWrongState")
        assert.strictEqual((yield* restores.restore("web", "good")).state, "paused", "also one that is down goes back")
      })
    )
  )
})
