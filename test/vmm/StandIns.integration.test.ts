/**
 * The drivers for Cloud Hypervisor and Firecracker under the real `Vms`, real taproot and real `launch`, with stand-ins for the
 * programs themselves (`standIn/program.ts`): the whole life of a machine, and how its ends are told apart.
 *
 * With the real programs on the path and a KVM that works, `RealPrograms.integration.test.ts` does the same with those.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { kill } from "node:process"
import { Hypervisor } from "../../src/vmm/Hypervisor.ts"
import { LONGEST } from "../../src/vmm/cloud-hypervisor/Events.ts"
import { VmSpec } from "../../src/vmm/VmSpec.ts"
import { eventually } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"
import { drivers, machine, withStandIns } from "./standIn/machines.ts"
import { brain, leftovers, says, stateDirectory, until, withVms } from "./world.ts"

describe.each(drivers)("$hypervisor", (driver) => {
  it.live("a machine lives as any other does", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ vms }) =>
          Effect.gen(function* () {
            const { hypervisor: name } = driver
            const created = yield* vms.create(yield* machine(driver, path, "idle"), { wait: true })
            assert.deepStrictEqual([created.state, created.hypervisor], ["running", name])
            yield* says(vms, name, "guest: ready")
            const { pid = 0 } = created
            assert.match(readFileSync(`/proc/${pid}/status`, "utf8"), /^Uid:\s+19\d+\s/m)
            assert.match(readFileSync(`/proc/${pid}/status`, "utf8"), /^CapBnd:\s+0+$/m)
            const process = yield* vms.attach(name)
            yield* process.write(Buffer.from("hello\n"))
            yield* says(vms, name, "guest: heard hello")
            assert.strictEqual((yield* vms.pause(name)).state, "paused")
            assert.strictEqual((yield* vms.pause(name)).state, "paused")
            assert.strictEqual((yield* vms.resume(name)).state, "running")
            if (name === "firecracker") {
              assert.match((yield* Effect.flip(vms.reset(name))).message, /cannot reset/)
            } else {
              yield* vms.reset(name)
              yield* says(vms, name, "guest: ready", 2)
              assert.strictEqual((yield* vms.get(name)).reboots, 0, "not the guest's own")
            }
            const stopped = yield* vms.stop(name)
            assert.strictEqual(stopped.state, "stopped")
            yield* says(vms, name, "guest: power button")
            assert.deepStrictEqual([stopped.lastExit?.class], ["normal"], "it powered off when it was asked to")
            assert.strictEqual(statSync(join(path, "disk")).mode & 0o777, 0o600, "nothing is left of what it might do")
            yield* vms.start(name)
            yield* says(vms, name, "guest: ready", name === "firecracker" ? 2 : 3)
            yield* vms.remove(name, { force: true })
          }),
        { path: standIns.path }
      )
    )
  )

  it.live("its ends are told apart", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ vms }) =>
          Effect.gen(function* () {
            const { hypervisor: name } = driver
            const restart = { backoff: { initial: 10, max: 10 } }
            yield* vms.create(yield* machine(driver, path, "idle", { onReboot: "end", restart }), { wait: true })
            let lives = 1
            const type = (text: string) =>
              Effect.gen(function* () {
                yield* says(vms, name, "guest: ready", lives)
                yield* Effect.flatMap(vms.attach(name), ({ write }) => write(Buffer.from(`${text}\n`)))
                const back = yield* until(
                  vms,
                  name,
                  `back after ${text}`,
                  (vm) => vm.restarts === lives && vm.state === "running"
                )
                lives++
                return back.lastExit
              })
            const panicked = yield* type("panic")
            const rebooted = yield* type("reboot")
            if (name === "cloud-hypervisor") {
              assert.deepStrictEqual([panicked?.tag, rebooted?.tag], ["GuestPanicked", "GuestRebooted"])
              assert.strictEqual((yield* type("poweroff"))?.class, "normal")
            } else {
              assert.deepStrictEqual([panicked?.class, rebooted?.class], ["normal", "normal"], "all that it tells")
              const failed = yield* type("fail")
              assert.match(failed?.message ?? "", /its hypervisor crashed: exited with code 152/)
            }
            assert.strictEqual((yield* type("crash"))?.tag, "VmmCrashed")
            yield* says(vms, name, "guest: ready", lives)
            kill((yield* vms.get(name)).pid ?? Number.NaN, "SIGTERM")
            const told = yield* until(vms, name, "back", (vm) => vm.restarts === lives && vm.state === "running")
            assert.strictEqual(told.lastExit?.tag, "VmmKilled")
            yield* vms.stop(name, Duration.zero)
          }),
        { path: standIns.path }
      )
    )
  )

  it.live("a machine lives through the death of the brain, and what its guest did meanwhile is not missed", () =>
    withStandIns((standIns, path) =>
      Effect.gen(function* () {
        const state = yield* stateDirectory
        const { hypervisor: name } = driver
        const first = yield* Scope.make()
        const { vms } = yield* Scope.provide(brain(state, { ending: "release", path: standIns.path }), first)
        const spec = { restart: { restart: "transient", backoff: { initial: 10, max: 10 } } }
        yield* vms.create(yield* machine(driver, path, "idle", spec), { wait: true })
        yield* says(vms, name, "guest: ready")
        const before = yield* vms.pause(name)
        yield* Scope.close(first, Exit.void)

        const second = yield* Scope.make()
        const next = yield* Scope.provide(brain(state, { ending: "release", path: standIns.path }), second)
        const adopted = yield* until(next.vms, name, "adopted", (vm) => vm.state === "paused")
        assert.deepStrictEqual([adopted.pid, adopted.incarnation, adopted.hypervisor], [before.pid, 2, name])
        assert.strictEqual((yield* next.vms.resume(name)).state, "running")
        const process = yield* next.vms.attach(name)
        yield* process.write(Buffer.from("still there\n"))
        yield* says(next.vms, name, "guest: heard still there")
        yield* Scope.close(second, Exit.void)
        // nobody looks after it
        yield* process.write(Buffer.from(name === "firecracker" ? "reboot\n" : "poweroff\n"))

        const third = yield* Scope.make()
        const last = yield* Scope.provide(brain(state, { path: standIns.path }), third)
        const over = yield* until(last.vms, name, "finished", (vm) => vm.state === "finished")
        assert.strictEqual(over.lastExit?.class, "normal")
        yield* last.vms.remove(name)
        yield* Scope.close(third, Exit.void)
        assert.deepStrictEqual(leftovers(state), [])
      }).pipe(Effect.provide(Taproot.layer()))
    )
  )

  it.live("a program that ends at once, answers rubbish or refuses is a start that failed, in words", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ vms }) =>
          Effect.gen(function* () {
            const { hypervisor: name } = driver
            const once = { restart: { maxConsecutive: 1, whenSpent: "park", backoff: { initial: 10, max: 10 } } }
            standIns.behave({ exit: 3 })
            const ended = yield* vms.create(yield* machine(driver, path, "idle", once), { wait: true })
            assert.strictEqual(ended.state, "parked")
            assert.include(ended.lastExit?.message, `${name}: told to end`)
            const create = name === "firecracker" ? "/machine-config" : "/api/v1/vm.create"
            standIns.behave({ path: create, answer: "rubbish" })
            const failed = yield* vms.start(name)
            assert.deepStrictEqual([failed.state, failed.lastExit?.tag], ["parked", "VmmRefused"])
            standIns.behave({})
            assert.strictEqual((yield* vms.start(name)).state, "running")
            standIns.behave({ path: name === "firecracker" ? "/vm" : "/api/v1/vm.pause", answer: "teapot" })
            assert.match((yield* Effect.flip(vms.pause(name))).message, /status 418/)
            standIns.behave({})
            assert.strictEqual((yield* vms.pause(name)).state, "paused")
          }),
        { path: standIns.path }
      )
    )
  )
})

describe("hypervisors", () => {
  it.live("are found, tried, and refuse what they cannot before anything is touched", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ vms }) =>
          Effect.gen(function* () {
            const hypervisor = yield* Hypervisor
            const found = yield* hypervisor.facts
            assert.deepStrictEqual(
              found.map(({ acceleration, name, problem }) => [name, problem, acceleration?.accelerator]).slice(1),
              [
                ["cloud-hypervisor", undefined, "kvm"],
                ["firecracker", undefined, "kvm"]
              ]
            )
            const refusal = (fields: Readonly<Record<string, unknown>>) =>
              Effect.gen(function* () {
                const failed = yield* Effect.flip(vms.create(yield* machine(drivers[1], path, "idle", fields)))
                return failed.message
              })
            assert.match(
              yield* refusal({ chipset: "q35" }),
              /^chipset: Firecracker has no q35; qemu.*or cloud-hypervisor/
            )
            assert.match(yield* refusal({ cpus: 33 }), /^cpus: Firecracker has at most 32/)
            assert.match(yield* refusal({ watchdog: true }), /^watchdog: a microvm of Firecracker has none/)
            assert.match(yield* refusal({ nics: [{}] }), /^nics: Firecracker has no user-mode network; qemu could/)
            assert.match(
              yield* refusal({ kernel: join(path, "disk") }),
              /^kernel: Firecracker boots no compressed kernel: give a vmlinux \(ELF\); qemu/
            )
            const qcow2 = [{ path: join(path, "disk"), format: "qcow2" }]
            assert.match(yield* refusal({ disks: qcow2 }), /^disks\[0\].format: Firecracker cannot read qcow2; qemu/)
            const { kernel: _, initrd: _initrd, ...uefi } = yield* machine(drivers[0], path, "idle")
            const firmware = yield* Effect.flip(vms.create(new VmSpec({ ...uefi, firmware: "uefi" })))
            assert.match(firmware.message, /^kernel: there is no firmware of Cloud Hypervisor's/)
            assert.deepStrictEqual(standIns.requests(), [])
          }),
        { path: standIns.path }
      )
    )
  )

  it.live("one on whose KVM nothing runs says so", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ vms }) =>
          Effect.gen(function* () {
            standIns.behave({ noKvm: true })
            const failed = yield* Effect.flip(vms.create(yield* machine(drivers[1], path, "idle")))
            assert.match(failed.message, /hypervisor: firecracker does not work here: it needs KVM: .*(KVM object|kvm)/)
          }),
        { path: standIns.path }
      )
    )
  )

  it.live("an older Cloud Hypervisor, which goes with its guest, and one whose guest floods its record", () =>
    withStandIns((standIns, path) =>
      withVms(
        ({ state, vms }) =>
          Effect.gen(function* () {
            const [driver] = drivers
            standIns.behave({ older: true })
            yield* vms.create(yield* machine(driver, path, "idle", { restart: { restart: "temporary" } }), {
              wait: true
            })
            yield* says(vms, "cloud-hypervisor", "guest: ready")
            const process = yield* vms.attach("cloud-hypervisor")
            yield* process.write(Buffer.from("flood\n"))
            yield* says(vms, "cloud-hypervisor", "guest: flooded")
            const record = join(state, "vm/machines/cloud-hypervisor/events")
            yield* eventually(
              "the record to be short again",
              Effect.sync(() => statSync(record).size),
              (size) => size < LONGEST
            )
            yield* process.write(Buffer.from("poweroff\n"))
            const over = yield* until(vms, "cloud-hypervisor", "finished", (vm) => vm.state === "finished")
            assert.strictEqual(over.lastExit?.class, "normal")
          }),
        { path: standIns.path }
      )
    )
  )
})
