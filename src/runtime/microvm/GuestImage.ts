/**
 * What the guest of a microVM boots: kernel and initramfs, made by `scripts/guest.ts`. In a checkout they lie beside taproot, on a
 * machine that boots into Ironwood where its other files are.
 */
import { existsSync, readlinkSync } from "node:fs"
import { dirname, join } from "node:path"

export interface GuestImage {
  readonly kernel: string
  readonly initramfs: string
}

/** A sentence when there is none. */
export const find = (taprootPid: number): GuestImage | string => {
  const places = ["/usr/lib/ironwood/guest"]
  try {
    places.unshift(join(dirname(readlinkSync(`/proc/${taprootPid}/exe`)), "guest"))
  } catch {
    // not ours to see
  }
  // written last: with it the others are whole
  const place = places.find((directory) => existsSync(join(directory, "guest.json")))
  return place === undefined
    ? `there is no guest image in ${places.join(" or ")}: run scripts/setup, which makes one`
    : { kernel: join(place, "vmlinuz"), initramfs: join(place, "initramfs.img") }
}
