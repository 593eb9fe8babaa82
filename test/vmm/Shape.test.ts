/** What is wrong with a shape, with this host for it, and with a device of the host's; and QEMU's words for what is right. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { beyond } from "../../src/vmm/Hypervisor.ts"
import * as Passthrough from "../../src/vmm/Passthrough.ts"
import * as Arguments from "../../src/vmm/qemu/Arguments.ts"
import { capabilities } from "../../src/vmm/qemu/Qemu.ts"
import { hostProblem } from "../../src/vmm/Shape.ts"
import { machineOf, problemsOf, VmSpec } from "../../src/vmm/VmSpec.ts"

const MIB = 1024 * 1024
const spec = (fields: Readonly<Record<string, unknown>>) =>
  Schema.decodeUnknownEffect(VmSpec)({ name: "web", kernel: "/k", ...fields })

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-sys-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const after = (words: ReadonlyArray<string>, option: string): ReadonlyArray<string> =>
  words.flatMap((word, index) => (word === option ? [words[index + 1] ?? ""] : []))

describe("Shape", () => {
  it.effect("what does not fit together is told with its field", () =>
    Effect.gen(function* () {
      const wrong = yield* spec({
        cpus: 4,
        maxCpus: 6,
        topology: { sockets: 3, cores: 1, threads: 1, numaNodes: 2 },
        memoryBytes: 65 * MIB,
        maxMemoryBytes: 63 * MIB,
        balloonBytes: 32 * MIB,
        disks: [{ path: "/d", readOnly: true, sizeBytes: MIB }]
      })
      assert.deepStrictEqual(problemsOf(wrong), [
        { field: "disks[0].sizeBytes", problem: "cannot be of a disk that is only read" },
        { field: "topology", problem: "has places for 3 processors, and the machine has 6" },
        { field: "topology.numaNodes", problem: "must divide the sockets" },
        { field: "memoryBytes", problem: "must be a multiple of 4 MiB" },
        { field: "maxMemoryBytes", problem: "must be a multiple of 2 MiB, and not less than memoryBytes" },
        { field: "balloonBytes", problem: "needs a balloon" }
      ])
      const micro = yield* spec({
        chipset: "microvm",
        maxCpus: 2,
        maxMemoryBytes: 1024 * MIB,
        pciDevices: ["0000:01:00.0"]
      })
      assert.deepStrictEqual(
        beyond("QEMU", capabilities, machineOf(micro, "")).map(({ field }) => field),
        ["maxCpus", "maxMemoryBytes", "pciDevices"]
      )
    })
  )

  it.effect("processors, nodes, memory to come and huge pages in QEMU's words", () =>
    Effect.gen(function* () {
      const machine = machineOf(
        yield* spec({
          cpus: 2,
          maxCpus: 8,
          topology: { sockets: 2, cores: 2, threads: 2, numaNodes: 2 },
          memoryBytes: 512 * MIB,
          maxMemoryBytes: 1024 * MIB,
          hugepages: "2MiB",
          pciDevices: ["0000:01:00.0"]
        }),
        ""
      )
      const { words } = Arguments.make("qemu", machine, "tcg")
      assert.deepStrictEqual(after(words, "-smp"), ["cpus=2,maxcpus=8,sockets=2,cores=2,threads=2"])
      assert.deepStrictEqual(after(words, "-m"), ["size=524288k,maxmem=1048576k"])
      assert.deepStrictEqual(after(words, "-numa"), [
        "node,nodeid=0,memdev=memory0",
        "node,nodeid=1,memdev=memory1",
        "cpu,node-id=0,socket-id=0",
        "cpu,node-id=1,socket-id=1"
      ])
      const pages = { "qom-type": "memory-backend-memfd", hugetlb: true, hugetlbsize: 2 * MIB }
      assert.deepStrictEqual(
        after(words, "-object").map((text): unknown => JSON.parse(text)),
        [
          { id: "memory0", size: 256 * MIB, ...pages },
          { id: "memory1", size: 256 * MIB, ...pages },
          { id: "more-memory", size: 512 * MIB, ...pages, reserve: false }
        ]
      )
      assert.include(after(words, "-device"), "vfio-pci,host=0000:01:00.0")
      assert.include(
        after(words, "-device"),
        "virtio-mem-pci,id=more-memory-device,memdev=more-memory,requested-size=0"
      )
    })
  )

  it.effect("huge pages that the host does not have are told with their number", () =>
    Effect.gen(function* () {
      const sys = yield* temporary
      const wanted = { hugepages: "2MiB", memoryBytes: 512 * MIB } as const
      const look = (one: Parameters<typeof hostProblem>[0]) => Effect.promise(() => hostProblem(one, sys))
      assert.strictEqual(yield* look(wanted), "this host has no huge pages of 2MiB")
      mkdirSync(join(sys, "kernel/mm/hugepages/hugepages-2048kB"), { recursive: true })
      writeFileSync(join(sys, "kernel/mm/hugepages/hugepages-2048kB/free_hugepages"), "7\n")
      assert.include(yield* look(wanted), "it needs 256 huge pages of 2MiB, and 7 of this host's are free")
      assert.isUndefined(yield* look({ ...wanted, memoryBytes: 14 * MIB }))
      assert.isUndefined(yield* look({ hugepages: "none", memoryBytes: 2 ** 40 }))
    })
  )

  it.effect("a device of the host's is given away with its group, once nobody uses any of it", () =>
    Effect.gen(function* () {
      const sys = yield* temporary
      const [card, sound, bridge] = ["0000:01:00.0", "0000:01:00.1", "0000:00:01.0"]
      const device = (address: string) => join(sys, "bus/pci/devices", address)
      const driver = (address: string, name: string) => {
        rmSync(join(device(address), "driver"), { force: true })
        symlinkSync(`../../../../bus/pci/drivers/${name}`, join(device(address), "driver"))
      }
      const problem = Effect.flip(Passthrough.inspect(card ?? "", sys))
      assert.include(yield* problem, "this host has no PCI device 0000:01:00.0")
      for (const address of [card, sound, bridge]) {
        mkdirSync(device(address ?? ""), { recursive: true })
        writeFileSync(join(device(address ?? ""), "class"), address === bridge ? "0x060400\n" : "0x030000\n")
      }
      assert.include(yield* problem, "intel_iommu=on")
      symlinkSync("../../../../kernel/iommu_groups/17", join(device(card ?? ""), "iommu_group"))
      for (const address of [card, sound, bridge]) {
        mkdirSync(join(sys, "kernel/iommu_groups/17/devices", address ?? ""), { recursive: true })
      }
      assert.include(yield* problem, "it has no driver; give it up: echo vfio-pci")
      driver(card ?? "", "amdgpu")
      assert.include(yield* problem, "it is the host's (amdgpu); give it up")
      driver(card ?? "", "vfio-pci")
      driver(bridge ?? "", "pcieport")
      driver(sound ?? "", "snd_hda_intel")
      assert.include(yield* problem, "0000:01:00.1, of the same IOMMU group 17, is the host's (snd_hda_intel)")
      driver(sound ?? "", "vfio-pci")
      assert.strictEqual(yield* Passthrough.inspect(card ?? "", sys), "17")
    })
  )
})
