/**
 * What the guest of a microVM boots: kernel and initramfs, made by `scripts/guest.ts`. In a checkout they lie beside taproot, on a
 * machine that boots into Ironwood where its other files are.
 */
import * as Effect from "effect/Effect"
import { constants, existsSync, readlinkSync } from "node:fs"
import { open } from "node:fs/promises"
import { dirname, join } from "node:path"
import * as Remedy from "../../host/Remedy.ts"

/** What a kernel of somebody's own must have built in. */
export const NEEDED =
  "CONFIG_PVH or a bzImage, CONFIG_ACPI, CONFIG_VIRTIO_MMIO, CONFIG_VIRTIO_CONSOLE, CONFIG_VIRTIO_BLK, CONFIG_HW_RANDOM_VIRTIO, " +
  "CONFIG_SQUASHFS (with zstd), CONFIG_OVERLAY_FS, CONFIG_EXT4_FS, CONFIG_BLK_DEV_INITRD, CONFIG_DEVTMPFS, cgroups and namespaces"

/**
 * What kernels of guests are told, whoever's they are; what one does not know it ignores. Where the guest is emulated the first
 * process comes a seventh sooner than without the last three, and an OCI runtime takes a third less:
 *
 * - `cryptomgr.notests`: a kernel tries each of its ciphers before anybody uses it.
 * - `rcupdate.rcu_expedited`: whoever waits for the kernel's grace periods, as an OCI runtime does for a cgroup, waits for them alone,
 *   and not until there is something else to do.
 * - `rootfstype=ramfs`: on a tmpfs crun does not see that it lies on a read-only mount (`ReadOnlyProgram.ts`), for it asks that file
 *   system for something else first, and executes itself anew twice at each call.
 */
export const parameters: ReadonlyArray<string> = [
  "console=ttyS0",
  "panic=-1",
  "reboot=t",
  "cryptomgr.notests",
  "rcupdate.rcu_expedited=1",
  "rootfstype=ramfs"
]

/** What is wrong with a file as the kernel of a guest; undefined when it looks like one. */
export const kernelProblem = (path: string): Effect.Effect<string | undefined> =>
  Effect.acquireUseRelease(
    Effect.tryPromise(() => open(path, constants.O_RDONLY | constants.O_NONBLOCK)),
    (file) =>
      Effect.tryPromise(async () => {
        if (!(await file.stat()).isFile()) return `${path} is no file`
        const { buffer, bytesRead } = await file.read(Buffer.alloc(0x206), 0, 0x206, 0)
        const isElf = bytesRead >= 20 && buffer.readUInt32BE(0) === 0x7f454c46 && buffer[4] === 2
        const isBzImage =
          bytesRead === 0x206 && buffer.readUInt16LE(0x1fe) === 0xaa55 && buffer.toString("latin1", 0x202) === "HdrS"
        return isElf || isBzImage ? undefined : `${path} is neither a bzImage nor a 64-bit ELF`
      }),
    (file) => Effect.promise(() => file.close())
  ).pipe(Effect.orElseSucceed(() => `${path} cannot be read`))

export interface GuestImage {
  readonly kernel: string
  readonly initramfs: string
}

/** A sentence when there is none. */
export const find = (taprootPid: number): GuestImage | string => {
  const places = ["/usr/lib/ironwood/guest"]
  try {
    const beside = dirname(readlinkSync(`/proc/${taprootPid}/exe`))
    // taproot of a machine is its /init
    if (beside !== "/") places.unshift(join(beside, "guest"))
  } catch {
    // not ours to see
  }
  // written last: with it the others are whole
  const place = places.find((directory) => existsSync(join(directory, "guest.json")))
  return place === undefined
    ? `there is no guest image in ${places.join(" or ")}; ${Remedy.ofHypervisor("run scripts/setup, which makes one")}`
    : { kernel: join(place, "vmlinuz"), initramfs: join(place, "initramfs.img") }
}
