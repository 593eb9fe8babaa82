/**
 * Disks that no person has put somewhere: what an artifact in a registry holds (`image`), and volumes with a size (`volume`).
 *
 * Either has a path of its own from the moment a machine is to have it, and from there on is a disk like any other: it is plugged,
 * grown, written down and put back under that path. `prepare` makes the file, before a machine's start: of an image a copy that is
 * the machine's own, of a volume its file system.
 *
 * Traps:
 * - A disk of an image is made once. One that was made and is not there any more is an error, and no new one: it was somebody's data.
 * - Who gives a volume to a machine checks and commits inside `holding`.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { createHash } from "node:crypto"
import { existsSync } from "node:fs"
import { dirname, join } from "node:path"
import { Content } from "../storage/Content.ts"
import * as Files from "../storage/Files.ts"
import * as RemoteName from "../storage/registry/RemoteName.ts"
import { State } from "../storage/State.ts"
import type { FieldProblem } from "../storage/StateErrors.ts"
import { Volumes } from "../storage/Volumes.ts"
import { Processes } from "../taproot/Processes.ts"
import * as ImageDisks from "./ImageDisks.ts"
import * as Records from "./Records.ts"
import { DiskUnavailable } from "./VmExit.ts"
import * as VmPaths from "./VmPaths.ts"
import { type DiskSpec, sourceOf, type VmSpec, withFields } from "./VmSpec.ts"

export class DiskSources extends Context.Service<
  DiskSources,
  {
    /** What is wrong with how a request says what a disk is; `field` is the disk's. */
    readonly problemsOf: (machine: string, disk: DiskSpec, field: string) => ReadonlyArray<FieldProblem>
    /** The disk with its path. */
    readonly place: (machine: string, disk: DiskSpec) => DiskSpec
    /** The spec with the paths of all its disks. */
    readonly placed: (spec: VmSpec) => VmSpec
    /** Of its volumes and the names of its images, by what is so now. */
    readonly problems: (spec: VmSpec) => Effect.Effect<ReadonlyArray<FieldProblem>>
    /** Runs the effect while none of the volumes can go or be given to others. */
    readonly holding: (
      disks: ReadonlyArray<DiskSpec>
    ) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    /** Makes what is not there yet, fetching what that takes. Interrupted or failed, it leaves nothing half made. */
    readonly prepare: (machine: string, disks: ReadonlyArray<DiskSpec>) => Effect.Effect<void, DiskUnavailable>
    /** After the directory of a machine has gone: what its images were made of is needed no more. */
    readonly release: (machine: string) => Effect.Effect<void>
  }
>()("ironwood/vmm/DiskSources") {}

/** How those who have a volume are called. */
const userName = (machine: string): string => `virtual machine ${machine}`

const fileOf = (image: string, serial = ""): string =>
  `disk-${createHash("sha256").update(`${image}\n${serial}`).digest("hex").slice(0, 12)}`

