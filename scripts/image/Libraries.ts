/**
 * Programs of this system that an image has, and the shared libraries that they need to run elsewhere: what `ldd` says, links
 * followed.
 */
import { existsSync, readFileSync, realpathSync } from "node:fs"
import { join } from "node:path"
import { type CpioEntry, file } from "./Cpio.ts"
import { ImageFailed, run } from "./Kernel.ts"

export interface Library {
  /** Where programs look for it. */
  readonly name: string
  /** The file that it is here. */
  readonly file: string
}

/** Where a program of this system is, links followed. `setup`: what `scripts/setup` is given to install it. */
export const pathOf = (program: string, setup: "--image" | "--boot" = "--image"): string => {
  const found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map((folder) => join(folder, program)).find(existsSync)
  if (found === undefined) {
    throw new ImageFailed(
      `${program} is missing here; run scripts/setup ${setup}, which installs what such images are made of`
    )
  }
  return realpathSync(found)
}

/** All libraries of the programs, the loader included, each once. */
export const librariesOf = (programs: ReadonlyArray<string>): ReadonlyArray<Library> => {
  const found = new Map<string, Library>()
  for (const line of run("ldd", programs).split("\n")) {
    const path = /(?:=>\s*)?(\/\S+) \(0x/.exec(line)?.[1]
    if (path !== undefined) found.set(path, { name: path, file: realpathSync(path) })
  }
  return [...found.values()].sort((one, other) => (one.name < other.name ? -1 : 1))
}

/** The same as entries of an image, all below `usr`. */
export const libraryEntries = (programs: ReadonlyArray<string>): ReadonlyArray<CpioEntry> =>
  librariesOf(programs).map(({ file: path, name }) =>
    file(name.replace(/^\/(usr\/)?/, "usr/"), readFileSync(path), 0o755)
  )
