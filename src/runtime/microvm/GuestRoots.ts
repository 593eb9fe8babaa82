/**
 * Root file systems in a guest: the image of a container is a read-only disk of the microVM (squashfs), its writable layer is
 * in the guest's memory, and overlayfs puts them together.
 *
 * A writable layer lasts as long as the guest: it survives restarts of its container, and goes with the microVM. What is written
 * counts as memory of the container that wrote it.
 *
 * A machine takes no further disk while it runs: for a container whose image it lacks it is started anew, and the others go on by
 * their policies.
 *
 * Trap: a disk is known by its serial number, the beginning of the digest of the image's layers; names of devices mean nothing.
 */
import * as Effect from "effect/Effect"
import { type FileFailed, type SystemFiles, textOf } from "../../host/SystemFiles.ts"
import { type Digest, parts } from "../../storage/Digest.ts"
import * as KeyedLock from "../../storage/KeyedLock.ts"
import type { Processes } from "../../taproot/Processes.ts"
import { RootfsFailed } from "../ContainerExit.ts"

const MS_RDONLY = 1n
const MS_NOSUID = 2n
const MS_NODEV = 4n
const MNT_DETACH = 2

const HOME = "/run/ironwood"

/** What virtio-blk has room for. */
export const serialOf = (chainId: Digest): string => parts(chainId).hex.slice(0, 20)

export const make = (
  processes: Processes["Service"],
  files: SystemFiles,
  /** Gives a directory the owner, group and mode of another. */
  like: (path: string, model: string) => Effect.Effect<void, FileFailed>,
  /** Has the machine started anew, with the image that it lacks. */
  renew: (container: string) => Effect.Effect<void>
) => {
  const locks = KeyedLock.make()
  const mounted = new Set<string>()

  const deviceOf = Effect.fnUntraced(function* (serial: string) {
    for (const { name } of yield* files.list("/sys/block")) {
      if (!name.startsWith("vd")) continue
      if ((yield* textOf(files, `/sys/block/${name}/serial`)).trim() === serial) return `/dev/${name}`
    }
    return undefined
  })

  /** Something is mounted on the directory, which is made, perhaps by an earlier brain. */
  const isMounted = Effect.fnUntraced(function* (target: string) {
    if (mounted.has(target)) return true
    const mounts = yield* textOf(files, "/proc/self/mounts")
    for (const line of mounts.split("\n")) mounted.add(line.split(" ")[1] ?? "")
    if (mounted.has(target)) return true
    yield* files.makeDirectory(target)
    return false
  })

  const mount = (request: Parameters<Processes["Service"]["mount"]>[0]) =>
    locks.withLock(request.target)(
      Effect.gen(function* () {
        if (yield* isMounted(request.target)) return
        yield* processes.mount(request)
        mounted.add(request.target)
      })
    )

  const targetOf = (name: string) => `${HOME}/roots/${name}`
  const ownOf = (name: string) => `${HOME}/writable/${name}`

  /** Forgets the writable layer of a container. Fine when there is none. */
  const release = (name: string): Effect.Effect<void> =>
    Effect.gen(function* () {
      mounted.delete(targetOf(name))
      yield* Effect.ignore(processes.unmount(targetOf(name), MNT_DETACH))
      yield* Effect.ignore(files.removeDirectory(targetOf(name)))
      yield* Effect.ignore(files.remove(ownOf(name)))
    })

  /** The root file system of a container, mounted, from the image with these layers. */
  const acquire = (name: string, chainId: Digest): Effect.Effect<string, RootfsFailed> =>
    Effect.gen(function* () {
      const serial = serialOf(chainId)
      const target = targetOf(name)
      if (mounted.has(target)) return target
      const device = yield* deviceOf(serial)
      if (device === undefined) {
        yield* renew(name)
        return yield* new RootfsFailed({ name, detail: "its microVM was started before its image was known" })
      }
      const image = `${HOME}/images/${serial}`
      yield* mount({ source: device, target: image, type: "squashfs", flags: MS_RDONLY | MS_NODEV | MS_NOSUID })
      yield* mount({ source: "tmpfs", target: `${HOME}/writable`, type: "tmpfs", flags: MS_NODEV, data: "mode=0700" })
      const own = ownOf(name)
      yield* files.makeDirectory(`${own}/upper`)
      yield* files.makeDirectory(`${own}/work`)
      // what the container sees as "/" must look like the image's
      yield* like(`${own}/upper`, image)
      yield* mount({
        source: "overlay",
        target,
        type: "overlay",
        flags: MS_NODEV,
        data: `lowerdir=${image},upperdir=${own}/upper,workdir=${own}/work,index=off`
      })
      return target
    }).pipe(
      Effect.mapError((error) =>
        error._tag === "RootfsFailed" ? error : new RootfsFailed({ name, detail: error.message })
      )
    )

  return { acquire, release }
}
