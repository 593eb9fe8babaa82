/**
 * Snapshots of machines of Cloud Hypervisor and Firecracker under the real `Vms`, real taproot and real `launch`, with the stand-ins for
 * the programs themselves: they write and read their files where they are lent a place for them, as the machine's own user.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { appendFileSync, existsSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { SnapshotUnusable } from "../../src/vmm/SnapshotError.ts"
import { DiskSpec } from "../../src/vmm/VmSpec.ts"
import { VmMoves, VmRestores, VmSnapshots } from "../../src/vmm/VmSnapshots.ts"
import type { Vms } from "../../src/vmm/Vms.ts"
import { eventually } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"
import { drivers, machine, makeDisk, withStandIns } from "./standIn/machines.ts"
import { brain, leftovers, mark, says, stateDirectory, type, until, withVms } from "./world.ts"

const save = { "cloud-hypervisor": "/api/v1/vm.snapshot", firecracker: "/snapshot/create" }
const load = { "cloud-hypervisor": "/api/v1/vm.restore", firecracker: "/snapshot/load" }

const remember = (vms: Vms["Service"], name: string, what: string, often: number) =>
  Effect.andThen(type(vms, name, `set:${what}`), says(vms, name, "guest: set", often))

/** What there is of a machine's snapshots, whole or not. */
const kept = (state: string, name: string): ReadonlyArray<string> => {
  const directory = join(state, "vm/snapshots", name)
  return existsSync(directory) ? readdirSync(directory) : []
}

