/**
 * The order in which the containers of spec files are made: whoever needs others (`after`, `afterSuccess`, `requires`,
 * `bindsTo`) after them. Whether they can need each other the server says.
 */
import type { ContainerSpec } from "../../proto/generated/ironwood/v1/container_pb.ts"
import type { ManifestObject } from "./Manifest.ts"

const needsOf = ({ after, afterSuccess, bindsTo, requires }: ContainerSpec) => [
  ...after,
  ...afterSuccess,
  ...requires,
  ...bindsTo
]

/** Each container after those it needs; else as they are. Circles are left as they are. */
export const inOrder = (objects: ReadonlyArray<ManifestObject>): ReadonlyArray<ManifestObject> => {
  const byName = new Map(objects.flatMap((object) => (object.kind === "Container" ? [[object.name, object]] : [])))
  const ordered = new Set<ManifestObject>()
  const begun = new Set<ManifestObject>()
  const visit = (object: ManifestObject): void => {
    if (begun.has(object)) return
    begun.add(object)
    if (object.kind === "Container") {
      for (const name of needsOf(object.spec)) {
        const other = byName.get(name)
        if (other !== undefined) visit(other)
      }
    }
    ordered.add(object)
  }
  objects.forEach(visit)
  return [...ordered]
}
