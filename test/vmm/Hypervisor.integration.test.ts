/** The driver for QEMU with a real guest: what its process is, and what can be done with it. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Cgroups } from "../../src/host/Cgroups.ts"
import { helperPath } from "../../src/taproot/Helper.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { Hypervisor } from "../../src/vmm/Hypervisor.ts"
import * as Qemu from "../../src/vmm/qemu/Qemu.ts"
import { eventually } from "../support/ironwood.ts"
import * as Taproot from "../support/taproot.ts"
import { guest } from "./guest.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => realpathSync(mkdtempSync(join(tmpdir(), "ironwood-vmm-")))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const USER = 1_900_000_123

describe("Hypervisor", () => {
  it.live("a machine runs as its own user with its own files, and does what it is told", () =>
    Effect.gen(function* () {
      const home = yield* temporary
      const { initrd, kernel } = guest()
      yield* Effect.gen(function* () {
        const hypervisor = yield* Hypervisor
        const cgroups = yield* Cgroups
        const [facts] = yield* hypervisor.facts
        assert.match(facts?.version ?? "", /^\d+\.\d+/)
        assert.strictEqual(facts?.problem, undefined)

        const disk = join(home, "disk")
        writeFileSync(disk, "")
        truncateSync(disk, 1024 * 1024)
        const cgroup = `/ironwood-vmm-test-${process.pid}`
        yield* Effect.addFinalizer(() => Effect.ignore(cgroups.remove(cgroup)))
        const directory = join(home, "vm")
        const place = { directory, cgroup: `${cgroup}/web`, user: USER, memoryBytes: 1024 ** 3 }
        const running = yield* hypervisor.launch({
          label: "test",
          place,
          machine: {
            name: "web",
            chipset: "microvm",
            memoryBytes: 192 * 1024 ** 2,
            cpus: 1,
            boot: { _tag: "Kernel", kernel, initrd, commandLine: "console=ttyS0 panic=-1 guest.do=idle" },
            disks: [{ id: "disk0", file: disk, format: "raw", readOnly: true, serial: "one" }],
            nics: [],
            ports: [],
            watchdog: false,
            balloon: false
          }
        })
        let console = ""
        yield* Effect.forkScoped(
          Stream.runForEach(running.output("stdout"), ({ bytes }) =>
            Effect.sync(() => (console += Buffer.from(bytes).toString("latin1")))
          )
        )
        yield* Effect.addFinalizer(() => Effect.andThen(Effect.ignore(running.signal("SIGKILL")), running.acknowledge))
        const control = yield* hypervisor.control(directory, running)
        assert.strictEqual(yield* control.state, "created")
        const status = readFileSync(`/proc/${running.pid}/status`, "utf8")
        assert.match(status, new RegExp(`^Uid:\\s+${USER}\\s+${USER}\\s+${USER}\\s+${USER}$`, "m"))
        for (const set of ["Inh", "Prm", "Eff", "Bnd", "Amb"])
          assert.match(status, new RegExp(`^Cap${set}:\\s+0+$`, "m"))
        if (facts?.acceleration?.accelerator !== "kvm")
          assert.match(status, /^Groups:\s*$/m, "no group that it does not need")
        assert.match(status, /^NoNewPrivs:\s+1$/m)
        assert.match(status, /^Seccomp:\s+2$/m)
        assert.deepStrictEqual(yield* cgroups.processes(place.cgroup), [running.pid])
        assert.deepStrictEqual(
          [statSync(directory).uid, statSync(directory).mode & 0o777],
          [process.geteuid?.(), 0o700],
          "nothing is there that it could put something else into the place of"
        )
        const seen = readdirSync(`/proc/${running.pid}/root`).filter((name) => !name.startsWith("lib"))
        assert.deepStrictEqual(seen.toSorted(), ["dev", "etc", "lent", "proc", "usr"])
        assert.deepStrictEqual(readdirSync(`/proc/${running.pid}/root/etc`), ["ld.so.cache"])
        // what it would do if its guest had taken it over: put a link where root opens a file at the next start
        const processes = yield* Processes
        const launcher = helperPath(processes.hello.taprootPid, "launch")
        const attempt = yield* processes.run({
          label: "taken over",
          argv: [
            launcher,
            `${USER}`,
            `${USER}`,
            "--",
            "ln",
            "-s",
            "/etc/shadow",
            `/proc/${running.pid}/cwd/variables.fd`
          ],
          environment: { PATH: process.env["PATH"] ?? "" }
        })
        assert.match(Buffer.from(attempt.stderr).toString("utf8"), /Read-only file system/)
        assert.notStrictEqual(readlinkSync(`/proc/${running.pid}/ns/net`), readlinkSync("/proc/self/ns/net"))

        yield* control.resume
        const says = (text: string) =>
          eventually(
            `the guest to say ${text}`,
            Effect.sync(() => console),
            (seen) => seen.includes(text),
            120
          )
        yield* says("guest: ready")
        assert.include(console, "guest: disk vda serial=one ro=1 sectors=2048")
        assert.include(console, "rng virtio_rng.0")
        yield* control.pause
        assert.strictEqual(yield* control.state, "paused")
        yield* control.resume
        assert.strictEqual(yield* control.state, "running")
        yield* running.write(Buffer.from("hello\n"))
        yield* says("guest: heard hello")
        yield* control.powerButton
        yield* eventually("the guest to be off", control.state, (state) => state === "powered-off", 60)
      }).pipe(
        Effect.scoped,
        Effect.provide(Qemu.layer({ directory: join(home, "trial") }).pipe(Layer.provideMerge(Cgroups.layer)))
      )
      assert.strictEqual((yield* (yield* Processes).status).processes, 0)
    }).pipe(Effect.scoped, Effect.provide(Taproot.layer()))
  )
})
