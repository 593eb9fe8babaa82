/** Which machine has a file as a disk: one that is written to belongs to one machine alone. */
import * as Effect from "effect/Effect"
import * as Disks from "./Disks.ts"
import type { StoredVm } from "./Records.ts"
import type { DiskSpec } from "./VmSpec.ts"

/** Those of `others` that have the file `identity` of `disk` as one of theirs, where not both only read it. */
export const of = Effect.fnUntraced(function* (
  disk: DiskSpec,
  identity: Disks.Identity,
  others: ReadonlyArray<StoredVm>
) {
  const owners: Array<string> = []
  for (const other of others) {
    for (const theirs of other.value.spec.disks) {
      if (disk.readOnly && theirs.readOnly) continue
      // whose volume it is, is said of the volume
      if (disk.volume !== undefined && theirs.volume === disk.volume) continue
      const same = yield* Effect.orElseSucceed(
        Effect.map(Disks.inspect(theirs), (one) => Disks.isSame(identity, one)),
        () => false
      )
      if (same) owners.push(other.name)
    }
  }
  return owners
})
