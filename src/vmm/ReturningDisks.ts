/**
 * Disks that a machine had when its snapshot was taken, and has no more: a restore gives them back, with what was on them then,
 * unless somebody else has them now. What the guest only read is not in the snapshot, and must still be where it was.
 */
import * as Effect from "effect/Effect"
import * as DiskOwners from "./DiskOwners.ts"
import * as Disks from "./Disks.ts"
import type { DiskSources } from "./DiskSources.ts"
import type { StoredVm } from "./Records.ts"
import type { SnapshotManifest } from "./SnapshotManifest.ts"
import { type DiskSpec, type VmSpec, withFields } from "./VmSpec.ts"

/** Those of `then` that `now` has not. */
export const between = (then: VmSpec, now: VmSpec): ReadonlyArray<DiskSpec> => {
  const present = new Set(now.disks.map(({ path }) => path))
  return then.disks.filter(({ path }) => !present.has(path))
}

/** Why the machine cannot have them again, and what to do about it; nothing: it can. `all`: every machine, itself too. */
export const problemOf = Effect.fnUntraced(function* (
  { name, snapshot, spec }: SnapshotManifest,
  disks: ReadonlyArray<DiskSpec>,
  all: ReadonlyArray<StoredVm>,
  sources: DiskSources["Service"]
) {
  const others = all.filter((one) => one.name !== name)
  const instead = `or make another machine of the snapshot: \`ironwood vm clone ${name} ${snapshot} NAME\``
  for (const disk of disks) {
    const { path, readOnly, volume } = disk
    const [ofVolume] = volume === undefined ? [] : yield* sources.problems(withFields(spec, { disks: [disk] }))
    if (ofVolume !== undefined) return `it had volume ${volume} then: ${ofVolume.problem}`
    const looked = yield* Effect.result(Disks.inspect(disk))
    // one that was written to comes out of the snapshot, whatever has become of its file
    if (looked._tag === "Failure") {
      if (readOnly) return `it had ${path} then, which it only read and the snapshot does not hold: ${looked.failure}`
      continue
    }
    const [owner] = yield* DiskOwners.of(disk, looked.success, others)
    if (owner !== undefined) {
      return `it had ${path} then, which is a disk of virtual machine ${owner} now: \`ironwood vm detach-disk ${owner} ${path}\` first, ${instead}`
    }
  }
  return undefined
})