describe.each(drivers)("snapshots of $hypervisor", (driver) => {
  const { hypervisor: name } = driver

  it.live("a machine goes on, goes back to it, and another one is made of it", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ state, vms }) =>
          Effect.gen(function* () {
            const snapshots = yield* VmSnapshots
            const restores = yield* VmRestores
            yield* vms.create(yield* machine(driver, path, "idle", { balloon: true }), { wait: true })
            yield* says(vms, name, "guest: ready")
            if (name === "cloud-hypervisor") {
              const second = yield* Schema.decodeUnknownEffect(DiskSpec)({ path: makeDisk(join(state, "second")) })
              yield* vms.attachDisk(name, second)
            }
            const { disks } = (yield* vms.get(name)).spec
            yield* remember(vms, name, "one", 1)
            const taken = yield* snapshots.create(name, "good")
            assert.strictEqual(taken.hypervisor.model.type, name)
            assert.deepStrictEqual(
              readdirSync(join(state, "vm/snapshots", name, "good")).filter((file) => file.startsWith("memory")),
              ["memory", ...(taken.beside ?? []).map((file) => file.name)].toSorted()
            )
            for (const file of readdirSync(join(state, "vm/snapshots", name, "good"))) {
              const { mode, uid } = statSync(join(state, "vm/snapshots", name, "good", file))
              assert.deepStrictEqual([uid, mode & 0o077], [0, 0], file)
            }
            assert.strictEqual((yield* vms.get(name)).state, "running")
            yield* remember(vms, name, "two", 2)
            assert.strictEqual(yield* mark(vms, name), "two")

            const before = yield* vms.get(name)
            const restored = yield* restores.restore(name, "good")
            assert.deepStrictEqual([restored.state, restored.spec.disks], ["running", disks])
            assert.notStrictEqual(restored.pid, before.pid)
            assert.strictEqual(yield* mark(vms, name), "one")
            for (const file of readdirSync(join(state, "vm/snapshots", name, "good"))) {
              assert.strictEqual(statSync(join(state, "vm/snapshots", name, "good", file)).mode & 0o077, 0, file)
            }

            const cloned = yield* restores.clone(name, "good", "other")
            assert.strictEqual(cloned.state, "running")
            assert.strictEqual(yield* mark(vms, "other"), "one")
            yield* remember(vms, "other", "three", 1)
            assert.strictEqual(yield* mark(vms, name), "one")

            // one that a person has paused stays so, and comes back so
            yield* vms.pause(name)
            yield* snapshots.create(name, "still")
            assert.strictEqual((yield* vms.get(name)).state, "paused")
            assert.strictEqual((yield* restores.restore(name, "still")).state, "paused")
            assert.strictEqual((yield* vms.resume(name)).state, "running")
            assert.strictEqual(yield* mark(vms, name), "one")
            if (name === "cloud-hypervisor") {
              // its files are where its new life has them
              yield* type(vms, name, "reboot")
              yield* says(vms, name, "guest: ready", 2)
              assert.lengthOf((yield* vms.detachDisk(name, join(state, "second"))).spec.disks, 1)
            }

            const move = yield* Effect.flip((yield* VmMoves).migrate(name))
            assert.match(move.message, /does not move a machine that runs; qemu could/)
            assert.strictEqual((yield* vms.get(name)).state, "running")

            for (const file of (taken.beside ?? []).slice(0, 1)) {
              appendFileSync(join(state, "vm/snapshots", name, "good", file.name), " ")
            }
            const damaged = yield* Effect.flip(restores.restore(name, "good"))
            assert.strictEqual(damaged._tag, "SnapshotUnusable")
            // one that cannot be read is among the others, with what is wrong
            writeFileSync(join(state, "vm/snapshots", name, "still/manifest.json"), "{")
            const listed = yield* snapshots.list(name)
            assert.deepStrictEqual(
              listed.map(({ snapshot }) => snapshot),
              ["good", "still"]
            )
            const [, broken] = listed
            assert.isTrue(broken instanceof SnapshotUnusable)
            assert.include(broken instanceof SnapshotUnusable ? broken.problem : "", "manifest.json")
            for (const one of ["good", "still"]) yield* snapshots.remove(name, one)
            assert.deepStrictEqual(kept(state, name), [])
            yield* vms.remove("other", { force: true })
            yield* vms.remove(name, { force: true })
            assert.strictEqual(standIns.requests().filter((line) => line.startsWith(`PUT ${save[name]} `)).length, 2)
          }),
        { path: standIns.path }
      )
    )
  )

  it.live("a hypervisor that says no leaves nothing behind, and a guest that goes on", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ state, vms }) =>
          Effect.gen(function* () {
            const snapshots = yield* VmSnapshots
            const restores = yield* VmRestores
            const restart = { backoff: { initial: 10, max: 10 } }
            yield* vms.create(yield* machine(driver, path, "idle", { restart }), { wait: true })
            yield* says(vms, name, "guest: ready")
            for (const answer of ["teapot", "cut"]) {
              standIns.behave({ path: save[name], answer })
              const failed = yield* Effect.flip(snapshots.create(name, "bad"))
              assert.strictEqual(failed._tag, "SnapshotFailed")
              standIns.behave({})
              assert.strictEqual((yield* vms.get(name)).state, "running")
              yield* type(vms, name, answer)
              yield* says(vms, name, `guest: heard ${answer}`)
              assert.deepStrictEqual(kept(state, name), [])
            }
            yield* remember(vms, name, "one", 1)
            yield* snapshots.create(name, "good")
            // one that does not take it begins from its disks
            standIns.behave({ path: load[name], answer: "teapot" })
            yield* Effect.ignore(restores.restore(name, "good"))
            const back = yield* until(vms, name, "back", (vm) => vm.state === "running")
            assert.isAbove(back.incarnation ?? 0, 1)
            yield* says(vms, name, "guest: ready", 2)
            assert.strictEqual(yield* mark(vms, name), "")
            standIns.behave({})
            yield* restores.restore(name, "good")
            assert.strictEqual(yield* mark(vms, name), "one")
            yield* snapshots.remove(name, "good")
            yield* vms.remove(name, { force: true })
          }),
        { path: standIns.path }
      )
    )
  )

  it.live("a brain that dies while it is written leaves nothing of it, and the next one lets the guest go on", () =>
    withStandIns((standIns, path) =>
      Effect.gen(function* () {
        const state = yield* stateDirectory
        const first = yield* Scope.make()
        const { snapshots, vms } = yield* Scope.provide(brain(state, { ending: "release", path: standIns.path }), first)
        const { pid } = yield* vms.create(yield* machine(driver, path, "idle"), { wait: true })
        yield* says(vms, name, "guest: ready")
        standIns.behave({ path: save[name], answer: "late" })
        const writing = yield* Effect.forkChild(Effect.exit(snapshots.create(name, "bad")))
        yield* eventually(
          "it to be asked for it",
          Effect.sync(() => standIns.requests().filter((line) => line.startsWith(`PUT ${save[name]} `)).length),
          (times) => times === 1
        )
        yield* Effect.sleep("200 millis")
        // as a kill does it: nobody lets the guest go on
        yield* Fiber.interrupt(writing).pipe(Effect.forkChild)
        yield* Scope.close(first, Exit.void)
        standIns.behave({})

        const second = yield* Scope.make()
        const next = yield* Scope.provide(brain(state, { path: standIns.path }), second)
        yield* until(next.vms, name, "adopted", (vm) => vm.state === "running" && vm.pid === pid)
        yield* type(next.vms, name, "hello")
        yield* says(next.vms, name, "guest: heard hello")
        assert.deepStrictEqual(kept(state, name), [])
        assert.deepStrictEqual(yield* next.snapshots.list(name), [])
        yield* remember(next.vms, name, "one", 1)
        yield* next.snapshots.create(name, "good")
        yield* next.restores.restore(name, "good")
        assert.strictEqual(yield* mark(next.vms, name), "one")
        yield* next.snapshots.remove(name, "good")
        yield* next.vms.remove(name, { force: true })
        yield* Scope.close(second, Exit.void)
        assert.deepStrictEqual(leftovers(state), [])
      }).pipe(Effect.provide(Taproot.layer()))
    )
  )
})
