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

/** Of what makes virtual machines. `elsewhere`: what to do on a host of another kind. `system`: os-release(5) of this one. */
export const ofHypervisor = (elsewhere: string, system = osRelease()): string =>
  /^ID=ironwood$/m.test(system)
    ? "this image has no hypervisor: boot one that was made with `npm run image -- --hypervisor`"
    : elsewhere
