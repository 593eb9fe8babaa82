/**
 * The configuration of a machine for Cloud Hypervisor (`vm.create`), as data, and the files that it needs.
 *
 * Traps:
 * - Cloud Hypervisor opens files by their names, and again when the guest reboots: it is given the names of its descriptors
 *   (`Launching.nameOf`).
 * - With Landlock (`landlock_enable`) it can open what it had a name of when the machine was made, what it is lent, and nothing else
 *   of the host.
 */
import type { Handed } from "../Launching.ts"
import { nameOf } from "../Launching.ts"
import type { Disk, Machine } from "../Machine.ts"
import { type DiskConfig, MEMORY_REGION, type PayloadConfig, type VmConfig } from "./Api.ts"

const FIRST_DESCRIPTOR = 3

/** Where its firmware is looked for; both boot disks by UEFI (docs/uefi.md), or at least their kernels. */
export const FIRMWARE = [
  "/usr/share/cloud-hypervisor/CLOUDHV.fd",
  "/usr/share/cloud-hypervisor/hypervisor-fw",
  "/usr/local/share/cloud-hypervisor/CLOUDHV.fd",
  "/usr/local/share/cloud-hypervisor/hypervisor-fw"
] as const

/** The control socket's name and that of the record of events, in the machine's directory. */
export const CONTROL_SOCKET = "cloud-hypervisor.sock"
export const EVENTS = "events"

export interface Plan {
  readonly files: ReadonlyArray<Handed>
  readonly words: ReadonlyArray<string>
  readonly config: VmConfig
}

/** What of its options this Cloud Hypervisor has. */
export interface Options {
  readonly landlock: boolean
  /** It stays when its guest has switched the machine off. */
  readonly noShutdown: boolean
  /** Where it finds what it is lent (`Lending.seen`). */
  readonly lent: string | undefined
}

/** A disk that it finds at a path. */
export const diskOf = ({ format, id, readOnly, serial }: Disk, path: string): DiskConfig => ({
  id,
  path,
  readonly: readOnly,
  image_type: format === "qcow2" ? "Qcow2" : "Raw",
  backing_files: false,
  ...(serial === undefined ? {} : { serial })
})

const cpusOf = ({ cpus, maxCpus = cpus, topology }: Machine): VmConfig["cpus"] => ({
  boot_vcpus: cpus,
  max_vcpus: maxCpus,
  ...(topology === undefined
    ? {}
    : {
        topology: {
          threads_per_core: topology.threads,
          cores_per_die: topology.cores,
          dies_per_package: 1,
          packages: topology.sockets
        }
      })
})

const memoryOf = ({ hugepageBytes, maxMemoryBytes, memoryBytes }: Machine): VmConfig["memory"] => ({
  size: Math.ceil(memoryBytes / 4096) * 4096,
  ...(maxMemoryBytes === undefined || maxMemoryBytes === memoryBytes
    ? {}
    : {
        hotplug_size: Math.ceil((maxMemoryBytes - memoryBytes) / MEMORY_REGION) * MEMORY_REGION,
        hotplug_method: "VirtioMem"
      }),
  ...(hugepageBytes === undefined ? {} : { hugepages: true, hugepage_size: hugepageBytes })
})

/** What the balloon keeps from the guest of a machine. */
export const balloonOf = ({ balloonBytes, memoryBytes }: Machine): number =>
  balloonBytes === undefined ? 0 : memoryBytes - balloonBytes

/** `events` is the absolute path of the record; `firmware` that of the firmware, for a machine without a kernel. */
export const make = (machine: Machine, options: Options, events: string, firmware: string | undefined): Plan => {
  const files: Array<Handed> = []
  const hand = (path: string, kind: Handed["kind"]): number => {
    const descriptor = FIRST_DESCRIPTOR + files.length
    files.push({ descriptor, path, kind })
    return descriptor
  }
  const { boot } = machine
  const payload: PayloadConfig =
    boot._tag === "Kernel"
      ? {
          kernel: nameOf(hand(boot.kernel, "ro")),
          ...(boot.initrd === undefined ? {} : { initramfs: nameOf(hand(boot.initrd, "ro")) }),
          cmdline: boot.commandLine
        }
      : firmware === undefined
        ? {}
        : { firmware: nameOf(hand(firmware, "ro")) }
  const disks = machine.disks.map((disk) => diskOf(disk, nameOf(hand(disk.file, disk.readOnly ? "ro" : "rw"))))
  return {
    config: {
      cpus: cpusOf(machine),
      memory: memoryOf(machine),
      payload,
      ...(disks.length === 0 ? {} : { disks }),
      rng: { src: "/dev/urandom" },
      ...(machine.balloon
        ? { balloon: { size: balloonOf(machine), deflate_on_oom: true, free_page_reporting: true } }
        : {}),
      serial: { mode: "Tty" },
      console: { mode: "Off" },
      pvpanic: true,
      ...(options.landlock ? { landlock_enable: true } : {}),
      ...(options.landlock && options.lent !== undefined
        ? { landlock_rules: [{ path: options.lent, access: "rw" }] }
        : {})
    },
    words: [
      "--seccomp",
      "true",
      "--api-socket",
      `fd=${hand(CONTROL_SOCKET, "socket")}`,
      "--event-monitor",
      `fd=${hand(events, "log")}`,
      ...(options.noShutdown ? ["--no-shutdown"] : [])
    ],
    files
  }
}
