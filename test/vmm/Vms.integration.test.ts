/** Virtual machines under supervision, with real guests. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { existsSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { kill } from "node:process"
import * as State from "../../src/storage/State.ts"
import * as Uefi from "../../src/vmm/Uefi.ts"
import { VmSpec } from "../../src/vmm/VmSpec.ts"
import * as Records from "../../src/vmm/Records.ts"
import { eventually } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"
import { brain, consoleText, leftovers, says, specOf, stateDirectory, until, withVms } from "./world.ts"

describe("Vms", () => {
  it.live("every end is told apart, and the policy brings the machine back", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        const spec = yield* specOf("web")
        const created = yield* vms.create(spec, { wait: true })
        assert.deepStrictEqual([created.state, created.desired], ["running", "running"])
        // the same again is the same; another under its name is refused
        assert.strictEqual((yield* vms.create(spec)).uid, created.uid)
        const taken = yield* Effect.flip(vms.create(yield* specOf("web", { cpus: 2 })))
        assert.include(taken.message, "exists with another spec (cpus)")

        const type = (text: string) => Effect.flatMap(vms.attach("web"), ({ write }) => write(Buffer.from(`${text}\n`)))
        yield* says(vms, "web", "guest: ready")
        assert.strictEqual((yield* vms.pause("web")).state, "paused")
        assert.strictEqual((yield* vms.pause("web")).state, "paused")
        assert.strictEqual((yield* vms.resume("web")).state, "running")
        yield* type("how are you")
        yield* says(vms, "web", "guest: heard how are you")

        // a reboot is a matter of the guest's own
        yield* type("reboot")
        yield* says(vms, "web", "guest: ready", 2)
        assert.strictEqual((yield* vms.get("web")).reboots, 1)
        assert.strictEqual((yield* vms.get("web")).pid, created.pid)

        yield* type("panic")
        const panicked = yield* until(
          vms,
          "web",
          "panicked and back",
          (vm) => vm.restarts === 1 && vm.state === "running"
        )
        assert.strictEqual(panicked.lastExit?.tag, "GuestPanicked")
        assert.notStrictEqual(panicked.pid, created.pid)

        kill(panicked.pid ?? Number.NaN, "SIGKILL")
        const killed = yield* until(vms, "web", "killed and back", (vm) => vm.restarts === 2 && vm.state === "running")
        assert.strictEqual(killed.lastExit?.message, "somebody killed its hypervisor (SIGKILL)")
        kill(killed.pid ?? Number.NaN, "SIGTERM")
        const told = yield* until(
          vms,
          "web",
          "told to end and back",
          (vm) => vm.restarts === 3 && vm.state === "running"
        )
        assert.strictEqual(told.lastExit?.message, "somebody killed its hypervisor (SIGTERM)")
        kill(told.pid ?? Number.NaN, "SIGSEGV")
        const crashed = yield* until(
          vms,
          "web",
          "crashed and back",
          (vm) => vm.restarts === 4 && vm.state === "running"
        )
        assert.strictEqual(crashed.lastExit?.tag, "VmmCrashed")

        // the power button, which it must be awake to hear
        yield* says(vms, "web", "guest: ready", 3)
        const stopped = yield* vms.stop("web")
        assert.deepStrictEqual([stopped.state, stopped.desired, stopped.pid], ["stopped", "stopped", undefined])
        assert.strictEqual(stopped.lastExit?.class, "normal")
        assert.include(yield* consoleText(vms, "web"), "guest: power button")

        const refused = yield* Effect.flip(vms.reset("web"))
        assert.strictEqual(refused.message, "cannot reset virtual machine web while it is stopped: start it first")
        yield* vms.remove("web")
        assert.strictEqual((yield* Effect.flip(vms.get("web")))._tag, "VmNotFound")
        assert.deepStrictEqual(yield* vms.list, [])
      })
    )
  )

  it.live("a guest that hangs, or whose reboot shall count, is an end of its own kind", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        yield* vms.create(yield* specOf("pc", { chipset: "q35", watchdog: true, onReboot: "end" }))
        const type = (text: string) => Effect.flatMap(vms.attach("pc"), ({ write }) => write(Buffer.from(`${text}\n`)))
        yield* says(vms, "pc", "guest: ready")
        yield* type("reboot")
        const rebooted = yield* until(vms, "pc", "back", (vm) => vm.restarts === 1 && vm.state === "running")
        assert.strictEqual(rebooted.lastExit?.tag, "GuestRebooted")
        yield* says(vms, "pc", "guest: ready", 2)
        yield* type("silent")
        const hung = yield* until(vms, "pc", "back again", (vm) => vm.restarts === 2 && vm.state === "running")
        assert.strictEqual(hung.lastExit?.tag, "GuestHung")
        // one that does not hear the power button yet is not waited for
        const stopped = yield* vms.stop("pc", Duration.millis(100))
        assert.strictEqual(stopped.state, "stopped")
      })
    )
  )

  it.live("a machine lives through the death of the brain, and what its guest did meanwhile is not missed", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      yield* Effect.gen(function* () {
        const first = yield* Scope.make()
        const { vms } = yield* Scope.provide(brain(state, { ending: "release" }), first)
        const disk = join(state, "disk")
        writeFileSync(disk, "")
        truncateSync(disk, 1024 * 1024)
        const policy = { restart: "transient", backoff: { initial: 10, max: 10 } }
        yield* vms.create(yield* specOf("stays", { disks: [{ path: disk, serial: "one" }] }))
        yield* vms.create(yield* specOf("ends", { restart: policy }))
        yield* says(vms, "stays", "guest: ready")
        yield* says(vms, "ends", "guest: ready")
        const before = yield* vms.get("stays")

        // a disk that is written to belongs to one machine alone
        const other = yield* Effect.flip(vms.create(yield* specOf("other", { disks: [{ path: disk }] })))
        assert.include(other.message, "disks[0].path: is a disk of virtual machine stays")

        const ends = yield* vms.attach("ends")
        yield* Scope.close(first, Exit.void)
        // nobody looks after it
        yield* ends.write(Buffer.from("off\n"))

        const second = yield* Scope.make()
        const next = yield* Scope.provide(brain(state), second)
        const adopted = yield* until(next.vms, "stays", "adopted", (vm) => vm.state === "running")
        assert.strictEqual(adopted.pid, before.pid)
        assert.strictEqual(adopted.incarnation, 2)
        yield* Effect.flatMap(next.vms.attach("stays"), ({ write }) => write(Buffer.from("still there\n")))
        yield* says(next.vms, "stays", "guest: heard still there")
        assert.include(yield* consoleText(next.vms, "stays"), "guest: disk vda serial=one ro=0")

        const over = yield* until(next.vms, "ends", "finished", (vm) => vm.state === "finished")
        assert.strictEqual(over.lastExit?.class, "normal")
        assert.include(yield* consoleText(next.vms, "ends"), "guest: off")
        yield* next.vms.remove("ends")
        yield* next.vms.remove("stays", { force: true })
        yield* Scope.close(second, Exit.void)
        assert.deepStrictEqual(leftovers(state), [])
      }).pipe(Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )

  it.live("a reset of one that is paused leaves it paused, for this brain and the next", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      yield* Effect.gen(function* () {
        const first = yield* Scope.make()
        const { vms } = yield* Scope.provide(brain(state, { ending: "release" }), first)
        yield* vms.create(yield* specOf("web"), { wait: true })
        yield* says(vms, "web", "guest: ready")
        assert.strictEqual((yield* vms.pause("web")).state, "paused")
        assert.strictEqual((yield* vms.reset("web")).state, "paused")
        yield* Scope.close(first, Exit.void)

        const second = yield* Scope.make()
        const next = yield* Scope.provide(brain(state), second)
        const adopted = yield* until(next.vms, "web", "adopted as paused", (vm) => vm.state === "paused")
        assert.strictEqual(adopted.incarnation, 2)
        assert.strictEqual((yield* next.vms.pause("web")).state, "paused")
        // it begins anew only now
        assert.strictEqual((yield* consoleText(next.vms, "web")).split("guest: ready").length - 1, 1)
        assert.strictEqual((yield* next.vms.resume("web")).state, "running")
        assert.strictEqual((yield* next.vms.resume("web")).state, "running")
        yield* says(next.vms, "web", "guest: ready", 2)
        yield* next.vms.remove("web", { force: true })
        yield* Scope.close(second, Exit.void)
      }).pipe(Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )

  it.live.skipIf(!existsSync(Uefi.codeOf({ secureBoot: false })))(
    "its firmware's variables are its own, and nothing else is opened for them",
    () =>
      withVms(({ state, vms }) =>
        Effect.gen(function* () {
          const disk = join(state, "disk")
          writeFileSync(disk, Buffer.alloc(1024 * 1024))
          const restart = { maxConsecutive: 1, whenSpent: "park", backoff: { initial: 10, max: 10 } }
          const spec = { name: "pc", memoryBytes: 192 * 1024 ** 2, firmware: "uefi", disks: [{ path: disk }], restart }
          yield* vms.create(yield* Schema.decodeUnknownEffect(VmSpec)(spec), { wait: true })
          const variables = join(state, "vm/machines/pc/variables.fd")
          assert.strictEqual((yield* vms.get("pc")).state, "running")
          assert.isTrue(statSync(variables).isFile())
          yield* vms.stop("pc", Duration.zero)

          // as an earlier Ironwood, which gave it the directory, may have left it
          const secret = join(state, "secret")
          renameSync(variables, secret)
          symlinkSync(secret, variables)
          yield* vms.start("pc")
          const refused = yield* until(vms, "pc", "parked", (vm) => vm.state === "parked")
          assert.strictEqual(refused.lastExit?.tag, "VmmRefused")
          assert.include(refused.lastExit?.message, "variables.fd")
        })
      )
  )

  it.live("a machine that is made while one of its name is removed is another one, and stays", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const spec = yield* specOf("web")
        const first = yield* vms.create(spec, { wait: true })
        const removal = yield* Effect.forkChild(vms.remove("web", { force: true }), { startImmediately: true })
        yield* eventually("the removal to have begun", vms.list, (found) => found.length === 0)
        const second = yield* vms.create(spec, { wait: true })
        yield* Fiber.join(removal)
        assert.notStrictEqual(second.uid, first.uid)
        assert.strictEqual(second.state, "running")
        yield* says(vms, "web", "guest: ready")
        assert.isTrue(existsSync(join(state, "vm/machines/web")))
        assert.strictEqual((yield* vms.get("web")).pid, second.pid)
        yield* vms.remove("web", { force: true })
        assert.isFalse(existsSync(join(state, "vm/machines/web")))
      })
    )
  )

  it.live("a removal that a brain has begun is ended by the next", () =>
    Effect.gen(function* () {
      const state = yield* stateDirectory
      yield* Effect.gen(function* () {
        const first = yield* Scope.make()
        const { context, vms } = yield* Scope.provide(brain(state, { ending: "release" }), first)
        const created = yield* vms.create(yield* specOf("web"), { wait: true })
        const records = yield* Records.open(Context.get(context, State.State))
        yield* records.update("web", ({ value }) => ({ ...value, removing: true }))
        assert.deepStrictEqual(yield* vms.list, [])
        assert.strictEqual((yield* Effect.flip(vms.remove("web")))._tag, "VmNotFound")
        yield* Scope.close(first, Exit.void)

        const second = yield* Scope.make()
        const next = yield* Scope.provide(brain(state), second)
        const stored = yield* Records.open(Context.get(next.context, State.State))
        yield* eventually("the record to be gone", stored.get("web"), Option.isNone)
        assert.isFalse(existsSync(`/proc/${created.pid}`))
        assert.isFalse(existsSync(join(state, "vm/machines/web")))
        yield* Scope.close(second, Exit.void)
        assert.deepStrictEqual(leftovers(state), [])
      }).pipe(Effect.provide(Taproot.layer()))
    }).pipe(Effect.scoped)
  )

  it.live("what is wrong is told before anything is touched; what goes wrong later by its policy", () =>
    withVms(({ state, vms }) =>
      Effect.gen(function* () {
        const odd = join(state, "odd")
        writeFileSync(odd, "not a multiple")
        const fake = join(state, "fake.qcow2")
        writeFileSync(fake, Buffer.alloc(4096))
        const backed = join(state, "backed.qcow2")
        const header = Buffer.alloc(4096)
        header.write("QFI\xfb", "latin1")
        header.writeUInt32BE(3, 4)
        header.writeBigUInt64BE(512n, 8)
        writeFileSync(backed, header)
        const wrong = yield* Effect.flip(
          vms.create(
            yield* specOf("wrong", {
              kernel: "/no/kernel",
              watchdog: true,
              disks: [
                { path: "/no/such/disk" },
                { path: odd },
                { path: fake, format: "qcow2" },
                { path: backed, format: "qcow2" },
                { path: backed },
                { path: state }
              ]
            })
          )
        )
        assert.strictEqual(wrong._tag, "VmSpecInvalid")
        for (const words of [
          "kernel: there is no such file",
          "watchdog: a microvm of QEMU has none",
          "disks[0].path: there is no such file",
          "disks[1].path: a raw disk has a multiple of 512 bytes, and it has 14",
          "disks[2].path: it is no qcow2 image",
          "disks[3].path: it is a qcow2 image on top of another one",
          "disks[4].format: is raw, but the file is a qcow2 image",
          "disks[5].path: it is neither a file nor a block device"
        ]) {
          assert.include(wrong.message, words)
        }
        assert.deepStrictEqual(yield* vms.list, [])

        const once = { maxConsecutive: 1, whenSpent: "park" }
        // a hypervisor that is killed for memory
        yield* vms.create(
          yield* specOf("greedy", {
            memoryBytes: 128 * 1024 ** 2,
            hostMemoryBytes: 128 * 1024 ** 2,
            restart: once
          })
        )
        const starved = yield* until(vms, "greedy", "parked", (vm) => vm.state === "parked")
        assert.strictEqual(starved.lastExit?.tag, "VmmOutOfMemory")

        // a disk that is gone when it is to start
        const gone = join(state, "gone")
        writeFileSync(gone, Buffer.alloc(512))
        yield* vms.create(yield* specOf("late", { restart: once, disks: [{ path: gone }] }), { start: false })
        rmSync(gone)
        yield* vms.start("late")
        const late = yield* until(vms, "late", "parked", (vm) => vm.state === "parked")
        assert.strictEqual(late.lastExit?.message, `${gone} cannot be used: there is no such file`)
        yield* vms.remove("late")
        yield* vms.remove("greedy")
      })
    )
  )

  it.live("a host without a hypervisor says what to install, and makes nothing", () =>
    withVms(
      ({ vms }) =>
        Effect.gen(function* () {
          const missing = yield* Effect.flip(vms.create(yield* specOf("web")))
          assert.match(
            missing.message,
            /^no hypervisor works on this host \(there is no no-such-qemu; .*\); install qemu-system-x86$/
          )
          assert.deepStrictEqual(yield* vms.list, [])
        }),
      { binary: "no-such-qemu" }
    )
  )

  it.live("a hypervisor that does not answer is told, asked again, and can be ended", () =>
    withVms(({ vms }) =>
      Effect.gen(function* () {
        const { pid = Number.NaN } = yield* vms.create(yield* specOf("web"), { wait: true })
        kill(pid, "SIGSTOP")
        const failed = yield* Effect.flip(vms.pause("web"))
        assert.include(failed.message, "pause failed: no answer within 10s")
        assert.include(failed.message, "`ironwood vm stop -t 0 web` ends it")
        const removed = yield* Effect.timeoutOption(vms.remove("web", { force: true }), Duration.seconds(60))
        assert.isTrue(Option.isSome(removed))
      })
    )
  )
})
