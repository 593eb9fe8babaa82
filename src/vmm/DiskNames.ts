/** How people name a disk of a machine: by its path, the name of its volume, or its serial. A path counts before the others. */
import type { DiskSpec, VmSpec } from "./VmSpec.ts"

/** The disks that a word names: none, one, or several that have the same serial. */
export const named = ({ disks }: Pick<VmSpec, "disks">, word: string): ReadonlyArray<DiskSpec> => {
  const at = disks.filter(({ path }) => path === word)
  return at.length > 0 ? at : disks.filter(({ serial, volume }) => volume === word || serial === word)
}

/** What is wrong with a word that names several. */
export const severalProblem = (disks: ReadonlyArray<DiskSpec>): string =>
  `is a name of more than one of its disks: ${disks.map(({ path }) => path).join(", ")}; say which path`
