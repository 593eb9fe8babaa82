/**
 * Root file systems in a guest: the image of a container is a read-only disk of the microVM (squashfs), what it writes is on the
 * sandbox's disk (ext4), or without one in the guest's memory, and overlayfs puts them together.
 *
 * In memory a writable layer lasts as long as the guest, and counts as memory of the container that wrote it; on a disk it lasts as
 * long as the container does, with the same image. It is kept by the container's identity: another one of its name finds none of it.
 *
 * A machine that runs takes the images of some more containers than it was started for; with one too many it is started anew, and
 * the others go on by their policies.
 *
 * Traps:
 * - A disk is known by its serial number, that of an image by the beginning of the digest of its layers; names of devices mean
 *   nothing.
 * - Whoever starts a container waits for each answer of the guest, a few milliseconds where it is emulated: what does not depend
 *   on an answer is asked at once. Requests about files are answered one after the other, in the order in which they are asked.
 */
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import { type FileFailed, type SystemFiles, textOf } from "../../host/SystemFiles.ts"
import type { RootImage } from "../../storage/RootImages.ts"
import { type Digest, parts } from "../../storage/Digest.ts"
import * as KeyedLock from "../../storage/KeyedLock.ts"
import type { Processes } from "../../taproot/Processes.ts"
import type { ControlLost } from "../../vmm/Hypervisor.ts"
import type { Disk } from "../../vmm/Machine.ts"
import { CreateFailed, RootfsFailed } from "../ContainerExit.ts"
import type { Own } from "./GuestBelongings.ts"
import { SERIAL } from "./SandboxDisks.ts"

const MS_RDONLY = 1n
const MS_NOSUID = 2n
const MS_NODEV = 4n
const MNT_DETACH = 2

const HOME = "/run/ironwood"
/** How a disk is mounted that is a sparse file of the host: what is free in it is free there. */
const MOUNTED = "discard,noinit_itable"

/** Of a path at which there is nothing. */
const absent: ReadonlySet<string> = new Set(["ENOENT", "ENOTDIR", "ELOOP"])

/** What virtio-blk has room for. */
const serialOf = (chainId: Digest): string => parts(chainId).hex.slice(0, 20)

/** The disk that the packed root file system of an image is. */
export const imageDisk = ({ chainId, path }: Pick<RootImage, "chainId" | "path">): Disk => ({
  id: `image-${serialOf(chainId)}`,
  file: path,
  format: "raw",
  readOnly: true,
  serial: serialOf(chainId)
})

/** The disk that a volume is. */
export const volumeDisk = (name: string, file: string): Disk => {
  const hash = createHash("sha256").update(name).digest("hex")
  return { id: `volume-${hash.slice(0, 16)}`, file, format: "raw", readOnly: false, serial: `v${hash.slice(0, 19)}` }
}

