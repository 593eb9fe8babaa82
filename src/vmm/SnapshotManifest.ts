/**
 * What a snapshot says of itself: the file `manifest.json` in its directory. The other files are there by the names it gives.
 *
 * Trap: stored data; a field that is added later needs a default for decoding.
 */
import * as Schema from "effect/Schema"
import { WorkloadName } from "../storage/Workload.ts"
import { Digest } from "../storage/Digest.ts"
import { DriverName, Model } from "./Hypervisor.ts"
import { VmSpec } from "./VmSpec.ts"

/** A file in the snapshot's directory. */
export const SnapshotFile = Schema.Struct({
  name: Schema.String.pipe(Schema.check(Schema.isPattern(/^[a-z0-9]{1,16}$/))),
  size: Schema.Int,
  digest: Digest
})
export type SnapshotFile = typeof SnapshotFile.Type

export const SnapshotManifest = Schema.Struct({
  version: Schema.Literal(1),
  /** The machine's. */
  name: WorkloadName,
  snapshot: WorkloadName,
  /** Milliseconds since 1970. */
  createdAt: Schema.Finite,
  hypervisor: Schema.Struct({
    name: DriverName,
    /** Of the program. */
    version: Schema.String,
    model: Model,
    accelerator: Schema.Literals(["kvm", "tcg"])
  }),
  /** The machine as it was. */
  spec: VmSpec,
  /** A person had paused it. */
  paused: Schema.Boolean,
  /** For how long its guest stood still for this, in milliseconds. */
  stoodStill: Schema.Finite,
  memory: SnapshotFile,
  /** What belongs to it (`Memory.beside`). */
  beside: Schema.optionalKey(Schema.Array(SnapshotFile)),
  /** The content of the disk at that place of the spec; those that the guest cannot write to are not copied. */
  disks: Schema.Array(Schema.Struct({ index: Schema.Int, file: SnapshotFile })),
  /** Those of its firmware. */
  variables: Schema.optionalKey(SnapshotFile)
})
export type SnapshotManifest = typeof SnapshotManifest.Type

/** Those of its memory. */
const memoryOf = ({ beside = [], memory }: SnapshotManifest): ReadonlyArray<SnapshotFile> => [memory, ...beside]

/** Its files; `memory`: also those of its memory. */
export const filesOf = (manifest: SnapshotManifest, memory = true): ReadonlyArray<SnapshotFile> => [
  ...(memory ? memoryOf(manifest) : []),
  ...manifest.disks.map(({ file }) => file),
  ...(manifest.variables === undefined ? [] : [manifest.variables])
]

export const bytesOf = (manifest: SnapshotManifest): number =>
  filesOf(manifest).reduce((sum, { size }) => sum + size, 0)

const numbers = (version: string): readonly [major: number, minor: number] => {
  const [, major = "0", minor = "0"] = /(\d+)\.(\d+)/.exec(version) ?? []
  return [Number(major), Number(minor)]
}

/** Why a program of this version cannot go on with a machine that another one made; empty: it can. */
export const versionProblem = (made: SnapshotManifest["hypervisor"], version: string): string => {
  const [, of] = /-(\d+\.\d+)$/.exec(made.model.type) ?? []
  const [major, minor] = numbers(version)
  const [wantedMajor, wantedMinor] = numbers(of ?? made.version)
  const isNewer = major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
  const isSame = major === wantedMajor && minor === wantedMinor
  if (of === undefined) {
    return isSame ? "" : `a ${made.model.type} goes on only with ${made.name} ${made.version}, and here is ${version}`
  }
  return isNewer ? "" : `it is a ${made.model.type}, which ${made.name} ${version} does not have`
}
