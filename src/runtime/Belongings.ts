/**
 * What a run of a container has beside its image: paths, devices, volumes and secrets. Given as it starts, taken back when it is
 * forgotten.
 *
 * Of this host: the things themselves. What a microVM has instead is in `GuestBelongings.ts`.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { CreateFailed, HostPathRefused, type SecretMissing } from "./ContainerExit.ts"
import type { ContainerSpec } from "./ContainerSpec.ts"
import type { HostPaths } from "./HostPaths.ts"
import type { Bind, Device } from "./RuntimeSpec.ts"
import type { Secrets } from "./Secrets.ts"
import type { Stages } from "./Stages.ts"
import type { UserNamespace } from "../taproot/IdMap.ts"
import type { VolumeMounts } from "./VolumeMounts.ts"

export interface Belongings {
  /** The paths are there as long as the scope: until the OCI runtime has mounted them. */
  readonly give: (
    run: string,
    spec: ContainerSpec,
    owner: { readonly uid: number; readonly gid: number },
    where: {
      /** Its root file system, as we see it. */
      readonly root: string
      /** Its user namespace. */
      readonly users: UserNamespace | undefined
    }
  ) => Effect.Effect<
    { readonly binds: ReadonlyArray<Bind>; readonly devices: ReadonlyArray<Device> },
    HostPathRefused | SecretMissing | CreateFailed,
    Scope.Scope
  >
  /** Fine when it was given nothing. */
  readonly takeBack: (run: string) => Effect.Effect<void>
}

export const ofHost = (
  stages: Stages,
  paths: HostPaths,
  secrets: Secrets["Service"],
  volumes: VolumeMounts
): Belongings => ({
  give: Effect.fnUntraced(function* (run, spec, owner, { root, users }) {
    const first = users?.first ?? 0
    const files = yield* Effect.catchTag(
      secrets.give(run, spec, { uid: first + owner.uid, gid: first + owner.gid }),
      "SecretNotKept",
      ({ message }) => Effect.fail(new CreateFailed({ name: spec.name, detail: message }))
    )
    const devices = yield* paths.devices(spec)
    if (spec.mounts.length + spec.volumes.length === 0) return { binds: files, devices }
    const stage = yield* Effect.mapError(
      stages.open(run),
      ({ message }) => new CreateFailed({ name: spec.name, detail: message })
    )
    const binds = [
      ...(yield* paths.stage(stage, spec, users)),
      ...(yield* volumes.of(stage, spec, root, users)),
      ...files
    ]
    return { binds, devices }
  }),
  takeBack: secrets.takeBack
})
