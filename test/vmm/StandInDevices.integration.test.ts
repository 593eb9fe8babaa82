/**
 * Disks and another measure for machines of Cloud Hypervisor that run, under the real `Vms`, real taproot and real `launch`, with the
 * stand-in for the program itself: it opens every disk that it is told of, as the machine's own user, in a room of its own.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import * as State from "../../src/storage/State.ts"
import * as Records from "../../src/vmm/Records.ts"
import { diskId, DiskSpec, withFields } from "../../src/vmm/VmSpec.ts"
import { eventually } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"
import type { StandIns } from "./standIn/install.ts"
import { drivers, machine, makeDisk, withStandIns } from "./standIn/machines.ts"
import { brain, leftovers, says, stateDirectory, type, until, withVms } from "./world.ts"

const [ch, fc] = drivers
const { hypervisor: name } = ch
const MIB = 1024 ** 2
const disk = Schema.decodeUnknownSync(DiskSpec)

/** What it was asked to do with this, so often. */
const asked = (standIns: StandIns, path: string): ReadonlyArray<string> =>
  standIns.requests().filter((line) => line.startsWith(`PUT /api/v1${path} `))
/** Nobody but its owner has a right to it. */
const isGiven = (path: string): boolean => (statSync(path).mode & 0o077) !== 0