export const make = (input: {
  readonly processes: Processes["Service"]
  readonly files: SystemFiles
  /** Gives a directory the owner, group and mode of another. */
  readonly like: (path: string, model: string) => Effect.Effect<void, FileFailed>
  readonly own: Own
  /** Removes a directory with all in it, however long that takes. */
  readonly removeTree: (path: string) => Effect.Effect<void>
  /** Puts an image into a machine that was started without; the serial number of its disk. */
  readonly insert: (disk: Disk) => Effect.Effect<string, ControlLost>
  /** Has the machine started anew, with the image that it lacks. */
  readonly renew: (container: string) => Effect.Effect<void>
  /** Who may have something on the disk, if its machine was started just now. */
  readonly containers: ReadonlySet<string> | undefined
}) => {
  const { containers, files, insert, like, own, processes, removeTree, renew } = input
  const locks = KeyedLock.make()
  const mounted = new Set<string>()
  /** Of these what comes after the mount is done, too. */
  const ready = new Set<string>()
  /** Directories that are there. */
  const made = new Set<string>()
  /** By their serial numbers. All that there will be is there from the start: its machine has no bus to plug anything in. */
  const devices = new Map<string, string>()
  const looking = Semaphore.makeUnsafe(1)

  const look = Effect.gen(function* () {
    if (devices.size > 0) return
    const disks = (yield* files.list("/sys/block")).filter(({ name }) => name.startsWith("vd"))
    const serials = disks.map(({ name }) => textOf(files, `/sys/block/${name}/serial`))
    const found = yield* Effect.all(serials, { concurrency: "unbounded" })
    for (const [index, serial] of found.entries()) devices.set(serial.trim(), `/dev/${disks[index]?.name ?? ""}`)
  })
  /** Asked ahead, for whoever comes first; who asks in vain is told when he comes. */
  const prepare = Effect.ignore(looking.withPermit(look))
  const deviceOf = (serial: string) => Effect.map(looking.withPermit(look), () => devices.get(serial))

  const makeDirectory = (path: string) =>
    Effect.suspend(() =>
      made.has(path) ? Effect.void : Effect.tap(files.makeDirectory(path), () => Effect.sync(() => made.add(path)))
    )

  const turn = Semaphore.makeUnsafe(1)
  const inserting = turn.withPermits(1)
  /** Undefined: the machine takes no more. */
  const deviceOfImage = (root: Pick<RootImage, "chainId" | "path">) =>
    Effect.gen(function* () {
      const disk = imageDisk(root)
      const present = yield* deviceOf(serialOf(root.chainId))
      if (present !== undefined) return present
      const place = yield* Effect.option(insert(disk))
      return Option.isSome(place) ? yield* deviceOf(place.value) : undefined
    })

  /** In a machine that was started just now nothing is; an earlier brain may have mounted something in others. */
  let isKnown = containers !== undefined
  const isMounted = Effect.fnUntraced(function* (target: string) {
    if (!isKnown) {
      const mounts = yield* textOf(files, "/proc/self/mounts")
      for (const line of mounts.split("\n")) mounted.add(line.split(" ")[1] ?? "")
      isKnown = true
    }
    return mounted.has(target)
  })

  /** `then`: what is done before others find it there; done again when it was not done to its end. */
  const mount = <E = never>(
    request: Parameters<Processes["Service"]["mount"]>[0],
    then: Effect.Effect<void, E> = Effect.void
  ) =>
    locks.withLock(request.target)(
      Effect.gen(function* () {
        if (ready.has(request.target)) return
        if (!(yield* isMounted(request.target))) {
          yield* makeDirectory(request.target)
          yield* processes.mount(request)
          mounted.add(request.target)
        }
        yield* then
        ready.add(request.target)
      })
    )

  const writable = `${HOME}/writable`
  /** What was written by containers that have been removed while there was no machine. */
  const sweep = Effect.gen(function* () {
    if (containers === undefined) return
    for (const { name } of yield* files.list(writable)) {
      if (!containers.has(name) && name !== "lost+found") yield* removeTree(`${writable}/${name}`)
    }
  })
  const mountWritable = Effect.gen(function* () {
    if (ready.has(writable)) return
    const device = yield* deviceOf(SERIAL)
    const place = { target: writable, flags: MS_NODEV }
    yield* device === undefined
      ? mount({ ...place, source: "tmpfs", type: "tmpfs", data: "mode=0700" })
      : mount({ ...place, source: device, type: "ext4", data: MOUNTED }, sweep)
  })

  const targetOf = (name: string) => `${HOME}/roots/${name}`
  const ownOf = (name: string) => `${writable}/${name}`

  /** Forgets the writable layer of a container. Fine when there is none. */
  const release = (name: string): Effect.Effect<void> =>
    Effect.gen(function* () {
      mounted.delete(targetOf(name))
      ready.delete(targetOf(name))
      made.delete(targetOf(name))
      yield* Effect.ignore(processes.unmount(targetOf(name), MNT_DETACH))
      yield* Effect.ignore(files.removeDirectory(targetOf(name)))
      yield* removeTree(ownOf(name))
    })

  /** The root file system of a container, mounted, from the image with these layers. */
  const acquire = (
    name: string,
    root: Pick<RootImage, "chainId" | "path">,
    identity: string
  ): Effect.Effect<string, RootfsFailed> =>
    Effect.gen(function* () {
      const serial = serialOf(root.chainId)
      const target = targetOf(name)
      if (mounted.has(target)) return target
      const image = `${HOME}/images/${serial}`
      const [device] = yield* Effect.all(
        [inserting(deviceOfImage(root)), makeDirectory(image), makeDirectory(writable), makeDirectory(target)],
        { concurrency: "unbounded" }
      )
      if (device === undefined) {
        yield* renew(name)
        return yield* new RootfsFailed({ name, detail: "its microVM was started before its image was known" })
      }
      yield* Effect.all(
        [
          mount({ source: device, target: image, type: "squashfs", flags: MS_RDONLY | MS_NODEV | MS_NOSUID }),
          mountWritable
        ],
        { concurrency: "unbounded" }
      )
      const layer = `${identity}.${serial}`
      const own = `${ownOf(name)}/${layer}`
      const [there, work] = yield* Effect.all(
        [
          Effect.orElseSucceed(files.list(ownOf(name)), () => []),
          Effect.orElseSucceed(files.list(`${own}/work`), () => undefined)
        ],
        { concurrency: "unbounded" }
      )
      // of another one of its name, or on another image
      if (there.length > 0 && !there.some((entry) => entry.name === layer)) yield* removeTree(ownOf(name))
      if (work === undefined) {
        // what the container sees as "/" must look like the image's
        yield* Effect.all([files.makeDirectory(`${own}/upper`), like(`${own}/upper`, image)], {
          concurrency: "unbounded"
        })
        // last: with it the layer is whole
        yield* files.makeDirectory(`${own}/work`)
      }
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

  /**
   * The directory of a volume that its machine was started with, for a container of it. Whoever has it first finds it empty, with
   * owner and mode of what its image has at `model`.
   */
  const volume = (container: string, name: string, model: string): Effect.Effect<string, CreateFailed> =>
    Effect.gen(function* () {
      const { serial = "" } = volumeDisk(name, "")
      const device = yield* deviceOf(serial)
      if (device === undefined) {
        yield* renew(container)
        return yield* new CreateFailed({ name: container, detail: `its microVM was started without volume ${name}` })
      }
      const target = `${HOME}/volumes/${serial}`
      const content = `${target}/data`
      const prepared = Effect.gen(function* () {
        if ((yield* files.list(target)).some((entry) => entry.name === "ready")) return
        yield* files.makeDirectory(content)
        yield* own(content, { uid: 0, gid: 0, mode: 0o755 })
        yield* Effect.catchIf(
          like(content, model),
          // its image has nothing there
          ({ code }) => absent.has(code),
          () => Effect.void
        )
        // last: with it the directory is as it shall be
        yield* files.makeDirectory(`${target}/ready`)
      })
      yield* mount({ source: device, target, type: "ext4", flags: MS_NODEV | MS_NOSUID, data: MOUNTED }, prepared)
      return content
    }).pipe(
      Effect.mapError((error) =>
        error._tag === "CreateFailed"
          ? error
          : new CreateFailed({ name: container, detail: `the volume ${name} cannot be had: ${error.message}` })
      )
    )

  return { prepare, acquire, release, volume }
}
