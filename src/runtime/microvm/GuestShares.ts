/**
 * Directories of the host in a guest (`SharedDirectories.ts`): mounted once, for all containers that have them. A machine that runs
 * takes no more of them than it was started with: for a further one it is started anew, as it is for an image too many.
 */
import * as Effect from "effect/Effect"
import { type SystemFiles, textOf } from "../../host/SystemFiles.ts"
import * as KeyedLock from "../../storage/KeyedLock.ts"
import type { Processes } from "../../taproot/Processes.ts"
import { CreateFailed, type HostPathRefused } from "../ContainerExit.ts"
import type { ContainerSpec } from "../ContainerSpec.ts"
import type { HostPaths } from "../HostPaths.ts"
import * as GuestModules from "./GuestModules.ts"
import * as SharedDirectories from "./SharedDirectories.ts"

const EINVAL = 22
const MS_NOSUID = 2n
const MS_NODEV = 4n

export interface GuestShares {
  /** Where in the guest a directory of the host is, for a container that may have it. */
  readonly of: (
    container: string,
    mount: ContainerSpec["mounts"][number]
  ) => Effect.Effect<string, CreateFailed | HostPathRefused>
}

export const make = (input: {
  /** In the guest. */
  readonly directory: string
  readonly processes: Processes["Service"]
  readonly files: SystemFiles
  /** The release of its kernel. */
  readonly kernel: string
  readonly hostPaths: HostPaths
  /** Has the machine started anew, with what it lacks for a container. */
  readonly renew: (container: string) => Effect.Effect<void>
}): GuestShares => {
  const { directory, files, hostPaths, kernel, processes, renew } = input
  const locks = KeyedLock.make()
  const mounted = new Set<string>()

  /** Also by an earlier brain. */
  const isMounted = (target: string) =>
    Effect.map(textOf(files, "/proc/self/mounts"), (mounts) => mounts.includes(` ${target} virtiofs `))

  return {
    of: (container, mount) => {
      const failed = (detail: string) =>
        new CreateFailed({ name: container, detail: `${mount.source} cannot be had in its microVM: ${detail}` })
      return locks.withLock(mount.source)(
        Effect.gen(function* () {
          // what a machine was started without, because it could not be had, is no reason for another one
          const { tag } = yield* Effect.scoped(SharedDirectories.open(hostPaths, container, mount))
          const target = `${directory}/${tag}`
          if (mounted.has(target)) return target
          const isThere = yield* Effect.mapError(isMounted(target), ({ message }) => failed(message))
          if (!isThere) {
            yield* Effect.mapError(GuestModules.load({ files, processes }, kernel, "shares"), failed)
            yield* Effect.mapError(files.makeDirectory(target), ({ message }) => failed(message))
            const mounting = processes.mount({ source: tag, target, type: "virtiofs", flags: MS_NODEV | MS_NOSUID })
            yield* Effect.catch(
              mounting,
              Effect.fnUntraced(function* ({ errno, message }) {
                // what virtiofs says of a tag that its machine does not have
                if (errno !== EINVAL) return yield* failed(message)
                yield* renew(container)
                return yield* failed("the machine was started without it")
              })
            )
          }
          mounted.add(target)
          return target
        })
      )
    }
  }
}
