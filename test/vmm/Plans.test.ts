/**
 * What Cloud Hypervisor and Firecracker are asked for machines: of any spec that a driver does not refuse, requests that a server
 * takes that takes nothing else than their APIs allow. And the record of Cloud Hypervisor's events, of whatever it is made.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ROOT } from "../../src/vmm/cloud-hypervisor/Api.ts"
import * as CloudHypervisor from "../../src/vmm/cloud-hypervisor/CloudHypervisor.ts"
import * as Config from "../../src/vmm/cloud-hypervisor/Config.ts"
import * as Events from "../../src/vmm/cloud-hypervisor/Events.ts"
import * as Firecracker from "../../src/vmm/firecracker/Firecracker.ts"
import * as Requests from "../../src/vmm/firecracker/Requests.ts"
import { beyond } from "../../src/vmm/Hypervisor.ts"
import type { Machine } from "../../src/vmm/Machine.ts"
import { machineOf, VmSpec, withFields } from "../../src/vmm/VmSpec.ts"
import * as CloudHypervisorRules from "./standIn/CloudHypervisorRules.ts"
import * as FirecrackerRules from "./standIn/FirecrackerRules.ts"
import { nowhere, type Rules, type World } from "./standIn/Rules.ts"

/** A world in which nothing happens, but that it is written down. */
const worldOf = (happened: Array<string>): World => ({
  ...nowhere,
  boot: (commandLine) => void happened.push(`boot ${commandLine}`),
  press: () => void happened.push("press"),
  halt: (halted) => void happened.push(halted ? "halt" : "go on"),
  exit: () => void happened.push("exit")
})

const { balloon, chipset, commandLine, cpus, disks, firmware, initrd, kernel, memoryBytes, name } = VmSpec.fields
/** The fields of a spec that come to something here. */
const Fields = Schema.Struct({
  balloon,
  chipset,
  commandLine,
  cpus,
  disks,
  firmware,
  initrd,
  kernel,
  memoryBytes,
  name
})
const specOf = (fields: typeof Fields.Type): VmSpec => withFields(Schema.decodeSync(VmSpec)({ name: "web" }), fields)

/** A machine without what neither of the two can. */
const plain = ({ balloon, boot, chipset, cpus, disks, memoryBytes, name }: Machine): Machine => ({
  name,
  chipset,
  memoryBytes,
  cpus,
  boot,
  disks: disks.map(({ file, format, id, readOnly, serial }) => ({
    id,
    file,
    format,
    readOnly,
    ...(serial === undefined ? {} : { serial })
  })),
  nics: [],
  ports: [],
  watchdog: false,
  balloon
})

const ask = (rules: Rules, method: string, path: string, body?: unknown) =>
  rules.answer(method, path, body === undefined ? undefined : JSON.stringify(body))

/** Every file is a descriptor, of which each is named once, and none is named that is not there. */
const namesMatch = (files: ReadonlyArray<{ readonly descriptor: number }>, said: unknown, unnamed = 0): void => {
  const named = [...JSON.stringify(said).matchAll(/"\/proc\/self\/fd\/(\d+)"/g)].map(([, number]) => Number(number))
  assert.deepStrictEqual(
    named.toSorted((one, other) => one - other),
    files.map(({ descriptor }) => descriptor).slice(0, files.length - unnamed)
  )
}