describe("Cloud Hypervisor, while its machine runs", () => {
  it.live("disks come and go", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ state, vms }) =>
          Effect.gen(function* () {
            const first = join(path, "disk")
            const second = makeDisk(join(state, "second"))
            const { pid } = yield* vms.create(yield* machine(ch, path, "idle"), { wait: true })
            yield* says(vms, name, "guest: ready")
            const plugged = yield* vms.attachDisk(name, disk({ path: second, serial: "second" }))
            assert.lengthOf(plugged.spec.disks, 2)
            yield* vms.attachDisk(name, disk({ path: second, serial: "second" }))
            const [request, ...others] = asked(standIns, "/vm.add-disk")
            assert.include(request, `"path":"/proc/self/fd/250/${diskId({ path: second })}"`)
            assert.deepStrictEqual(others, [], "the same is the same")
            assert.isTrue(isGiven(second))

            // a hypervisor that says no: it is as if nobody had asked
            const third = makeDisk(join(state, "third"))
            standIns.behave({ path: "/api/v1/vm.add-disk", answer: "teapot" })
            const failed = yield* Effect.flip(vms.attachDisk(name, disk({ path: third })))
            assert.match(failed.message, /vm.add-disk.*|status 418/)
            standIns.behave({})
            assert.lengthOf((yield* vms.get(name)).spec.disks, 2)
            assert.isFalse(isGiven(third))
            const nic = yield* Effect.flip(vms.attachNic(name, { forwards: [], hostAccess: false }))
            assert.match(nic.message, /Cloud Hypervisor has no user-mode network; qemu/)

            assert.lengthOf((yield* vms.detachDisk(name, "second")).spec.disks, 1)
            assert.isFalse(isGiven(second), "nothing is left of what it might do")
            assert.isTrue(isGiven(first))

            // also one that it was started with; what is there at the next start is what the record says
            yield* vms.attachDisk(name, disk({ path: second, readOnly: true }))
            assert.lengthOf((yield* vms.detachDisk(name, first)).spec.disks, 1)
            assert.strictEqual((yield* vms.get(name)).pid, pid)
            yield* vms.stop(name)
            assert.deepStrictEqual([isGiven(first), isGiven(second)], [false, false])
            yield* vms.start(name)
            const last = asked(standIns, "/vm.create").at(-1) ?? ""
            assert.deepStrictEqual(
              [...last.matchAll(/"id":"(disk-[a-z0-9]+)"/g)].map(([, id]) => id),
              [diskId({ path: second })]
            )
            yield* vms.remove(name, { force: true })
          }),
        { path: standIns.path }
      )
    )
  )

  it.live("what a brain has plugged in, or was about to, the next one finds", () =>
    withStandIns((standIns, path) =>
      Effect.gen(function* () {
        const state = yield* stateDirectory
        const paths = ["stays", "leaves", "comes"].map((one) => makeDisk(join(state, one)))
        const [stays = "", leaves = "", comes = ""] = paths
        const first = yield* Scope.make()
        const { context, vms } = yield* Scope.provide(brain(state, { ending: "release", path: standIns.path }), first)
        const { pid } = yield* vms.create(yield* machine(ch, path, "idle"), { wait: true })
        yield* says(vms, name, "guest: ready")
        yield* vms.attachDisk(name, disk({ path: stays }))
        yield* vms.attachDisk(name, disk({ path: leaves }))
        // as if it had committed, and done nothing yet
        const records = yield* Records.open(Context.get(context, State.State))
        yield* records.update(name, ({ value }) => ({
          ...value,
          spec: withFields(value.spec, { disks: [...value.spec.disks, disk({ path: comes })] }),
          leaving: [diskId({ path: leaves })]
        }))
        yield* Scope.close(first, Exit.void)

        const second = yield* Scope.make()
        const next = yield* Scope.provide(brain(state, { path: standIns.path }), second)
        const stored = yield* Records.open(Context.get(next.context, State.State))
        yield* eventually(
          "the record without what has left, and the machine with what was to come",
          stored.get(name),
          (found) =>
            Option.isSome(found) &&
            found.value.value.leaving === undefined &&
            asked(standIns, "/vm.add-disk").length === 3,
          60
        )
        const adopted = yield* until(next.vms, name, "adopted", (vm) => vm.state === "running" && vm.pid === pid)
        assert.deepStrictEqual(
          adopted.spec.disks.map((one) => one.path),
          [join(path, "disk"), stays, comes]
        )
        yield* eventually(
          "the rights to be those of its disks",
          Effect.sync(() => paths.map(isGiven)),
          (given) => given.join() === "true,false,true",
          60
        )
        assert.lengthOf(asked(standIns, "/vm.remove-device"), 1)
        yield* next.vms.detachDisk(name, stays)
        yield* next.vms.remove(name, { force: true })
        assert.deepStrictEqual(paths.map(isGiven), [false, false, false])
        yield* Scope.close(second, Exit.void)
        assert.deepStrictEqual(leftovers(state), [])
      }).pipe(Effect.provide(Taproot.layer()))
    )
  )

  it.live("processors, memory, what its balloon leaves, and disks", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ state, vms }) =>
          Effect.gen(function* () {
            const data = makeDisk(join(state, "data"), MIB)
            const fields = {
              maxCpus: 4,
              topology: { sockets: 2, cores: 2, threads: 1, numaNodes: 1 },
              maxMemoryBytes: 320 * MIB,
              balloon: true,
              balloonBytes: 96 * MIB,
              disks: [{ path: data, serial: "data", sizeBytes: 2 * MIB }]
            }
            const { pid } = yield* vms.create(yield* machine(ch, path, "idle", fields), { wait: true })
            yield* says(vms, name, "guest: ready")
            assert.strictEqual(statSync(data).size, 2 * MIB, "before its guest sees any of it")
            const [made = ""] = asked(standIns, "/vm.create")
            assert.include(made, `"balloon":{"size":${32 * MIB}`)
            assert.include(made, `"hotplug_size":${256 * MIB}`, "in its own steps")

            const grown = yield* vms.resize(name, {
              cpus: 3,
              memoryBytes: 256 * MIB,
              balloonBytes: 256 * MIB,
              disks: [{ path: "data", sizeBytes: 3 * MIB }]
            })
            assert.deepStrictEqual([grown.spec.cpus, grown.pid], [3, pid])
            assert.strictEqual(statSync(data).size, 3 * MIB)
            const wanted = asked(standIns, "/vm.resize").map((line) => line.slice(line.indexOf("{")))
            assert.deepStrictEqual(wanted, [
              '{"desired_vcpus":3}',
              `{"desired_ram":${256 * MIB}}`,
              '{"desired_balloon":0}'
            ])
            assert.strictEqual((yield* vms.resize(name, { memoryBytes: 128 * MIB, balloonBytes: 64 * MIB })).pid, pid)
            const less = yield* Effect.flip(vms.resize(name, { memoryBytes: 96 * MIB, balloonBytes: 64 * MIB }))
            assert.include(less.message, "the 128 MiB that it was started with stay until it is stopped")
            assert.strictEqual((yield* vms.get(name)).spec.memoryBytes, 128 * MIB)

            assert.strictEqual((yield* vms.resize(name, { cpus: 1 })).spec.cpus, 1)

            standIns.behave({ path: "/api/v1/vm.resize", answer: "teapot" })
            const failed = yield* Effect.flip(vms.resize(name, { cpus: 4 }))
            assert.match(failed.message, /status 418/)
            standIns.behave({})
            assert.strictEqual((yield* vms.get(name)).spec.cpus, 1)
            yield* vms.remove(name, { force: true })
          }),
        { path: standIns.path }
      )
    )
  )

  // a guest is given 20 seconds for each
  it.live.skipIf(process.env["IRONWOOD_BOOT"] !== "all")("what its guest keeps, it has", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ state, vms }) =>
          Effect.gen(function* () {
            const second = makeDisk(join(state, "second"))
            yield* vms.create(yield* machine(ch, path, "idle", { cpus: 3 }), { wait: true })
            yield* says(vms, name, "guest: ready")
            yield* vms.attachDisk(name, disk({ path: second }))
            yield* type(vms, name, "cling")
            yield* says(vms, name, "guest: heard cling")
            const kept = yield* Effect.flip(vms.detachDisk(name, second))
            assert.strictEqual(kept._tag, "VmDeviceKept")
            assert.lengthOf((yield* vms.get(name)).spec.disks, 2)
            assert.isTrue(isGiven(second))
            const processors = yield* Effect.flip(vms.resize(name, { cpus: 2 }))
            assert.include(processors.message, "its processors")
            assert.strictEqual((yield* vms.get(name)).spec.cpus, 3)
            yield* type(vms, name, "behave")
            yield* says(vms, name, "guest: heard behave")
            assert.lengthOf((yield* vms.detachDisk(name, second)).spec.disks, 1)
            assert.isFalse(isGiven(second))
            assert.strictEqual((yield* vms.resize(name, { cpus: 1 })).spec.cpus, 1)
            yield* vms.remove(name, { force: true })
          }),
        { path: standIns.path }
      )
    )
  )

  it.live("a disk is where the machine sees it, and nowhere on the host", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ state, vms }) =>
          Effect.gen(function* () {
            const second = makeDisk(join(state, "second"))
            const { pid = 0 } = yield* vms.create(yield* machine(ch, path, "idle"), { wait: true })
            yield* vms.attachDisk(name, disk({ path: second, readOnly: true }))
            const mounts = (of: string) => readFileSync(`/proc/${of}/mountinfo`, "utf8")
            const place = join(state, "vm/machines", name, "lent", diskId({ path: second }))
            const [line = ""] = mounts(String(pid))
              .split("\n")
              .filter((one) => one.includes(` ${place} `))
            assert.match(line, / ro,nosuid,nodev,noexec/)
            assert.notInclude(mounts("self"), place)
            yield* vms.detachDisk(name, second)
            assert.notInclude(mounts(String(pid)), place)
            yield* vms.remove(name, { force: true })
          }),
        { path: standIns.path }
      )
    )
  )
})

