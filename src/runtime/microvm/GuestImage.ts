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
