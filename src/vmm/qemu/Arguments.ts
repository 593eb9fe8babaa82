/**
 * QEMU's command line for a machine, as data: which files `launch` opens for it, and the words.
 *
 * What every machine has: nothing by default (`-nodefaults -no-user-config`), QEMU's own sandbox, its serial console as QEMU's
 * standard input and output, a control socket (`Qmp.ts`) and a random number generator. It is made stopped (`-S`): whoever
 * started it lets it go on when it has the control socket, so that no word of it is missed. A guest that powers off, panics
 * or is not alive any more leaves QEMU there, stopped, so that also a later brain can ask which it was.
 *
 * Traps:
 * - No file and no socket is opened or made by QEMU: who has taken over one could put something else in its place, for root to
 *   open the next time.
 * - A disk's format is always said and its backing file always switched off: what a hostile image says about itself names no
 *   file of the host.
 * - On the `microvm` machine devices sit at memory addresses, not on PCI, and have other names. It has no watchdog.
 * - A disk or a card is called after what it is (`Machine`), its device `…-device`, its file `…-file`: a brain that comes later finds
 *   out from a QEMU that runs what it has.
 * - Who serves a shared directory (vhost-user) knows only the virtio of the standard, which the `microvm` machine has to be told to
 *   speak.
 * - Under emulation kernels test timers that tick too late on a busy host; their command line is told not to.
 */
import type { Accelerator } from "../Accelerator.ts"
import type { Model, Refusal } from "../Hypervisor.ts"
import type { Handed } from "../Launching.ts"
import type { Disk, Machine, Nic, Port, Share } from "../Machine.ts"
import * as ShapeArguments from "./ShapeArguments.ts"

export interface Invocation {
  readonly files: ReadonlyArray<Handed>
  readonly words: ReadonlyArray<string>
}

/** The control socket's name in the machine's directory. */
export const CONTROL_SOCKET = "qmp"
/** That of a second one, by which files are handed to a machine that runs (`hand`, beside taproot). */
export const HAND_SOCKET = "hand"

/** How many disks and cards can be plugged in while a machine runs, besides those that it was started with. */
export const SPARE_SLOTS = 8
/** Where the root ports begin on the bus; eight to a device. */
const FIRST_PORT = 0x10

/** The PCIe root port of that number, and the bus behind it. */
export const slotName = (index: number): string => `slot${index}`

const isPluggable = (machine: Machine): boolean => machine.chipset === "q35"

/** Every disk and card is behind a root port of its own: what is on the bus itself can never be taken out. */
const slotWords = (machine: Machine, count: number): ReadonlyArray<string> =>
  isPluggable(machine)
    ? Array.from({ length: count }, (_, index) => [
        "-device",
        [
          "pcie-root-port",
          `id=${slotName(index)}`,
          `chassis=${index + 1}`,
          `slot=${index + 1}`,
          // firmware would run out of ports for legacy devices that nobody has
          "io-reserve=0",
          "multifunction=on",
          `addr=0x${(FIRST_PORT + Math.floor(index / 8)).toString(16)}.${index % 8}`
        ].join(",")
      ]).flat()
    : []

/** An empty disk of that number: its serial number, and its node as long as nothing is in it. */
export const emptyName = (index: number): string => `empty${index}`

/** Larger than anything that is put into one: a guest is not told how large that is. */
const EMPTY_BYTES = 2 ** 40

const emptyWords = (machine: Machine): ReadonlyArray<string> =>
  Array.from({ length: machine.emptyDisks ?? 0 }, (_, index) => {
    const id = emptyName(index)
    const nothing = { driver: "null-co", "node-name": id, size: EMPTY_BYTES, "read-zeroes": true, "read-only": true }
    const disk = { id, serial: id, file: "", format: "raw", readOnly: true } as const
    return ["-blockdev", JSON.stringify(nothing), "-device", option(diskDevice(machine, disk, undefined))]
  }).flat()

const FIRST_DESCRIPTOR = 3

const accelerators: Readonly<Record<Accelerator, ReadonlyArray<string>>> = {
  kvm: ["-accel", "kvm", "-cpu", "host"],
  tcg: ["-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max"]
}

const chipsets = {
  q35: "q35",
  // no PCI, and the clock that Linux wants
  microvm: "microvm,acpi=on,rtc=on,pcie=off,ioapic2=on"
} as const

/** What a device is called on the bus of the machine. */
const device = (machine: Pick<Machine, "chipset">, kind: "blk" | "net" | "rng" | "serial" | "balloon"): string =>
  `virtio-${kind}-${machine.chipset === "q35" ? "pci" : "device"}`

/** A value in an option of the kind `key=value,key=value`: commas are doubled. */
const quoted = (value: string): string => value.replaceAll(",", ",,")

/** What kernels are told besides what their command line says. */
const kernelParameters = (machine: Machine, accelerator: Accelerator): ReadonlyArray<string> => {
  if (accelerator !== "tcg") return []
  // without PCI there is nothing to measure the clock by, and an emulated one is not the processor's anyway
  return machine.chipset === "microvm" ? ["no_timer_check", "tsc_early_khz=2600000"] : ["no_timer_check"]
}

