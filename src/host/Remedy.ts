/**
 * What to do about a program that this host lacks, in words for people: on a system of its own kind it is installed; a machine that
 * booted into Ironwood has what its image has, and takes another image.
 */
import { readFileSync } from "node:fs"

const osRelease = (): string => {
  try {
    return readFileSync("/etc/os-release", "utf8")
  } catch {
    return ""
  }
}

/** Whether this host booted into Ironwood. `system`: its os-release(5). */
export const isImage = (system = osRelease()): boolean => /^ID=ironwood$/m.test(system)

/** Of what makes networks of containers; the same. */
export const ofNetwork = (elsewhere: string, system = osRelease()): string =>
  isImage(system) ? "this image was made without it: make a newer one, `npm run image`" : elsewhere

/** Of what makes virtual machines. `elsewhere`: what to do on a host of another kind. */
export const ofHypervisor = (elsewhere: string, system = osRelease()): string =>
  isImage(system)
    ? "this image has no hypervisor: boot one that was made with `npm run image -- --hypervisor`"
    : elsewhere