describe("Firecracker", () => {
  it.effect.prop("what it is asked is what it takes", { fields: Fields }, ({ fields }) =>
    Effect.sync(() => {
      const machine = machineOf(specOf({ ...fields, chipset: "microvm", kernel: fields.kernel ?? "/vmlinux" }), "/none")
      const able = {
        ...plain(machine),
        cpus: Math.min(32, machine.cpus),
        disks: plain(machine)
          .disks.slice(0, 16)
          .map((disk) => ({ ...disk, format: "raw" as const }))
      }
      assert.deepStrictEqual(beyond("Firecracker", Firecracker.capabilities, able), [])
      const { files, requests } = Requests.make(able)
      const happened: Array<string> = []
      const rules = FirecrackerRules.make("id", worldOf(happened))
      assert.strictEqual(ask(rules, "PATCH", "/vm", { state: "Paused" }).status, 400, "not before it was started")
      for (const { body, method, path } of [...requests, ...requests]) {
        assert.deepStrictEqual(ask(rules, method, path, body), { status: 204 }, `${path}: also a second time`)
      }
      assert.strictEqual(ask(rules, "PUT", "/actions", { action_type: "InstanceStart" }).status, 204)
      for (const { body, method, path } of requests) {
        assert.strictEqual(ask(rules, method, path, body).status, 400, `${path}: not after it was started`)
      }
      assert.strictEqual(ask(rules, "PUT", "/actions", { action_type: "InstanceStart" }).status, 400)
      namesMatch(files, requests)
      assert.match(happened.join(), /^boot reboot=k panic=-1/)
      assert.isAtLeast(
        Number(JSON.stringify(requests[0]).match(/mem_size_mib":(\d+)/)?.[1]) * 2 ** 20,
        fields.memoryBytes
      )
    })
  )

  it("takes nothing that its API has not", () => {
    const rules = FirecrackerRules.make("id", worldOf([]))
    const wrong: ReadonlyArray<readonly [method: string, path: string, body?: unknown]> = [
      ["PUT", "/boot-source", { kernel_image_path: "/k", more: 1 }],
      ["PUT", "/boot-source", {}],
      ["PUT", "/boot-source"],
      ["PUT", "/machine-config", { vcpu_count: 33, mem_size_mib: 1 }],
      ["PUT", "/machine-config", { vcpu_count: 1 }],
      ["PUT", "/drives/a", { drive_id: "b", path_on_host: "/d", is_root_device: false, is_read_only: true }],
      ["PUT", "/drives/a-b", {}],
      ["PUT", "/actions", { action_type: "SendCtrlAltDel" }],
      ["PUT", "/actions", { action_type: "InstanceStart" }],
      ["POST", "/actions", { action_type: "InstanceStart" }],
      ["PUT", "/nothing", {}]
    ]
    for (const [method, path, body] of wrong) {
      const answer = ask(rules, method, path, body)
      assert.strictEqual(answer.status, 400, `${method} ${path}`)
      assert.property(answer.body, "fault_message")
    }
  })
})

describe("Firecracker's memory", () => {
  const machine = machineOf(
    Schema.decodeSync(VmSpec)({ name: "web", kernel: "/k", chipset: "microvm", hugepages: "2MiB", balloon: true }),
    "/none"
  )
  const load = {
    snapshot_path: "/s",
    mem_backend: { backend_path: "/m", backend_type: "File" },
    resume_vm: false
  }
  const create = { snapshot_type: "Full", snapshot_path: "/s", mem_file_path: "/m" }

  it("is of huge pages where it is to be, and does not come back then", () => {
    const written = new Map<string, string>()
    const world: World = {
      ...worldOf([]),
      write: (path, text) => void written.set(path, text),
      read: (path) => written.get(path)
    }
    const rules = FirecrackerRules.make("id", world)
    const status = (method: string, path: string, body: unknown) => ask(rules, method, path, body).status
    for (const { body, method, path } of Requests.make(machine).requests) {
      assert.strictEqual(status(method, path, body), 204)
    }
    assert.strictEqual(status("PUT", "/snapshot/load", load), 400, "not after anything was said")
    assert.strictEqual(status("PUT", "/snapshot/create", create), 400, "not before it was started")
    assert.strictEqual(status("PUT", "/actions", { action_type: "InstanceStart" }), 204)
    assert.strictEqual(status("PUT", "/snapshot/create", create), 400, "not while it runs")
    assert.strictEqual(status("PATCH", "/vm", { state: "Paused" }), 204)
    assert.strictEqual(status("PUT", "/snapshot/create", { ...create, snapshot_type: "Part" }), 400)
    assert.strictEqual(status("PUT", "/snapshot/create", create), 204)
    assert.include(written.get("/s"), '"huge_pages":"2M"')
    assert.strictEqual(status("PATCH", "/balloon", { amount_mib: 10_000 }), 400)
    assert.strictEqual(status("PATCH", "/drives/none", { drive_id: "none", path_on_host: "/d" }), 400)
    const other = FirecrackerRules.make("other", world)
    assert.strictEqual(ask(other, "PUT", "/snapshot/load", load).status, 400, "it would need another backend")
  })
})

describe("Cloud Hypervisor", () => {
  it("is given the shape of a machine", () => {
    const fields = {
      name: "web",
      kernel: "/k",
      cpus: 2,
      maxCpus: 8,
      topology: { sockets: 2, cores: 2, threads: 2, numaNodes: 1 },
      memoryBytes: 512 * 2 ** 20,
      maxMemoryBytes: 600 * 2 ** 20,
      hugepages: "2MiB"
    }
    const options = { landlock: true, noShutdown: true, lent: "/lent" }
    const machine = machineOf(Schema.decodeUnknownSync(VmSpec)(fields), "/none")
    const { config } = Config.make(machine, options, "/events", undefined)
    assert.deepStrictEqual(config.memory, {
      size: 512 * 2 ** 20,
      hotplug_size: 128 * 2 ** 20,
      hotplug_method: "VirtioMem",
      hugepages: true,
      hugepage_size: 2 ** 21
    })
    const rules = CloudHypervisorRules.make(true, worldOf([]))
    const put = (path: string, body?: unknown) => ask(rules, "PUT", `${ROOT}${path}`, body).status
    assert.strictEqual(put("/vm.create", { ...config, cpus: { ...config.cpus, max_vcpus: 4 } }), 500)
    const odd = { ...config.memory, hotplug_size: 2 ** 20 }
    assert.strictEqual(put("/vm.create", { ...config, memory: odd }), 500)
    assert.strictEqual(put("/vm.create", config), 204)
    assert.strictEqual(put("/vm.resize", { desired_vcpus: 4 }), 500, "not before it was started")
    assert.strictEqual(put("/vm.boot"), 204)
    for (const [status, path, body] of [
      [204, "/vm.resize", { desired_vcpus: 8 }],
      [500, "/vm.resize", { desired_vcpus: 9 }],
      [400, "/vm.resize", { desired_vcpus: 0 }],
      [500, "/vm.resize", { desired_ram: 700 * 2 ** 20 }],
      [500, "/vm.resize", { desired_ram: 513 * 2 ** 20 }],
      [500, "/vm.resize", { desired_balloon: 1 }],
      [404, "/vm.resize-disk", { id: "none", desired_size: 4096 }],
      [404, "/vm.remove-device", { id: "none" }],
      [500, "/vm.snapshot", { destination_url: "file:///s" }],
      [404, "/vm.restore", { source_url: "file:///s" }]
    ] as const) {
      assert.strictEqual(put(path, body), status, `${path} ${JSON.stringify(body)}`)
    }
    assert.strictEqual(put("/vm.pause"), 204)
    assert.strictEqual(put("/vm.snapshot", { destination_url: "/s" }), 500, "no URL")
    assert.strictEqual(put("/vm.snapshot", { destination_url: "file:///s" }), 204)
  })

  it.effect.prop("what it is asked is what it takes", { fields: Fields }, ({ fields }) =>
    Effect.sync(() => {
      const machine = machineOf(specOf({ ...fields, chipset: "q35" }), "/none")
      const { disks } = plain(machine)
      // no two of one path: that is refused before
      const different = disks.filter(({ id }, index) => disks.findIndex((one) => one.id === id) === index)
      const able = { ...plain(machine), disks: different.slice(0, 24) }
      assert.deepStrictEqual(beyond("Cloud Hypervisor", CloudHypervisor.capabilities, able), [])
      const options = { landlock: fields.balloon, noShutdown: true, lent: "/lent" }
      const { config, files, words } = Config.make(able, options, "/events", "/firmware")
      const happened: Array<string> = []
      const rules = CloudHypervisorRules.make(true, worldOf(happened))
      const state = () => JSON.stringify(ask(rules, "GET", `${ROOT}/vm.info`).body).match(/"state":"(\w+)"/)?.[1]
      assert.strictEqual(ask(rules, "PUT", `${ROOT}/vm.boot`).status, 404, "not before it was made")
      assert.strictEqual(ask(rules, "GET", `${ROOT}/vm.info`).status, 404)
      assert.deepStrictEqual(ask(rules, "PUT", `${ROOT}/vm.create`, config), { status: 204 })
      assert.strictEqual(ask(rules, "PUT", `${ROOT}/vm.create`, config).status, 500, "not twice")
      assert.strictEqual(ask(rules, "PUT", `${ROOT}/vm.pause`).status, 500, "not before it was started")
      assert.strictEqual(state(), "Created")
      for (const [path, then] of [
        ["vm.boot", "Running"],
        ["vm.pause", "Paused"],
        ["vm.resume", "Running"],
        ["vm.reboot", "Running"],
        ["vm.shutdown", "Created"]
      ] as const) {
        assert.strictEqual(ask(rules, "PUT", `${ROOT}/${path}`).status, 204, path)
        assert.strictEqual(state(), then, path)
      }
      // the sockets and the record are descriptors that no request names
      namesMatch(files, config, 2)
      assert.includeMembers([...words], ["--seccomp", "true", "--no-shutdown"])
    })
  )

  it("takes nothing that its API has not", () => {
    const rules = CloudHypervisorRules.make(true, worldOf([]))
    const { config } = Config.make(
      machineOf(Schema.decodeSync(VmSpec)({ name: "web", kernel: "/k" }), "/none"),
      { landlock: true, noShutdown: true, lent: undefined },
      "/events",
      undefined
    )
    const wrong: ReadonlyArray<readonly [status: number, method: string, path: string, body?: unknown]> = [
      [400, "PUT", "/vm.create", { ...config, more: 1 }],
      [400, "PUT", "/vm.create", { ...config, serial: { mode: "Pipe" } }],
      [400, "PUT", "/vm.create", { ...config, memory: {} }],
      [400, "PUT", "/vm.create"],
      [500, "PUT", "/vm.create", { ...config, payload: {} }],
      [500, "PUT", "/vm.create", { ...config, cpus: { boot_vcpus: 2, max_vcpus: 1 } }],
      [400, "GET", "/vm.boot"],
      [404, "PUT", "/vm.fly"]
    ]
    for (const [status, method, path, body] of wrong) {
      assert.strictEqual(ask(rules, method, `${ROOT}${path}`, body).status, status, `${method} ${path}`)
    }
    assert.strictEqual(ask(rules, "PUT", "/vm.create", config).status, 404)
  })

  const record = Effect.acquireRelease(
    Effect.sync(() => join(mkdtempSync(join(tmpdir(), "ironwood-events-")), "events")),
    (path) => Effect.sync(() => rmSync(join(path, ".."), { recursive: true, force: true }))
  )
  const said = (source: string, event: string, properties: unknown = null) =>
    `${JSON.stringify({ timestamp: { secs: 1, nanos: 2 }, source, event, properties }, undefined, 2)}\n\n`

  it.effect("its record says what became of a guest, in pieces or whole", () =>
    Effect.gen(function* () {
      const path = yield* record
      const whole = [
        said("vmm", "starting"),
        said("vm", "booted"),
        said("virtio-device", "activated", { id: 'br}{ace"\\' }),
        said("vm", "shutdown"),
        said("vm", "rebooted"),
        said("guest", "panic", { event: "crash_loaded" })
      ].join("")
      for (let at = 0; at < whole.length; at += 7) {
        writeFileSync(path, whole.slice(0, at))
        yield* Events.make(path).read
      }
      writeFileSync(path, whole)
      const events = Events.make(path)
      assert.deepStrictEqual(yield* events.read, { ...Events.nothing, booted: true, reboots: 1 })
      writeFileSync(
        path,
        `${whole}{"source": 1}\n\n}}}"${said("guest", "panic", { event: "panic" })}${said("vm", "shu")}`
      )
      assert.isTrue((yield* events.read).panicked)
      const panicked = yield* events.read
      // one that floods it: it begins anew with what is known
      writeFileSync(path, said("virtio-device", "reset").repeat(Math.ceil(Events.LONGEST / 100)), { flag: "a" })
      assert.deepStrictEqual(yield* events.read, panicked)
      assert.isBelow(readFileSync(path).length, 1_000)
      assert.deepStrictEqual(yield* Events.make(path).read, { ...panicked, reboots: 0 })
    }).pipe(Effect.scoped)
  )

  it.effect.prop("nothing that is in the record breaks its reader", { text: Schema.String }, ({ text }) =>
    Effect.sync(() => {
      const objects = new Events.Objects()
      for (const piece of text) objects.push(piece)
      for (const one of objects.push(`${"}".repeat(3)}"`)) assert.match(one, /^\{[^]*\}$/)
    })
  )
})
