/** Which driver makes a machine, and what is said when none can. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { choosing, type Driver } from "../../src/vmm/Driver.ts"
import { beyond, ControlLost, type DriverName, PlaceFailed } from "../../src/vmm/Hypervisor.ts"
import type { Machine } from "../../src/vmm/Machine.ts"
import { capabilities } from "../../src/vmm/qemu/Qemu.ts"

const machine: Machine = {
  name: "web",
  chipset: "q35",
  memoryBytes: 256 * 1024 ** 2,
  cpus: 1,
  boot: { _tag: "Kernel", kernel: "/k", commandLine: "" },
  disks: [],
  nics: [],
  ports: [],
  watchdog: false,
  balloon: false
}

/** One that says at its launch who it is. */
const driver = (name: DriverName, able: Partial<typeof capabilities> = {}, problem?: string): Driver => {
  const own = { ...capabilities, ...able }
  return {
    name,
    facts: Effect.succeed({ name, path: "", version: "", problem, acceleration: undefined, capabilities: own }),
    refusals: (wanted) => beyond(name, own, wanted),
    launch: () => Effect.fail(new PlaceFailed({ detail: `asked ${name}` })),
    control: () => Effect.fail(new ControlLost({ command: "connect", detail: `asked ${name}` }))
  }
}

const place = (directory: string) => ({ directory, cgroup: "/none", user: 1, memoryBytes: 1 })

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-driver-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

describe("the choice of a driver", () => {
  it.effect("is the first that works here and can, or the one that was named", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const hypervisor = choosing([
        driver("qemu", {}, "there is no qemu"),
        driver("cloud-hypervisor", { watchdog: [] }),
        driver("firecracker")
      ])
      const asked = (wanted: Partial<Machine>, name?: DriverName) =>
        hypervisor
          .launch({
            label: "x",
            machine: { ...machine, ...wanted },
            place: place(directory),
            ...(name === undefined ? {} : { hypervisor: name })
          })
          .pipe(
            Effect.flip,
            Effect.map(({ message }) => message)
          )
      assert.match(yield* asked({}), /asked cloud-hypervisor/)
      assert.strictEqual(yield* hypervisor.driverOf(directory), "cloud-hypervisor")
      assert.match(yield* asked({ watchdog: true }), /asked firecracker/)
      assert.match(yield* asked({}, "firecracker"), /asked firecracker/)
      assert.strictEqual(yield* hypervisor.driverOf(directory), "firecracker", "remembered for whoever comes later")
      assert.match(
        yield* asked({}, "qemu"),
        /^no hypervisor of this host can make it: hypervisor: qemu does not work here: there is no qemu$/
      )
      assert.strictEqual(yield* hypervisor.driverOf(directory), "firecracker", "nothing was touched")
    }).pipe(Effect.scoped)
  )

  it.effect("a life of before there was more than one driver is QEMU's", () =>
    Effect.gen(function* () {
      const hypervisor = choosing([driver("qemu")])
      assert.strictEqual(yield* hypervisor.driverOf(yield* temporary), "qemu")
    }).pipe(Effect.scoped)
  )

  it.effect("a refusal names the field, and who could", () =>
    Effect.gen(function* () {
      const hypervisor = choosing([
        driver("qemu", { balloon: false }),
        driver("cloud-hypervisor", { mostDisks: 0 }, "there is no cloud-hypervisor"),
        driver("firecracker", { userNetwork: false })
      ])
      const disks = [{ id: "a", file: "/a", format: "raw", readOnly: false }] as const
      assert.deepStrictEqual(yield* hypervisor.refusals({ ...machine, balloon: true, disks }), [])
      assert.deepStrictEqual(yield* hypervisor.refusals({ ...machine, balloon: true, disks }, "qemu"), [
        {
          field: "balloon",
          problem: "qemu has none; cloud-hypervisor (here: there is no cloud-hypervisor) or firecracker could"
        }
      ])
      const nics = [{ id: "n", mac: "52:54:00:00:00:01", forwards: [], restricted: true }]
      const [nothing] = yield* hypervisor.refusals({ ...machine, balloon: true, nics })
      assert.strictEqual(nothing?.field, "balloon", "what the first that works would have to say")
      const [here, able] = yield* hypervisor.refusals({ ...machine, disks }, "cloud-hypervisor")
      assert.deepStrictEqual([here?.field, able?.field], ["hypervisor", "disks"])
    })
  )

  it.effect("without any that works there is no hypervisor", () =>
    Effect.gen(function* () {
      const hypervisor = choosing([driver("qemu", {}, "there is no qemu"), driver("firecracker", {}, "no KVM")])
      const failed = yield* Effect.flip(hypervisor.launch({ label: "x", machine, place: place("/none") }))
      assert.match(failed.message, /no hypervisor works on this host \(there is no qemu; no KVM\)/)
    })
  )
})
