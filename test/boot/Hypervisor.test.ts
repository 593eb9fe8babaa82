/**
 * A machine that boots the image with a hypervisor: what is in that image is enough for microVMs and virtual machines, which run
 * as users of their own, and go on when the brain is killed.
 *
 * Behind the flag: where there is no KVM, a machine that is emulated has machines here. The processor that QEMU emulates can run
 * guests by itself (AMD's SVM), so the machine has KVM; where that does not work in time, it emulates once more.
 *
 * Trap: QEMU's emulation of SVM is good enough for a kernel, and not for UEFI: it hangs, or the outer QEMU ends at an assertion.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import { sampleDirectory } from "../../scripts/boot/Samples.ts"
import { file } from "../../scripts/image/Cpio.ts"
import { eventually } from "../support/ironwood.ts"
import { boot, stopping } from "../support/machine.ts"
import { guest } from "../vmm/guest.ts"

const Facts = Schema.Struct({
  facts: Schema.Struct({
    operatingSystem: Schema.String,
    hypervisors: Schema.Array(
      Schema.Struct({
        name: Schema.String,
        works: Schema.Boolean,
        accelerator: Schema.optionalKey(Schema.String),
        acceleratorProblem: Schema.optionalKey(Schema.String)
      })
    )
  })
})

const Version = Schema.Struct({ brainStarts: Schema.Int })

const Vm = Schema.Struct({
  status: Schema.Struct({
    state: Schema.String,
    pid: Schema.optionalKey(Schema.Int),
    restarts: Schema.optionalKey(Schema.Int)
  })
})

/** Seconds that any of it may take, emulated twice on a busy host. */
const patience = 900

const spec = `kind: Image
path: ${sampleDirectory}
---
kind: Pod
name: vault
isolation: microvm
containers:
  - name: boxed
    image: hello:latest
    entrypoint: [/bin/sh, -c]
    command: ["exec sleep 100000"]
`

const vm = `kind: Vm
name: web
memory_bytes: 192MiB
kernel: /usr/lib/ironwood/guest/vmlinuz
initrd: /srv/guest.img
command_line: console=ttyS0 panic=-1 quiet guest.do=idle
disks: [{ path: /srv/disk.img, serial: data }]
`

describe.skipIf(process.env["IRONWOOD_BOOT"] !== "all")("a machine with a hypervisor", () => {
  it.live(
    "has microVMs and virtual machines, which go on when its brain is killed",
    () =>
      Effect.gen(function* () {
        const machine = yield* boot({
          hypervisor: true,
          files: [file("srv/guest.img", readFileSync(guest().initrd)), file("srv/disk.img", Buffer.alloc(1024 * 1024))]
        })
        yield* machine.up
        const { facts } = yield* machine.json(Facts, "host")
        assert.include(facts.operatingSystem, "(Hypervisor)")
        const qemu = facts.hypervisors.find(({ name }) => name === "qemu")
        assert.isTrue(qemu?.works)
        assert.include(["kvm", "tcg"], qemu?.accelerator)

        // a container on a kernel of its own
        const applied = yield* machine.apply(spec)
        assert.strictEqual(applied.code, 0, applied.stderr)
        const bootId = Effect.map(
          machine.try("exec", "boxed", "cat", "/proc/sys/kernel/random/boot_id"),
          ({ code, stdout }) => (code === 0 ? stdout.trim() : "")
        )
        const boxed = yield* eventually("the container in the microVM", bootId, (id) => id !== "", patience)
        const itself = yield* machine.run("run", "--rm", "hello", "cat", "/proc/sys/kernel/random/boot_id")
        assert.notStrictEqual(boxed, itself.trim(), "it has a kernel of its own")

        // a whole machine
        const made = yield* machine.apply(vm)
        assert.strictEqual(made.code, 0, made.stderr)
        const console = machine.run("vm", "console", "--no-follow", "-n", "2000", "web")
        yield* eventually("its guest", console, (text) => text.includes("guest: ready"), patience)
        assert.include(yield* console, "guest: disk vda serial=data ro=0 sectors=2048")
        const before = yield* machine.json(Vm, "vm", "inspect", "web")
        assert.strictEqual(before.status.state, "VM_STATE_RUNNING")

        const { brainStarts } = yield* machine.json(Version, "version")
        yield* machine.failBrain("KILL")
        yield* eventually(
          "another brain",
          Effect.orElseSucceed(machine.json(Version, "version"), () => ({ brainStarts })),
          (now) => now.brainStarts > brainStarts,
          patience
        )
        const after = yield* eventually(
          "it to have the machine",
          Effect.orElseSucceed(machine.json(Vm, "vm", "inspect", "web"), () => undefined),
          (found) => found?.status.state === "VM_STATE_RUNNING",
          patience
        )
        assert.strictEqual(after?.status.pid, before.status.pid)
        const again = yield* eventually("it to have the microVM", bootId, (id) => id !== "", patience)
        assert.strictEqual(again, boxed, "the microVM has not noticed")

        yield* machine.run("vm", "stop", "web")
        assert.include(yield* console, "guest: power button")
        assert.strictEqual(yield* machine.run("down"), stopping)
        assert.strictEqual(yield* machine.ended, 0)
        assert.notInclude(machine.console(), "Kernel panic")
      }).pipe(Effect.scoped),
    3_600_000
  )

  it.live(
    "whose processor cannot run guests emulates them, UEFI included",
    () =>
      Effect.gen(function* () {
        const machine = yield* boot({
          hypervisor: true,
          files: [file("srv/disk.img", Buffer.alloc(1024 * 1024))],
          // without SVM this QEMU would not say how long addresses are, and the kernel would take its own for wrong ones
          more: ["-cpu", "max,svm=off,vmx=off,xlevel=0x80000008"]
        })
        yield* machine.up
        const { facts } = yield* machine.json(Facts, "host")
        assert.deepInclude(
          facts.hypervisors.find(({ name }) => name === "qemu"),
          { works: true, accelerator: "tcg", acceleratorProblem: "there is no /dev/kvm that can be used" }
        )
        const spec = ["--firmware", "uefi", "--disk", "/srv/disk.img", "--memory", "128MiB"]
        yield* machine.run("vm", "create", "firm", ...spec)
        // its last word, where there is nothing to boot
        const console = machine.run("vm", "console", "--no-follow", "-n", "2000", "firm")
        yield* eventually("its firmware", console, (text) => text.includes("BdsDxe: "), patience)
        assert.strictEqual(yield* machine.run("down"), stopping)
        assert.strictEqual(yield* machine.ended, 0)
      }).pipe(Effect.scoped),
    3_600_000
  )
})
