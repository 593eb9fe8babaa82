/**
 * The containers of a `kind: Pod`: they are in its sandbox, its init containers run one after another, each to its end with
 * success, and the others start after the last one. An init container that says nothing about restarts is tried until it
 * succeeds (`transient`).
 *
 * Trap: a container's name is unique on the host, not in the pod.
 */
import { create } from "@bufbuild/protobuf"
import { RestartPolicySchema, RestartType } from "../../proto/generated/ironwood/v1/policy_pb.ts"
import type { ContainerObject } from "./Manifest.ts"

/** The field with the init containers, as JSON and the proto would have it. */
export const initFields = ["initContainers", "init_containers"] as const

/** The field with the others. */
export const fields = ["containers"] as const

const untilSuccess = ({ spec }: ContainerObject) => {
  const restart = spec.restart ?? create(RestartPolicySchema)
  return restart.restart === RestartType.UNSPECIFIED && restart.preset === ""
    ? { ...restart, restart: RestartType.TRANSIENT }
    : restart
}

/** The objects of a pod of this name, and those that name a sandbox themselves, which they cannot. */
export const inPod = (
  pod: string,
  init: ReadonlyArray<ContainerObject>,
  others: ReadonlyArray<ContainerObject>
): { readonly objects: ReadonlyArray<ContainerObject>; readonly elsewhere: ReadonlyArray<ContainerObject> } => {
  const after = (object: ContainerObject, last: ContainerObject | undefined): ContainerObject["spec"] => ({
    ...object.spec,
    sandbox: pod,
    afterSuccess: [...object.spec.afterSuccess, ...(last === undefined ? [] : [last.name])]
  })
  const isElsewhere = ({ spec }: ContainerObject) => spec.sandbox !== "" && spec.sandbox !== pod
  return {
    objects: [
      ...init.map((object, index) => ({
        ...object,
        spec: { ...after(object, init[index - 1]), restart: untilSuccess(object) }
      })),
      ...others.map((object) => ({ ...object, spec: after(object, init.at(-1)) }))
    ],
    elsewhere: [...init, ...others].filter(isElsewhere)
  }
}
