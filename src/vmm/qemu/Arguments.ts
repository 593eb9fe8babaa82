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
 * - Under emulation kernels test timers that tick too late on a busy host; their command line is told not to.
 */
import type { Accelerator } from "../Accelerator.ts"
import type { Handed } from "../Launching.ts"
import type { Disk, Machine, Nic, Port } from "../Machine.ts"

export interface Invocation {
  readonly files: ReadonlyArray<Handed>
  readonly words: ReadonlyArray<string>
}

/** The control socket's name in the machine's directory. */
export const CONTROL_SOCKET = "qmp"
/** That of a second one, by which files are handed to a machine that runs (`hand`, beside taproot). */
export const HAND_SOCKET = "hand"

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
const device = (machine: Machine, kind: "blk" | "net" | "rng" | "serial" | "balloon"): string =>
  `virtio-${kind}-${machine.chipset === "q35" ? "pci" : "device"}`

/** A value in an option of the kind `key=value,key=value`: commas are doubled. */
const quoted = (value: string): string => value.replaceAll(",", ",,")

/** What kernels are told besides what their command line says. */
const kernelParameters = (machine: Machine, accelerator: Accelerator): ReadonlyArray<string> => {
  if (accelerator !== "tcg") return []
  // without PCI there is nothing to measure the clock by, and an emulated one is not the processor's anyway
  return machine.chipset === "microvm" ? ["no_timer_check", "tsc_early_khz=2600000"] : ["no_timer_check"]
}

const diskWords = (machine: Machine, { format, id, readOnly, serial }: Disk, set: number): ReadonlyArray<string> => {
  const file = { driver: "file", "node-name": `${id}-file`, filename: `/dev/fdset/${set}`, "read-only": readOnly }
  const image = { "node-name": id, "read-only": readOnly, file: `${id}-file` }
  const node = format === "qcow2" ? { ...image, driver: "qcow2", backing: null } : { ...image, driver: "raw" }
  const drive = [device(machine, "blk"), `drive=${id}`, `id=${id}-device`]
  return [
    "-add-fd",
    `fd=${set},set=${set}`,
    "-blockdev",
    JSON.stringify(file),
    "-blockdev",
    JSON.stringify(node),
    "-device",
    [...drive, ...(serial === undefined ? [] : [`serial=${quoted(serial)}`]), "werror=stop", "rerror=report"].join(",")
  ]
}

const nicWords = (machine: Machine, { forwards, id, mac, restricted }: Nic): ReadonlyArray<string> => [
  "-netdev",
  [
    `user,id=${id}`,
    `restrict=${restricted ? "on" : "off"}`,
    ...forwards.map(
      ({ guestPort, hostAddress, hostPort, protocol }) => `hostfwd=${protocol}:${hostAddress}:${hostPort}-:${guestPort}`
    )
  ].join(","),
  "-device",
  `${device(machine, "net")},netdev=${id},mac=${mac}${machine.chipset === "q35" ? ",romfile=" : ""}`
]

const portWords = ({ name }: Port, index: number, listening: number): ReadonlyArray<string> => [
  "-chardev",
  `socket,id=port${index},fd=${listening},server=on,wait=off`,
  "-device",
  `virtserialport,chardev=port${index},name=${quoted(name)}`
]

/** The files and words of a machine; `binary` is the first word. `model`: it waits for the memory of a machine that was exactly this. */
export const make = (binary: string, machine: Machine, accelerator: Accelerator, model?: string): Invocation => {
  const files: Array<Handed> = []
  const hand = (path: string, kind: Handed["kind"]): number => {
    const descriptor = FIRST_DESCRIPTOR + files.length
    files.push({ descriptor, path, kind })
    return descriptor
  }

  const { boot, chipset } = machine
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
  const disks = machine.disks.flatMap((disk) => diskWords(machine, disk, hand(disk.file, disk.readOnly ? "ro" : "rw")))
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
      `${model === undefined || chipset === "microvm" ? chipsets[chipset] : quoted(model)}${boot._tag === "Firmware" && boot.code !== undefined ? ",smm=on,pflash0=flash0,pflash1=flash1" : ""}`,
      ...accelerators[accelerator],
      "-smp",
      String(machine.cpus),
      "-m",
      `${Math.ceil(machine.memoryBytes / 1024)}k`,
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
      ...disks,
      ...machine.nics.flatMap((nic) => nicWords(machine, nic)),
      ...(machine.ports.length === 0 ? [] : ["-device", device(machine, "serial")]),
      ...machine.ports.flatMap((port, index) => portWords(port, index, hand(port.socket, "socket")))
    ]
  }
}

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
