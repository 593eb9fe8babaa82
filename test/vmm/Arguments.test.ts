/** QEMU's command line of a machine. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { beyond } from "../../src/vmm/Hypervisor.ts"
import type { Machine } from "../../src/vmm/Machine.ts"
import { machineOf, VmSpec } from "../../src/vmm/VmSpec.ts"
import * as Arguments from "../../src/vmm/qemu/Arguments.ts"
import { capabilities } from "../../src/vmm/qemu/Qemu.ts"

const machine: Machine = {
  name: "web",
  chipset: "q35",
  memoryBytes: 256 * 1024 ** 2,
  cpus: 2,
  boot: { _tag: "Kernel", kernel: "/k", initrd: "/i", commandLine: "console=ttyS0" },
  disks: [],
  nics: [],
  ports: [],
  watchdog: false,
  balloon: false
}

const after = (words: ReadonlyArray<string>, option: string): ReadonlyArray<string> =>
  words.flatMap((word, index) => (word === option ? [words[index + 1] ?? ""] : []))

describe("QEMU's arguments", () => {
  it("every file is a descriptor; nothing is there that was not asked for", () => {
    const { files, words } = Arguments.make("qemu", machine, "tcg")
    assert.deepStrictEqual(files, [
      { descriptor: 3, path: "/k", kind: "ro" },
      { descriptor: 4, path: "/i", kind: "ro" },
      { descriptor: 5, path: "qmp", kind: "socket" },
      { descriptor: 6, path: "hand", kind: "socket" }
    ])
    assert.include(after(words, "-chardev"), "socket,id=control,fd=5,server=on,wait=off")
    assert.deepStrictEqual(after(words, "-kernel"), ["/dev/fd/3"])
    assert.deepStrictEqual(after(words, "-initrd"), ["/dev/fd/4"])
    assert.deepStrictEqual(after(words, "-append"), ["console=ttyS0 no_timer_check"])
    assert.deepStrictEqual(
      after(words, "-device").filter((word) => !word.startsWith("pcie-root-port,")),
      ["virtio-rng-pci", "pvpanic-pci"]
    )
    assert.lengthOf(
      after(words, "-device").filter((word) => word.startsWith("pcie-root-port,")),
      Arguments.SPARE_SLOTS
    )
    assert.includeMembers([...words], ["-nodefaults", "-no-user-config", "-S"])
    assert.include(after(words, "-sandbox")[0], "spawn=deny")
    assert.deepStrictEqual(after(words, "-netdev"), [])
  })

  it("a microvm with more devices than it has places for is refused", () => {
    const shares = Array.from({ length: 18 }, (_, index) => ({ tag: `share-${index}`, socket: `${index}` }))
    const full: Machine = { ...machine, chipset: "microvm", emptyDisks: 4, shares }
    assert.deepStrictEqual(Arguments.crowded(full), [])
    const [refused] = Arguments.crowded({ ...full, ports: [{ name: "guest", socket: "guest" }] })
    assert.propertyVal(refused, "field", "shares")
    assert.include(
      refused?.problem ?? "",
      "places for 23 devices, and disks, volumes and directories of the host make it 24"
    )
    assert.deepStrictEqual(Arguments.crowded({ ...full, chipset: "q35", emptyDisks: 30 }), [])
  })

  it("empty disks have nothing in them, and a monitor that takes what is put into them", () => {
    const { files, words } = Arguments.make("qemu", { ...machine, chipset: "microvm", emptyDisks: 2 }, "tcg")
    assert.deepInclude(files, { descriptor: 6, path: "hand", kind: "socket" })
    const nodes = after(words, "-blockdev").map((word) => JSON.parse(word))
    assert.lengthOf(nodes, 2)
    assert.deepInclude(nodes[1], { driver: "null-co", "node-name": "empty1", "read-only": true })
    assert.include(
      after(words, "-device"),
      "virtio-blk-device,id=empty1-device,drive=empty1,serial=empty1,werror=stop,rerror=report"
    )
    const none = { ...capabilities, emptyDisks: false }
    assert.deepStrictEqual(
      beyond("X", none, { ...machine, emptyDisks: 1 }).map(({ field }) => field),
      ["emptyDisks"]
    )
  })

  it("disks say their format, have no backing file, and are writable only when they shall be", () => {
    const { files, words } = Arguments.make(
      "qemu",
      {
        ...machine,
        disks: [
          { id: "disk0", file: "/a,b", format: "qcow2", readOnly: false, serial: "a,b" },
          { id: "disk1", file: "/c", format: "raw", readOnly: true }
        ]
      },
      "kvm"
    )
    assert.deepStrictEqual(files.slice(2, 4), [
      { descriptor: 5, path: "/a,b", kind: "rw" },
      { descriptor: 6, path: "/c", kind: "ro" }
    ])
    assert.deepStrictEqual(
      after(words, "-blockdev").map((text): unknown => JSON.parse(text)),
      [
        { driver: "file", "node-name": "disk0-file", filename: "/dev/fdset/5", "read-only": false },
        { driver: "qcow2", "node-name": "disk0", "read-only": false, file: "disk0-file", backing: null },
        { driver: "file", "node-name": "disk1-file", filename: "/dev/fdset/6", "read-only": true },
        { driver: "raw", "node-name": "disk1", "read-only": true, file: "disk1-file" }
      ]
    )
    assert.include(
      after(words, "-device"),
      "virtio-blk-pci,id=disk0-device,drive=disk0,bus=slot0,serial=a,,b,werror=stop,rerror=report"
    )
  })

  it("a microvm has its devices beside PCI, and a clock that it is told", () => {
    const { words } = Arguments.make(
      "qemu",
      {
        ...machine,
        chipset: "microvm",
        nics: [
          {
            id: "net0",
            mac: "52:54:00:00:00:01",
            restricted: true,
            forwards: [{ protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 2222, guestPort: 22 }]
          }
        ],
        ports: [{ name: "org.ironwood.channel", socket: "channel" }]
      },
      "tcg"
    )
    assert.deepStrictEqual(after(words, "-device"), [
      "virtio-rng-device",
      "pvpanic",
      "virtio-serial-device",
      "virtserialport,chardev=port0,name=org.ironwood.channel",
      "virtio-net-device,id=net0-device,netdev=net0,mac=52:54:00:00:00:01"
    ])
    assert.include(after(words, "-append")[0], "tsc_early_khz=")
    assert.deepStrictEqual(after(words, "-netdev"), ["user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22"])
  })

  it("a directory that is shared is served by somebody else, who sees its memory", () => {
    const shares = [{ tag: "share-1", socket: "served" }]
    const { files, words } = Arguments.make("qemu", { ...machine, chipset: "microvm", shares }, "tcg")
    assert.deepInclude(files, { descriptor: 7, path: "served", kind: "peer" })
    assert.include(after(words, "-chardev"), "socket,id=share-1,fd=7")
    assert.include(after(words, "-device"), "vhost-user-fs-device,chardev=share-1,tag=share-1")
    assert.include(after(words, "-global"), "virtio-mmio.force-legacy=false")
    assert.include(after(words, "-object")[0], '"qom-type":"memory-backend-memfd","share":true')
    assert.include(after(words, "-machine"), "memory-backend=memory")
  })

  it("one that takes the memory of another is started as that one was, and what came later is plugged in", () => {
    const grown = { ...machine, cpus: 2, maxCpus: 3, maxMemoryBytes: 1024 ** 3, memoryBytes: 512 * 1024 ** 2 }
    const processor = { driver: "max-x86_64-cpu", place: { "socket-id": 0, "core-id": 1, "thread-id": 0 } }
    const model = {
      type: "pc-q35-7.2",
      slots: ["", "", ""],
      cpus: 1,
      plugged: [processor],
      memoryBytes: 256 * 1024 ** 2
    }
    const { words } = Arguments.make("qemu", grown, "tcg", model)
    assert.deepStrictEqual(after(words, "-smp"), ["cpus=1,maxcpus=3"])
    assert.deepStrictEqual(after(words, "-m"), ["size=262144k,maxmem=1048576k"])
    assert.include(words.join(" "), `"size":${768 * 1024 ** 2}`)
    const devices = after(words, "-device")
    assert.include(devices, "max-x86_64-cpu,id=cpu-0-1-0,socket-id=0,core-id=1,thread-id=0")
    assert.lengthOf(
      devices.filter((device) => device.startsWith("pcie-root-port")),
      3
    )
    // without room there is nothing to be told
    const plain = Arguments.make("qemu", machine, "tcg", { type: "pc-q35-7.2", slots: [] })
    assert.deepStrictEqual(after(plain.words, "-smp"), ["2"])
  })

  it("its firmware's variables are its own, its sockets are made for it: no word names a path", () => {
    const { files, words } = Arguments.make(
      "qemu",
      {
        ...machine,
        boot: { _tag: "Firmware", code: "/code", variables: "/vars" },
        ports: [{ name: "org.ironwood.channel", socket: "channel" }]
      },
      "tcg"
    )
    assert.deepStrictEqual(
      files.map(({ kind, path }) => `${kind}:${path}`),
      ["ro:/code", "own:/vars", "socket:qmp", "socket:hand", "socket:channel"]
    )
    assert.include(after(words, "-chardev"), "socket,id=port0,fd=7,server=on,wait=off")
    assert.deepStrictEqual(
      words.filter((word) => /path=|code|vars|qmp|\/hand/.test(word)),
      []
    )
  })

  it.effect("a card is closed, unless the spec gives it what the host reaches", () =>
    Effect.gen(function* () {
      const spec = yield* Schema.decodeUnknownEffect(VmSpec)({
        name: "web",
        kernel: "/k",
        nics: [{ forwards: [{ hostPort: 2222, guestPort: 22 }] }, { hostAccess: true }]
      })
      const { words } = Arguments.make("qemu", machineOf(spec, "/vars"), "tcg")
      assert.deepStrictEqual(
        after(words, "-netdev").map((word) => word.replace(/id=net-[0-9a-f]{12}/, "id=MAC")),
        ["user,id=MAC,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22", "user,id=MAC,restrict=off"]
      )
    })
  )

  it("what the driver cannot do is told with its field", () => {
    const wanted: Machine = { ...machine, chipset: "microvm", boot: { _tag: "Firmware" }, watchdog: true }
    assert.deepStrictEqual(beyond("QEMU", capabilities, wanted), [
      { field: "boot", problem: "a microvm of QEMU has no firmware: give a kernel" },
      { field: "watchdog", problem: "a microvm of QEMU has none" }
    ])
    assert.deepStrictEqual(beyond("QEMU", capabilities, machine), [])
  })
})