describe("Firecracker, while its machine runs", () => {
  it.live("disks grow and the balloon is set; anything else is refused, with who can", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ state, vms }) =>
          Effect.gen(function* () {
            const data = makeDisk(join(state, "data"), MIB)
            const fields = { balloon: true, disks: [{ path: join(path, "disk"), readOnly: true }, { path: data }] }
            yield* vms.create(yield* machine(fc, path, "idle", fields), { wait: true })
            yield* says(vms, fc.hypervisor, "guest: ready")
            yield* vms.resize(fc.hypervisor, { balloonBytes: 96 * MIB, disks: [{ path: data, sizeBytes: 2 * MIB }] })
            assert.strictEqual(statSync(data).size, 2 * MIB)
            const changes = standIns.requests().filter((line) => line.startsWith("PATCH "))
            assert.deepStrictEqual(changes, [
              'PATCH /drives/drive1 {"drive_id":"drive1","path_on_host":"/proc/self/fd/6"}',
              'PATCH /balloon {"amount_mib":32}'
            ])
            const refused = [
              vms.attachDisk(fc.hypervisor, disk({ path: makeDisk(join(state, "more")) })),
              vms.resize(fc.hypervisor, { cpus: 2 }),
              vms.resize(fc.hypervisor, { memoryBytes: 256 * MIB }),
              vms.resize(fc.hypervisor, { disks: [{ path: data, limits: { operations: 10 } }] })
            ]
            for (const one of refused) assert.strictEqual((yield* Effect.flip(one))._tag, "VmSpecInvalid")
            standIns.behave({ path: "/balloon", answer: "teapot" })
            const failed = yield* Effect.flip(vms.resize(fc.hypervisor, { balloonBytes: 64 * MIB }))
            assert.match(failed.message, /status 418/)
            standIns.behave({})
            assert.strictEqual((yield* vms.get(fc.hypervisor)).spec.balloonBytes, 96 * MIB)
            yield* vms.remove(fc.hypervisor, { force: true })
            const grows = yield* Effect.flip(vms.create(yield* machine(fc, path, "idle", { maxCpus: 4 })))
            assert.match(grows.message, /^maxCpus: a microvm of Firecracker gets no processors while it runs/)
          }),
        { path: standIns.path }
      )
    )
  )
})
