/**
 * What an image has that can make virtual machines (`--hypervisor`), in a squashfs of its own: Debian's QEMU with its libraries,
 * the firmware that its machines start with, UEFI, the guest of microVMs, what packs their disks and shares directories with them, and the kernel's modules for
 * KVM and for devices that are given away.
 *
 * Traps:
 * - QEMU looks for its firmware and its modules beside where it is itself: all of it lies as in Debian.
 * - Of files that the rest of the system has, too, these are the ones that count: the lists of modules name those of both.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { type CpioEntry, file } from "./Cpio.ts"
import { type Kernel, moduleFiles } from "./Kernel.ts"
import { copyOf, libraryEntries, pathOf } from "./Libraries.ts"

/** Loaded at the start: without it nothing can be given to `vfio-pci`. */
export const loadedModules: ReadonlyArray<string> = ["vfio_iommu_type1"]

/** Processors that can run guests say that they need the one or the other; `vfio_pci` is for a machine config that names it. */
export const carriedModules: ReadonlyArray<string> = ["kvm_intel", "kvm_amd", "vfio_pci"]

const emulator = "qemu-system-x86_64"

/** The one module that it has no use without: emulation, where there is no KVM. */
const emulation = "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so"

/** Of the packages that come with QEMU, and `ovmf`: what machines without a screen start with. */
const firmware: ReadonlyArray<string> = [
  "/usr/share/seabios/bios-256k.bin",
  // what a microvm starts with, which is the other one
  "/usr/share/qemu/bios-microvm.bin",
  "/usr/share/qemu/qboot.rom",
  "/usr/share/qemu/kvmvapic.bin",
  // a kernel without firmware: Linux', older than that, PVH; and the program that finds out whether KVM works
  "/usr/share/qemu/linuxboot.bin",
  "/usr/share/qemu/linuxboot_dma.bin",
  "/usr/share/qemu/multiboot.bin",
  "/usr/share/qemu/multiboot_dma.bin",
  "/usr/share/qemu/pvh.bin",
  "/usr/share/OVMF/OVMF_CODE_4M.fd",
  "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
  "/usr/share/OVMF/OVMF_VARS_4M.fd",
  "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
]

/** What shares directories with microVMs; Debian has it with QEMU. */
const sharing = "/usr/lib/qemu/virtiofsd"

/** What else the brain runs for virtual machines alone: they pack the disks of microVMs. */
const programs: ReadonlyArray<string> = ["tar2sqfs", "mkfifo"]

/** What an image has besides `system`. `guest`: where `scripts/guest.ts` has made the guest. */
export const hypervisor = (
  { modules, release }: Kernel,
  guest: string,
  system: ReadonlyArray<CpioEntry>
): ReadonlyArray<CpioEntry> => {
  const there = new Set(system.map(({ path }) => path))
  const files = [emulation, ...firmware].map((path) => copyOf(path, "--boot"))
  const copies = [emulator, ...programs].map((name) => ({ name, path: pathOf(name, "--boot") }))
  const carried = moduleFiles(modules, [...loadedModules, ...carriedModules])
  return [
    ...copies.map(({ name, path }) => file(`usr/bin/${name}`, readFileSync(path), 0o755)),
    file(sharing.slice(1), readFileSync(sharing), 0o755),
    ...libraryEntries([...copies.map(({ path }) => path), emulation, sharing]),
    ...files,
    ...["guest.json", "initramfs.img", "vmlinuz"].map((name) =>
      file(`usr/lib/ironwood/guest/${name}`, readFileSync(join(guest, name)))
    ),
    ...carried.map((path) => file(`usr/lib/modules/${release}/${path}`, readFileSync(join(modules, path))))
  ].filter(({ path }) => !there.has(path))
}
