/** Disks that a machine boots by UEFI, with the test's guest: kernel, initramfs and command line are one program (`Uki.ts`). */
import { truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { run } from "../../scripts/image/Kernel.ts"
import { unifiedKernelImage } from "../../scripts/image/Uki.ts"
import { guest } from "./guest.ts"

/** An emulated timer may tick too late for the kernel's test of it. */
export const commandLine = "console=ttyS0 panic=-1 no_timer_check guest.do=idle"

/** Seconds since 1970: the time of everything in it. */
export const time = 1_700_000_000

/** Writes the guest as an EFI program, unsigned. */
export const program = (target: string): string => {
  const { initrd, kernel } = guest()
  const osRelease = 'ID=guest\nVERSION_ID=1\nPRETTY_NAME="A guest"\n'
  unifiedKernelImage({ kernel, initramfs: initrd, commandLine, osRelease, time }, target)
  return target
}

const bytes = 64 * 1024 ** 2

/** Writes a disk that is one FAT file system, with the program where firmware looks for one. */
export const disk = (directory: string, name: string, program: string): string => {
  const target = join(directory, name)
  writeFileSync(target, "")
  truncateSync(target, bytes)
  run("mkfs.vfat", ["-F", "32", "-n", "GUEST", "--invariant", target])
  for (const folder of ["EFI", "EFI/BOOT"]) run("mmd", ["-i", target, `::/${folder}`])
  run("mcopy", ["-i", target, program, "::/EFI/BOOT/BOOTX64.EFI"])
  return target
}