/** A file of a machine as QEMU's block layer has it, by the number of its descriptor's set. */
export const fileNode = ({ id, readOnly }: Disk, set: number) => ({
  driver: "file",
  "node-name": `${id}-file`,
  filename: `/dev/fdset/${set}`,
  "read-only": readOnly
})

/** What is in that file. */
export const imageNode = ({ format, id, readOnly }: Disk) => {
  const image = { "node-name": id, "read-only": readOnly, file: `${id}-file` }
  return format === "qcow2" ? { ...image, driver: "qcow2", backing: null } : { ...image, driver: "raw" }
}

/** The device of a disk; `slot` is the root port that it sits behind, where there are any. */
export const diskDevice = (machine: Pick<Machine, "chipset">, { id, serial }: Disk, slot: string | undefined) => ({
  driver: device(machine, "blk"),
  id: `${id}-device`,
  drive: id,
  ...(slot === undefined ? {} : { bus: slot }),
  ...(serial === undefined ? {} : { serial }),
  werror: "stop",
  rerror: "report"
})

export const nicDevice = (machine: Pick<Machine, "chipset">, { id, mac }: Nic, slot: string | undefined) => ({
  driver: device(machine, "net"),
  id: `${id}-device`,
  netdev: id,
  mac,
  ...(slot === undefined ? {} : { bus: slot }),
  ...(machine.chipset === "q35" ? { romfile: "" } : {})
})

/** Properties as an option has them, the driver first. */
const option = ({
  driver,
  ...properties
}: Readonly<Record<string, string | number>> & { readonly driver: string }): string =>
  [driver, ...Object.entries(properties).map(([name, value]) => `${name}=${quoted(String(value))}`)].join(",")

const diskWords = (
  machine: Machine,
  disk: Disk,
  set: number,
  slot: string | undefined,
  bootIndex: number
): ReadonlyArray<string> => [
  "-add-fd",
  `fd=${set},set=${set},opaque=${disk.id}`,
  "-blockdev",
  JSON.stringify(fileNode(disk, set)),
  "-blockdev",
  JSON.stringify(imageNode(disk)),
  "-device",
  option({
    ...diskDevice(machine, disk, slot),
    ...(machine.boot._tag === "Firmware" ? { bootindex: String(bootIndex) } : {})
  })
]

/** What leads into the guest, as QEMU wants it. */
export const forwardText = ({ guestPort, hostAddress, hostPort, protocol }: Nic["forwards"][number]): string =>
  `${protocol}:${hostAddress}:${hostPort}-:${guestPort}`

const nicWords = (machine: Machine, nic: Nic, slot: string | undefined): ReadonlyArray<string> => [
  "-netdev",
  [
    `user,id=${nic.id}`,
    `restrict=${nic.restricted ? "on" : "off"}`,
    ...(nic.addresses === undefined ? [] : [`net=${nic.addresses}`]),
    ...nic.forwards.map((forward) => `hostfwd=${forwardText(forward)}`)
  ].join(","),
  "-device",
  option(nicDevice(machine, nic, slot))
]

const portWords = ({ name }: Port, index: number, listening: number): ReadonlyArray<string> => [
  "-chardev",
  `socket,id=port${index},fd=${listening},server=on,wait=off`,
  "-device",
  `virtserialport,chardev=port${index},name=${quoted(name)}`
]

const shareWords = (machine: Machine, { tag }: Share, connected: number): ReadonlyArray<string> => [
  "-chardev",
  `socket,id=${tag},fd=${connected}`,
  "-device",
  `vhost-user-fs-${machine.chipset === "q35" ? "pci" : "device"},chardev=${tag},tag=${tag}`
]

/**
 * The `virtio-mmio` places of a `microvm` with two interrupt controllers that are of use. There is one more, of which a guest hears
 * nothing: who asks the device there for anything waits for ever.
 */
const MOST_VIRTIO = 23

/** What a `microvm` has no places for. */
export const crowded = (machine: Machine): ReadonlyArray<Refusal> => {
  const { balloon, chipset, disks, emptyDisks = 0, nics, ports, shares = [] } = machine
  if (chipset !== "microvm") return []
  // one for randomness, one for all ports
  const own = 1 + (ports.length > 0 ? 1 : 0) + (balloon ? 1 : 0)
  const needed = own + disks.length + emptyDisks + nics.length + shares.length
  if (needed <= MOST_VIRTIO) return []
  const problem = `a microvm of QEMU has places for ${MOST_VIRTIO} devices, and disks, volumes and directories of the host make it ${needed}`
  return [{ field: shares.length > 0 ? "shares" : "disks", problem }]
}