const make = Effect.fnUntraced(function* (paths: VmPaths.VmPaths) {
  const volumes = yield* Volumes
  const content = yield* Content
  const processes = yield* Processes
  const records = yield* Records.open(yield* State)

  yield* volumes.registerUsers((volume) =>
    Effect.map(records.partition, ({ records: found }) =>
      found
        .filter(({ value }) => value.spec.disks.some((disk) => disk.volume === volume))
        .map(({ name }) => userName(name))
    )
  )

  const ownerOf = (machine: string, path: string): string =>
    `${VmPaths.anyLabel}${machine}/${path.slice(path.lastIndexOf("/") + 1)}`

  const place = (machine: string, disk: DiskSpec): DiskSpec => {
    const { image, serial, volume } = disk
    if (image !== undefined) return { ...disk, path: join(VmPaths.disksOf(paths, machine), fileOf(image, serial)) }
    return volume === undefined ? disk : { ...disk, path: volumes.diskOf(volume) }
  }

  const problemsOf = (machine: string, disk: DiskSpec, field: string): ReadonlyArray<FieldProblem> => {
    const { image, path, volume } = disk
    if (image !== undefined && volume !== undefined) {
      return [
        { field: `${field}.volume`, problem: "must not be set beside image: a disk is one of path, image and volume" }
      ]
    }
    if (image === undefined && volume === undefined) {
      return path === "" ? [{ field: `${field}.path`, problem: "must be set, or else image or volume" }] : []
    }
    // where it is kept is what answers say, and may be said again
    return path === "" || path === place(machine, disk).path
      ? []
      : [
          {
            field: `${field}.path`,
            problem: `must not be set beside ${sourceOf(disk)}: a disk is one of path, image and volume`
          }
        ]
  }

  const volumeProblem = Effect.fnUntraced(function* (machine: string, volume: string) {
    const found = yield* Effect.option(volumes.get(volume))
    if (Option.isNone(found)) {
      return `there is no volume ${volume}: make it first, \`ironwood volume create -o size=4g ${volume}\``
    }
    if (found.value.spec.sizeBytes === undefined) {
      return `volume ${volume} is a directory of the host: a machine can have one that was made with a size`
    }
    const others = found.value.users.filter((user) => user !== userName(machine))
    return others.length === 0
      ? undefined
      : `volume ${volume} belongs to ${others.join(", ")}, and a disk has one owner`
  })

  const problems = (spec: VmSpec) =>
    Effect.map(
      Effect.forEach(spec.disks, ({ image, volume }, index) =>
        Effect.gen(function* () {
          const problem =
            volume !== undefined
              ? yield* volumeProblem(spec.name, volume)
              : image === undefined
                ? undefined
                : yield* Effect.match(RemoteName.parse(image), {
                    onSuccess: () => undefined,
                    onFailure: ({ message }) => message
                  })
          return problem === undefined
            ? []
            : [{ field: `disks[${index}].${volume === undefined ? "image" : "volume"}`, problem }]
        })
      ),
      (found) => found.flat()
    )

  /** The disk of a machine that begins as what an image holds. */
  const makeOfImage = (machine: string, image: string, disk: DiskSpec) =>
    Effect.gen(function* () {
      if (existsSync(disk.path)) return
      const owner = ownerOf(machine, disk.path)
      const unavailable = (problem: string) => new DiskUnavailable({ name: machine, source: image, problem })
      if (yield* content.isArtifactUsed(owner)) {
        return yield* unavailable(
          `it was made, and ${disk.path} is not there any more: what was on it is lost. Remove the machine and create it anew`
        )
      }
      const aside = `${disk.path}.new`
      yield* Files.makeDirectory(dirname(disk.path))
      yield* Files.remove(aside)
      yield* content
        .useArtifact({
          reference: image,
          owner,
          choose: (layers) => Effect.mapError(ImageDisks.choose(layers), unavailable),
          use: (layer) =>
            Effect.gen(function* () {
              yield* Effect.mapError(ImageDisks.write(processes, layer, disk.format, aside), unavailable)
              yield* Files.rename(aside, disk.path)
              yield* Files.syncDirectory(dirname(disk.path))
            })
        })
        .pipe(Effect.onError(() => Effect.ignore(Files.remove(aside))))
    })

  const prepareOne = (machine: string, disk: DiskSpec): Effect.Effect<void, DiskUnavailable> => {
    const { image, volume } = disk
    const unavailable = (source: string) => (error: { readonly message: string }) =>
      error instanceof DiskUnavailable ? error : new DiskUnavailable({ name: machine, source, problem: error.message })
    if (image !== undefined) return Effect.mapError(makeOfImage(machine, image, disk), unavailable(image))
    if (volume === undefined) return Effect.void
    return Effect.asVoid(Effect.mapError(volumes.prepareDisk(volume), unavailable(`volume ${volume}`)))
  }

  return DiskSources.of({
    problemsOf,
    place,
    placed: (spec) => withFields(spec, { disks: spec.disks.map((disk) => place(spec.name, disk)) }),
    problems,
    holding: (disks) => volumes.holding(disks.flatMap(({ volume }) => volume ?? [])),
    prepare: (machine, disks) => Effect.forEach(disks, (disk) => prepareOne(machine, disk), { discard: true }),
    release: (machine) =>
      Effect.ignoreCause(content.releaseArtifacts(`${VmPaths.anyLabel}${machine}/`), { log: "Warn" })
  })
})

/** The real one. */
export const layer = (paths: VmPaths.VmPaths) => Layer.effect(DiskSources, make(paths))
