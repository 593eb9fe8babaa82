/**
 * How the life of a virtual machine begins: the part of `VmRuns` that prepares its files, launches its hypervisor and lets its
 * guest go, with the memory of a snapshot where a restore is decided, or keeps it standing for the memory of another life.
 *
 * Trap: what fails or is interrupted on the way takes along all that there is of that life.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import type { SpawnRefused } from "../taproot/Processes.ts"
import * as Devices from "./Devices.ts"
import * as Disks from "./Disks.ts"
import { DiskSources } from "./DiskSources.ts"
import { ControlLost, type DriverName, Hypervisor, type LaunchRequest, PlaceFailed } from "./Hypervisor.ts"
import type { KnownRuns } from "./KnownRuns.ts"
import type { VmRecord } from "./Records.ts"
import type { RunEnds } from "./RunEnds.ts"
import * as Seeds from "./Seeds.ts"
import * as Shape from "./Shape.ts"
import * as Uefi from "./Uefi.ts"
import * as VmExit from "./VmExit.ts"
import * as VmPaths from "./VmPaths.ts"
import type { VmRuns } from "./VmRuns.ts"
import * as VmSpec from "./VmSpec.ts"
import * as Work from "./Work.ts"

/**
 * Writes what the guest is told at its first start. The files may be read by everybody, since QEMU opens what it was handed once
 * more; the directory that they are in, by nobody but root.
 */
const writeSeeds = async (directory: string, { cloudInit, ignition, name }: VmSpec.VmSpec): Promise<void> => {
  const write = async (file: string, content: Uint8Array | string) => {
    const place = join(directory, file)
    await fs.mkdir(directory, { recursive: true, mode: 0o700 })
    // what is there may be open
    await fs.rm(place, { force: true })
    await fs.writeFile(place, content, { mode: 0o644, flag: "wx" })
  }
  if (cloudInit !== undefined) await write(VmSpec.SEED_FILE, Seeds.cloudInitDisk(name, cloudInit))
  if (ignition !== undefined) await write(VmSpec.IGNITION_FILE, ignition)
}