/** The files and words of a machine; `binary` is the first word. `model`: it waits for the memory of a machine that was exactly this. */
export const make = (binary: string, asked: Machine, accelerator: Accelerator, model?: Model): Invocation => {
  const machine = model === undefined ? asked : ShapeArguments.asStarted(asked, model)
  const files: Array<Handed> = []
  const hand = (path: string, kind: Handed["kind"]): number => {
    const descriptor = FIRST_DESCRIPTOR + files.length
    files.push({ descriptor, path, kind })
    return descriptor
  }

  const { boot, chipset, shares = [] } = machine
  const bootWords =
    boot._tag === "Kernel"
      ? [
          "-kernel",
          `/dev/fd/${hand(boot.kernel, "ro")}`,
          ...(boot.initrd === undefined ? [] : ["-initrd", `/dev/fd/${hand(boot.initrd, "ro")}`]),
          "-append",
          [boot.commandLine, ...kernelParameters(machine, accelerator)].join(" ").trim()
        ]
      : [
          ...(boot.code === undefined ? [] : flash(0, hand(boot.code, "ro"), true)),
          ...(boot.variables === undefined ? [] : flash(1, hand(boot.variables, "own"), false))
        ]
  // as they stand in the list, or where they are in the machine that it is to be
  const places = model?.slots ?? [...machine.disks, ...machine.nics].map(({ id }) => id)
  const slot = ({ id }: { readonly id: string }) =>
    isPluggable(machine) ? slotName(Math.max(0, places.indexOf(id))) : undefined
  const slots = model?.slots.length ?? places.length + SPARE_SLOTS
  const disks = machine.disks.flatMap((disk, index) =>
    diskWords(machine, disk, hand(disk.file, disk.readOnly ? "ro" : "rw"), slot(disk), index + 1)
  )
  const pvpanic = chipset === "q35" ? "pvpanic-pci" : "pvpanic"

  return {
    files,
    words: [
      binary,
      "-name",
      `guest=${quoted(machine.name)},process=vm-${quoted(machine.name).slice(0, 12)}`,
      "-nodefaults",
      "-no-user-config",
      "-display",
      "none",
      "-S",
      "-sandbox",
      "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
      "-action",
      "reboot=reset,shutdown=pause,panic=pause,watchdog=pause",
      "-machine",
      `${model === undefined || chipset === "microvm" ? chipsets[chipset] : quoted(model.type)}${boot._tag === "Firmware" && boot.code !== undefined ? ",smm=on,pflash0=flash0,pflash1=flash1" : ""}`,
      ...(boot._tag === "Firmware" && boot.secure === true ? ["-global", SECURE_FLASH] : []),
      ...accelerators[accelerator],
      "-smp",
      ShapeArguments.processorsText(machine),
      ...(model?.plugged ?? []).flatMap((one) => ["-device", option(ShapeArguments.processorDevice(one))]),
      ...ShapeArguments.memoryWords(machine),
      "-chardev",
      "stdio,id=console,signal=off",
      "-serial",
      "chardev:console",
      "-chardev",
      `socket,id=control,fd=${hand(CONTROL_SOCKET, "socket")},server=on,wait=off`,
      "-mon",
      "chardev=control,mode=control",
      "-chardev",
      `socket,id=hand,fd=${hand(HAND_SOCKET, "socket")},server=on,wait=off`,
      "-mon",
      "chardev=hand,mode=control",
      ...(model === undefined ? [] : ["-incoming", "defer"]),
      ...bootWords,
      "-device",
      device(machine, "rng"),
      "-device",
      pvpanic,
      ...(machine.watchdog ? ["-device", "i6300esb,id=watchdog"] : []),
      ...(machine.balloon ? ["-device", `${device(machine, "balloon")},id=balloon`] : []),
      ...(machine.ignition === undefined
        ? []
        : ["-fw_cfg", `name=opt/com.coreos/config,file=/dev/fd/${hand(machine.ignition, "ro")}`]),
      ...(machine.pciDevices ?? []).flatMap((address) => ["-device", `vfio-pci,host=${address}`]),
      ...slotWords(machine, slots),
      // before the disks: a guest that looks for its port finds it where it looks first, however many there are
      ...(machine.ports.length === 0 ? [] : ["-device", device(machine, "serial")]),
      ...machine.ports.flatMap((port, index) => portWords(port, index, hand(port.socket, "socket"))),
      ...disks,
      ...emptyWords(machine),
      ...machine.nics.flatMap((nic) => nicWords(machine, nic, slot(nic))),
      ...(shares.length > 0 && chipset === "microvm" ? ["-global", "virtio-mmio.force-legacy=false"] : []),
      ...shares.flatMap((share) => shareWords(machine, share, hand(share.socket, "peer")))
    ]
  }
}

/** The chip with the variables takes what is written to it in system management mode only, where only firmware is. */
const SECURE_FLASH = "driver=cfi.pflash01,property=secure,value=on"

/** A flash chip with firmware in it. */
const flash = (unit: 0 | 1, set: number, readOnly: boolean): ReadonlyArray<string> => [
  "-add-fd",
  `fd=${set},set=${set}`,
  "-blockdev",
  JSON.stringify({
    driver: "file",
    "node-name": `flash${unit}`,
    filename: `/dev/fdset/${set}`,
    "read-only": readOnly
  })
]
