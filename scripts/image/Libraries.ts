/**
 * Programs of this system that an image has, and the shared libraries that they need to run elsewhere: what `ldd` says, links
 * followed.
 */
import { existsSync, lstatSync, readFileSync, readlinkSync, realpathSync } from "node:fs"
import { join } from "node:path"
import { type CpioEntry, file, link } from "./Cpio.ts"
import { ImageFailed, run } from "./Kernel.ts"

export interface Library {
  /** Where programs look for it. */
  readonly name: string
  /** The file that it is here. */
  readonly file: string
}

/** What of `scripts/setup` installs what an image is made of. */
export type Setup = "--image" | "--boot"

const missing = (what: string, setup: Setup): ImageFailed =>
  new ImageFailed(`${what} is missing here; run scripts/setup ${setup}, which installs what such images are made of`)

/** Where a program of this system is, links followed. */
export const pathOf = (program: string, setup: Setup = "--image"): string => {
  const found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map((folder) => join(folder, program)).find(existsSync)
  if (found === undefined) throw missing(program, setup)
  return realpathSync(found)
}

/** A file of this system, as it is here: a link as a link. */
export const copyOf = (path: string, setup: Setup): CpioEntry => {
  if (!existsSync(path)) throw missing(path, setup)
  return lstatSync(path).isSymbolicLink()
    ? link(path.slice(1), readlinkSync(path))
    : file(path.slice(1), readFileSync(path))
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
