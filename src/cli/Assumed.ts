/**
 * What spec files bring along, for requests that refer to it before it is there.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import type { AssumedSchema } from "../../proto/generated/ironwood/v1/container_pb.ts"
import type { Image } from "../../proto/generated/ironwood/v1/image_pb.ts"
import { type RestartPolicy, RestartType } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import type { ManifestObject } from "./Manifest.ts"

/** As far as can be seen here: what a preset means the server knows. */
const isPermanent = (restart: RestartPolicy | undefined): boolean =>
  restart === undefined ||
  restart.restart === RestartType.PERMANENT ||
  (restart.restart === RestartType.UNSPECIFIED && restart.preset === "")

/** The sandboxes and containers of the files, with the images that they import. */
export const assumedOf = (
  objects: ReadonlyArray<ManifestObject>,
  images: ReadonlyArray<Image>
): MessageInitShape<typeof AssumedSchema> => ({
  images: images.flatMap(({ digest, names }) => [digest, ...names]),
  sandboxes: objects.flatMap((object) => (object.kind === "Sandbox" ? [object.name] : [])),
  containers: objects.flatMap((object) => {
    if (object.kind !== "Container") return []
    const { after, afterSuccess, bindsTo, name, requires, restart, sandbox } = object.spec
    const permanent = isPermanent(restart)
    return [{ name, sandbox, after, afterSuccess, requires, bindsTo, permanent }]
  })
})