export const make = Effect.fnUntraced(function* (paths: VmPaths.VmPaths, lives: KnownRuns, ends: RunEnds) {
  const hypervisor = yield* Hypervisor
  const sources = yield* DiskSources

  /** What is wrong with its files, the first of it. */
  const checkFiles = Effect.fnUntraced(function* (spec: VmSpec.VmSpec) {
    const check = <A>(path: string, look: Effect.Effect<A, string>) =>
      Effect.mapError(look, (problem) => new VmExit.FileUnusable({ name: spec.name, path, problem }))
    for (const path of [spec.kernel, spec.initrd]) if (path !== undefined) yield* check(path, Disks.plain(path))
    for (const disk of spec.disks) yield* check(disk.path, Disks.inspect(disk))
    yield* Effect.tryPromise({
      try: () => writeSeeds(VmPaths.directoryOf(paths, spec.name), spec),
      catch: (error) => new PlaceFailed({ detail: String(error) })
    })
    const ofHost = yield* Effect.promise(() => Shape.hostProblem(spec))
    if (ofHost !== undefined) return yield* new PlaceFailed({ detail: ofHost })
    if (Uefi.isWanted(spec)) yield* check(Uefi.codeOf(spec), Disks.plain(Uefi.codeOf(spec)))
    const variables = VmPaths.variablesOf(paths, spec.name)
    yield* check(variables, Uefi.prepareVariables(spec, variables))
  })

  /** A hypervisor's process with its hold, in which nothing goes on yet. */
  const begin = Effect.fnUntraced(function* (
    record: VmRecord,
    life: VmPaths.Life,
    incoming?: { readonly hypervisor: DriverName } & NonNullable<LaunchRequest["incoming"]>
  ) {
    const { user } = record
    const spec = Devices.wanted(record)
    const process = yield* hypervisor.launch({
      label: VmPaths.label(spec.name, life),
      machine: VmSpec.machineOf(spec, VmPaths.variablesOf(paths, spec.name)),
      hypervisor: incoming?.hypervisor ?? spec.hypervisor,
      place: {
        directory: VmPaths.placeOf(paths, spec.name, life),
        cgroup: VmPaths.cgroupOf(paths, spec.name, life),
        user,
        memoryBytes: VmSpec.hostMemoryOf(spec)
      },
      ...(incoming === undefined ? {} : { incoming: { model: incoming.model, beside: incoming.beside } })
    })
    return yield* lives.register(record, process, life)
  })

  /** What went wrong with a life that began, as its hypervisor has it; whatever there is of it goes. */
  const beginning = <A>(
    record: VmRecord,
    life: VmPaths.Life,
    made: Effect.Effect<A, ControlLost | SpawnRefused | VmExit.VmFailure>
  ) => {
    const { name } = record.spec
    const label = VmPaths.label(name, life)
    const ofIt = Effect.map(lives.all(record), (found) => found.filter(({ process }) => process.label === label))
    return made.pipe(
      Effect.catchTags({
        ControlLost: (lost) =>
          Effect.gen(function* () {
            const [run] = yield* ofIt
            const words = run === undefined ? "" : yield* lives.lastWords(record, run)
            return yield* new VmExit.VmmRefused({ name, detail: words === "" ? lost.message : words })
          }),
        SpawnRefused: ({ message }) => new VmExit.VmmRefused({ name, detail: message })
      }),
      Effect.onError(() =>
        Effect.flatMap(ofIt, (found) =>
          Effect.forEach(found, (run) => ends.endRun(record, run, Duration.zero), { discard: true })
        )
      )
    )
  }

  const start: VmRuns["Service"]["start"] = Effect.fnUntraced(function* (record, incarnation, arrived) {
    const { name } = record.spec
    const life = { incarnation, move: 0 }
    const work = record.work?._tag === "Restoring" ? record.work : undefined
    // its disks are locked as long as the life before is there
    yield* ends.cleared(name)
    for (const { run } of lives.those(name)) yield* run.process.exit
    if (work !== undefined) {
      yield* Effect.mapError(
        Work.putInPlace(work.files),
        ({ path, problem }) => new VmExit.FileUnusable({ name, path, problem })
      )
    }
    const spec = Devices.wanted(record)
    yield* sources.prepare(name, spec.disks)
    yield* checkFiles(spec)
    const made = Effect.gen(function* () {
      const run = yield* begin(record, life, work && { ...work, beside: false })
      const control = yield* run.hold.get
      if (work !== undefined) {
        if (control.memory === undefined) return yield* new VmExit.VmmRefused({ name, detail: "it takes no memory" })
        yield* control.memory.load(work.memory)
        yield* arrived(run.process.label)
      } else {
        // before its guest sees any of it; a memory that is put back has its own shape
        yield* Effect.mapError(
          control.shape(VmSpec.machineOf(spec, "")),
          ({ message }) => new ControlLost({ command: "shape", detail: message })
        )
      }
      yield* work?.paused === true ? run.hold.look : control.resume
      return run
    })
    return yield* beginning(record, life, made)
  })

  const awaiting: VmRuns["Service"]["await"] = (record, of, life, model) => {
    const made = Effect.gen(function* () {
      yield* Effect.tryPromise({
        try: () => fs.mkdir(VmPaths.placeOf(paths, record.spec.name, life), { recursive: true, mode: 0o700 }),
        catch: (error) => new PlaceFailed({ detail: String(error) })
      })
      const run = yield* begin(record, life, { hypervisor: of.hypervisor, model, beside: true })
      lives.note(run, { isAwaiting: true, isUncounted: true })
      yield* run.hold.get
      return run
    })
    return beginning(record, life, made)
  }

  return { start, await: awaiting }
})
