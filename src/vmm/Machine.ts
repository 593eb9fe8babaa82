/**
 * A virtual machine as a hypervisor is told to make it: everything resolved, nothing left to be looked up. What people ask
 * for is `VmSpec.ts`; whoever makes machines for another purpose (a sandbox of containers) starts here.
 *
 * Trap: files are named by absolute paths of the host, but no hypervisor opens them: `launch` does, and hands them over as
 * descriptors (`Hypervisor.ts`), sockets too. What is a socket's name here is relative to the machine's own directory.
 */

import type { DiskLimits, Topology } from "./Shape.ts"

/** `q35`: a PC with PCI, firmware and all that; `microvm`: virtio over memory-mapped registers, and a kernel at once. */
export type Chipset = "q35" | "microvm"

/** What is booted. */
export type Boot =
  | {
      readonly _tag: "Kernel"
      readonly kernel: string
      readonly initrd?: string
      readonly commandLine: string
    }
  /**
   * UEFI from these files, `variables` being the machine's own; without files the hypervisor's own firmware (BIOS). `secure`: nobody but
   * that firmware may write to its variables, which Secure Boot rests on.
   */
  | { readonly _tag: "Firmware"; readonly code?: string; readonly variables?: string; readonly secure?: boolean }

export interface Disk {
  /** Names it in the machine: letters, digits, hyphens. */
  readonly id: string
  /** A regular file or a block device. */
  readonly file: string
  readonly format: "raw" | "qcow2"
  readonly readOnly: boolean
  /** At most 20 characters, as virtio-blk has it. */
  readonly serial?: string
  /** It is grown to this many bytes where it has less. */
  readonly sizeBytes?: number
  readonly limits?: DiskLimits
}

/** A port of the host that leads to one of the guest. */
export interface Forward {
  readonly protocol: "tcp" | "udp"
  readonly hostAddress: string
  readonly hostPort: number
  readonly guestPort: number
}

/** A card on a network of its own, which the hypervisor translates to the host's. */
export interface Nic {
  readonly id: string
  readonly mac: string
  readonly forwards: ReadonlyArray<Forward>
  /** The addresses of that network, like `10.0.3.0/24`; default: the hypervisor's own. */
  readonly addresses?: string
  /** The guest reaches nothing, and is reached by what is forwarded to it; else all that the host reaches, its loopback included. */
  readonly restricted: boolean
}

/** A virtio-serial port, `/dev/virtio-ports/<name>` in the guest, that the host has as a unix socket. */
export interface Port {
  readonly name: string
  /** The socket's name in the machine's directory. */
  readonly socket: string
}

/** A directory that its guest can mount by its tag (virtiofs). */
export interface Share {
  /** Letters, digits and hyphens, at most 36. */
  readonly tag: string
  /** The name in the machine's directory of the socket on which whoever serves it listens (vhost-user). */
  readonly socket: string
}

export interface Machine {
  readonly name: string
  readonly chipset: Chipset
  readonly memoryBytes: number
  readonly cpus: number
  readonly boot: Boot
  readonly disks: ReadonlyArray<Disk>
  /** So many read-only disks besides, with nothing in them until something is inserted; default none. */
  readonly emptyDisks?: number
  readonly nics: ReadonlyArray<Nic>
  /** What its cards are translated to; default: the host's network. */
  readonly network?: { readonly namespace: string }
  readonly ports: ReadonlyArray<Port>
  /** Its memory is then shared with those who serve them. */
  readonly shares?: ReadonlyArray<Share>
  /** A device that fires when the guest does not feed it. */
  readonly watchdog: boolean
  /** A device by which the host takes memory back from the guest. */
  readonly balloon: boolean
  /** What it leaves to the guest. */
  readonly balloonBytes?: number
  /** How many processors it can have while it runs. */
  readonly maxCpus?: number
  /** How much memory it can have while it runs. */
  readonly maxMemoryBytes?: number
  readonly topology?: Topology
  /** The size of the huge pages that its memory is made of. */
  readonly hugepageBytes?: number
  /** A file with a config for Ignition. */
  readonly ignition?: string
  /** PCI devices of the host's. */
  readonly pciDevices?: ReadonlyArray<string>
}
