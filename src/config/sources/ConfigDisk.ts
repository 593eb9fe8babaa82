/**
 * The machine config on a disk with a label: the file `ironwood.yaml` (or `ironwood.json`) in the root of its ext4 or FAT,
 * mounted to be read and unmounted again.
 *
 * Trap: a mount that hangs cannot be interrupted; what calls this has a deadline that does not wait for it (`host/Deadline.ts`).
 */
import * as Effect from "effect/Effect"
import { mkdir } from "node:fs/promises"
import * as StateDisk from "../../host/StateDisk.ts"
import { Processes } from "../../taproot/Processes.ts"
import { readBounded } from "./Blobs.ts"
import { SourceFailed } from "./SourceFailed.ts"

const files = ["ironwood.yaml", "ironwood.json"]
const usualDirectory = "/run/ironwood/config-disk"

const MS_RDONLY = 1n
const MS_NOSUID = 2n
const MS_NODEV = 4n
const MS_NOEXEC = 8n
const MNT_DETACH = 2

/** Where FAT keeps its label: FAT32, then FAT12 and FAT16. Each is followed by the name of the kind. */
const fatLabels = [71, 43] as const
const fatLabelBytes = 11

/** The label of the FAT in these bytes, the first sector of a device, as it was given; undefined when there is none. */
export const fatLabelIn = (sector: Uint8Array): string | undefined => {
  if (sector.length < 512 || sector[510] !== 0x55 || sector[511] !== 0xaa) return undefined
  const text = (from: number, length: number) => Buffer.from(sector.subarray(from, from + length)).toString("latin1")
  const at = fatLabels.find((label) => text(label + fatLabelBytes, 3) === "FAT")
  return at === undefined ? undefined : text(at, fatLabelBytes).trim()
}

/** FAT knows no small letters. */
const isLabel = (found: string | undefined, wanted: string): boolean => found?.toUpperCase() === wanted.toUpperCase()

export interface Disk {
  readonly device: string
  readonly type: "ext4" | "vfat"
}

const find = async (label: string): Promise<ReadonlyArray<Disk>> => {
  const found = (await StateDisk.withLabel(label)).map((device): Disk => ({ device, type: "ext4" }))
  for (const device of await StateDisk.devices()) {
    const sector = await StateDisk.read(device, 0, 512).catch(() => new Uint8Array())
    if (isLabel(fatLabelIn(sector), label)) found.push({ device, type: "vfat" })
  }
  return found
}

/** Undefined: there is no such disk. The other two are for tests. */
export const configDisk = (label: string, disksWith = find, directory = usualDirectory) =>
  Effect.gen(function* () {
    const failed = (problem: string) => new SourceFailed({ problem })
    const attempt = <A>(promise: () => Promise<A>) =>
      Effect.tryPromise({ try: promise, catch: (cause) => failed(String(cause)) })
    const found = yield* attempt(() => disksWith(label))
    const [disk, other] = found
    if (disk === undefined) return undefined
    if (other !== undefined) {
      return yield* failed(`${disk.device} and ${other.device} both have the label ${label}; which one is it?`)
    }
    const processes = yield* Processes
    yield* attempt(() => mkdir(directory, { recursive: true }))
    const mounted = Effect.acquireRelease(
      Effect.mapError(
        processes.mount({
          source: disk.device,
          target: directory,
          type: disk.type,
          flags: MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
        }),
        ({ message }) => failed(message)
      ),
      () => Effect.ignore(processes.unmount(directory, MNT_DETACH))
    )
    return yield* Effect.scoped(
      Effect.andThen(
        mounted,
        Effect.firstSuccessOf(files.map((file) => attempt(() => readBounded(`${directory}/${file}`))))
      )
    ).pipe(
      Effect.mapError(({ problem }) =>
        failed(problem.includes("ENOENT") ? `it holds no ${files.join(" and no ")}` : problem)
      )
    )
  })
