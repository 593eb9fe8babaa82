/** The shared libraries that programs of this system need to run elsewhere: what `ldd` says, links followed. */
import { realpathSync } from "node:fs"
import { run } from "./Kernel.ts"

export interface Library {
  /** Where programs look for it. */
  readonly name: string
  /** The file that it is here. */
  readonly file: string
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
