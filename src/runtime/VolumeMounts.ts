/**
 * What a container has of volumes. A volume that nobody has had yet gets, as with docker, what the container's image has where
 * it is mounted: files with their owners and modes, and the directory's own owner and mode.
 *
 * Traps: the image is the work of strangers, so the way to the directory is walked as who lives in that root would see it; what is in
 * it is copied without following a link. A special file is copied as one; nobody can open a device of a volume.
 */
import * as Effect from "effect/Effect"
import { StorageFailed } from "../storage/ContentError.ts"
import type { Volumes } from "../storage/Volumes.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import type { UserNamespace } from "../taproot/IdMap.ts"
import type { Processes } from "../taproot/Processes.ts"
import { constants } from "node:fs"
import { open } from "node:fs/promises"
import { pid } from "node:process"
import { CreateFailed } from "./ContainerExit.ts"
import type { ContainerSpec } from "./ContainerSpec.ts"
import type { MountPoints } from "./MountPoints.ts"
import { openDirectoryInRoot } from "./RootedFile.ts"
import type { Bind } from "./RuntimeSpec.ts"
import type { Manner, Stage } from "./Stages.ts"
import { orFullDisk } from "./StartFailure.ts"

export interface VolumeMounts {
  /**
   * Those of a container whose root file system we see at `root`; filled where nobody has had them yet. With a user namespace
   * they are put on the stage, and on the disk belong to whom they would belong without one.
   */
  readonly of: (
    stage: Stage,
    spec: Pick<ContainerSpec, "name" | "volumes">,
    root: string,
    users: UserNamespace | undefined
  ) => Effect.Effect<ReadonlyArray<Bind>, CreateFailed>
}

export const make = (
  volumes: Volumes["Service"],
  processes: Processes["Service"],
  points: MountPoints
): VolumeMounts => {
  /** Copies what is in `path` below `root` into `directory`; nothing when there is no such directory. */
  const copy = (root: string, path: string, directory: string) =>
    Effect.scoped(
      Effect.gen(function* () {
        const opened = yield* Effect.acquireRelease(
          Effect.tryPromise(() => openDirectoryInRoot(root, path)),
          (handle) => Effect.promise(async () => handle?.close())
        )
        if (opened === undefined) return
        const { exit, stderr } = yield* processes.run({
          label: "volume:fill",
          argv: ["cp", "--archive", "--one-file-system", "--", `/proc/${pid}/fd/${opened.fd}/.`, directory]
        })
        if (ProcessExit.isSuccess(exit)) return
        const words = Buffer.from(stderr).toString("utf8").trim().split("\n").slice(0, 3).join("; ")
        const problem = words === "" ? ProcessExit.describe(exit) : words
        return yield* new StorageFailed({ operation: "fill", path: directory, code: "EIO", problem })
      })
    )

  const staged = (stage: Stage, path: string, manner: Manner) =>
    Effect.scoped(
      Effect.gen(function* () {
        const opened = yield* Effect.acquireRelease(
          Effect.tryPromise(() => open(points.seen(path), constants.O_RDONLY | constants.O_DIRECTORY)),
          (handle) => Effect.promise(() => handle.close())
        )
        return yield* stage.put(opened, manner)
      })
    )

  return {
    of: (stage, spec, root, users) =>
      Effect.forEach(spec.volumes, ({ name, readOnly, target }) =>
        volumes
          .prepare(name, (directory) => copy(root, target, directory))
          .pipe(
            Effect.flatMap((path) =>
              users === undefined ? Effect.succeed(path) : staged(stage, path, { users, mapIds: true, readOnly })
            ),
            Effect.map((source) => ({ source, target, readOnly })),
            Effect.mapError(
              ({ message }) =>
                new CreateFailed({
                  name: spec.name,
                  detail: orFullDisk(`the volume ${name} cannot be had: ${message}`)
                })
            )
          )
      )
  }
}
