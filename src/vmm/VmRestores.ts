/**
 * The real `VmRestores`: a machine goes back to one of its snapshots, or another one is made of it.
 *
 * Everything that can be refused is, before anything is touched: files whose digests are wrong, another accelerator, another
 * hypervisor than the machine needs, no room. Then the snapshot's disks are copied beside their places (`Copying`, `Making`), and only
 * when all of them are on the disk it is decided (`Restoring`); from there its actor goes on (`VmRuns.start`), in this brain or
 * the next.
 *
 * Trap: disks are replaced by other files under their names: a name that is a mount point, or a second name of a file, is not
 * for machines that are to be restored.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import * as Files from "../storage/Files.ts"
import { State } from "../storage/State.ts"
import { Processes } from "../taproot/Processes.ts"
import * as DiskCopies from "./DiskCopies.ts"
import { DiskSources } from "./DiskSources.ts"
import { Hypervisor, HypervisorMissing } from "./Hypervisor.ts"
import { commands, hint } from "./Lifecycle.ts"
import * as Records from "./Records.ts"
import * as ReturningDisks from "./ReturningDisks.ts"
import { SnapshotFailed, SnapshotUnusable, VmCannot } from "./SnapshotError.ts"
import { type SnapshotManifest, versionProblem } from "./SnapshotManifest.ts"
import * as SnapshotStore from "./SnapshotStore.ts"
import * as Users from "./Users.ts"
import { VmAlreadyExists, VmNotFound, VmSpecInvalid, VmWrongState } from "./VmError.ts"
import { VmLocks } from "./VmLocks.ts"
import * as VmPaths from "./VmPaths.ts"
import { VmRuns } from "./VmRuns.ts"
import { type CloneOptions, VmRestores } from "./VmSnapshots.ts"
import { recordOf } from "./VmSnapshotsLive.ts"
import { diskId, machineOf, problemsOf, VmSpec } from "./VmSpec.ts"
import * as VmSupervisor from "./VmSupervisor.ts"
import { Vms } from "./Vms.ts"
import type { Work } from "./Work.ts"

const make = Effect.gen(function* () {
  const processes = yield* Processes
  const hypervisor = yield* Hypervisor
  const vms = yield* Vms
  const runs = yield* VmRuns
  const locks = yield* VmLocks
  const supervisor = yield* VmSupervisor.VmSupervisor
  const state = yield* State
  const records = yield* Records.open(state)
  const storedUsers = yield* Records.usersIn(state)
  const sources = yield* DiskSources
  const scope = yield* Effect.scope
  const { paths } = runs

  /** A snapshot that can be gone on with here. `memory`: with its memory, not only its disks. */
  const usable = Effect.fnUntraced(function* (name: string, snapshot: string, memory: boolean) {
    const manifest = yield* SnapshotStore.read(paths, name, snapshot)
    const unusable = (problem: string) => new SnapshotUnusable({ name, snapshot, problem })
    if (memory) {
      const { accelerator, name: wanted } = manifest.hypervisor
      const facts = (yield* hypervisor.facts).find((one) => one.name === wanted)
      if (facts === undefined || facts.problem !== undefined) {
        return yield* new HypervisorMissing({ detail: facts?.problem ?? `there is no ${wanted}` })
      }
      if (!facts.capabilities.memory) return yield* unusable(`${wanted} cannot go on with memory`)
      if (facts.acceleration?.accelerator !== accelerator) {
        return yield* unusable(`it ran on ${accelerator}, and here is ${facts.acceleration?.accelerator ?? "nothing"}`)
      }
      const problem = versionProblem(manifest.hypervisor, facts.version)
      if (problem !== "") return yield* unusable(problem)
    }
    yield* SnapshotStore.verify(paths, manifest, memory)
    return manifest
  })

  /** A file of the snapshot, and where its content belongs. */
  const contents = (manifest: SnapshotManifest, disk: (path: string) => string, variables: string) => {
    const from = SnapshotStore.directoryOf(paths, manifest.name, manifest.snapshot)
    return [
      ...manifest.disks.flatMap(({ file, index }) => {
        const path = manifest.spec.disks[index]?.path
        return path === undefined ? [] : [{ from: join(from, file.name), like: path, target: disk(path) }]
      }),
      ...(manifest.variables === undefined
        ? []
        : [{ from: join(from, manifest.variables.name), like: variables, target: variables }])
    ]
  }

  const goOn = (
    manifest: SnapshotManifest,
    files: Extract<Work, { _tag: "Restoring" }>["files"],
    model = manifest.hypervisor.model
  ): Work => ({
    _tag: "Restoring",
    files,
    memory: join(SnapshotStore.directoryOf(paths, manifest.name, manifest.snapshot), manifest.memory.name),
    hypervisor: manifest.hypervisor.name,
    model,
    paused: manifest.paused
  })

  const failed = (name: string, command: string) => (error: { readonly message: string }) =>
    new SnapshotFailed({ name, command, detail: error.message })

  // --- restore ---

  const refuseState = Effect.fnUntraced(function* (name: string) {
    const { state: present } = yield* vms.get(name)
    if (commands[present].restore !== "refuse") return
    return yield* new VmWrongState({ name, command: "restore", state: present, hint: hint("restore") })
  })

  const removeAsides = (files: ReadonlyArray<{ readonly aside: string }>) =>
    Effect.forEach(files, ({ aside }) => Effect.ignore(Files.remove(aside)), { discard: true })

  /** Nothing of it was decided: the machine is as it was. */
  const drop = (name: string, files: ReadonlyArray<{ readonly aside: string }>) =>
    Effect.andThen(
      removeAsides(files),
      Effect.ignore(
        records.update(name, ({ value }) =>
          value.work?._tag === "Copying" ? Records.withWork(value, undefined) : value
        )
      )
    )

  /** Fails with why the machine cannot have back what it had then. */
  const refuseReturn = Effect.fnUntraced(function* (manifest: SnapshotManifest, now: VmSpec) {
    const returning = ReturningDisks.between(manifest.spec, now)
    const { records: all } = yield* records.partition
    const problem = yield* ReturningDisks.problemOf(manifest, returning, all, sources)
    if (problem === undefined) return
    return yield* new VmCannot({ name: manifest.name, command: "restore", problem })
  })

  /** Copies beside the places that they are for. */
  const copyAside = (name: string, manifest: SnapshotManifest) =>
    Effect.gen(function* () {
      const { value } = yield* recordOf(records, name)
      yield* refuseReturn(manifest, value.spec)
      const places = new Map<string, string>()
      for (const { path } of manifest.spec.disks) {
        // what a link leads to is replaced, not the link
        places.set(
          path,
          yield* Effect.orElseSucceed(
            Files.attempt("look at", path, () => fs.realpath(path)),
            () => path
          )
        )
      }
      const wanted = contents(manifest, (path) => places.get(path) ?? path, VmPaths.variablesOf(paths, name))
      for (const { image, path, volume } of manifest.spec.disks) {
        // of one that has been taken out and removed nothing may be left
        if (image !== undefined || volume !== undefined)
          yield* Effect.mapError(Files.makeDirectory(dirname(path)), failed(name, "restore"))
      }
      const files = wanted.map(({ from, like, target }) => {
        const aside = join(dirname(target), `.${basename(target)}.${name}.restore`)
        return { target, copy: { from, to: aside, ...(existsSync(like) ? { like } : {}) } }
      })
      yield* DiskCopies.requireRoom(
        name,
        yield* Effect.forEach(files, ({ copy }) =>
          Effect.map(DiskCopies.allocated(copy.from), (bytes) => ({ path: copy.to, bytes }))
        )
      )
      const moved = files.map(({ copy, target }) => ({ aside: copy.to, target }))
      yield* records.update(name, ({ value }) => Records.withWork(value, { _tag: "Copying", files: moved }))
      const copies = Effect.forEach(
        files,
        // one of before: it is of no use to anybody
        ({ copy }) => Effect.andThen(Files.remove(copy.to), DiskCopies.copy(processes, copy)),
        { discard: true }
      )
      yield* Effect.onError(Effect.mapError(copies, failed(name, "restore")), () => drop(name, moved))
      return moved
    })

  /** Commits that it is to be as it was then; nobody else can take what it had meanwhile. */
  const commit = (name: string, manifest: SnapshotManifest, work: Work) =>
    Effect.gen(function* () {
      const present = yield* records.get(name)
      if (Option.isSome(present)) yield* refuseReturn(manifest, present.value.value.spec)
      return yield* records.update(name, ({ value }) => {
        if (value.work?._tag !== "Copying") return value
        const { grace: _, leaving: __, paused: ___, ...rest } = value
        const { restart: ____, ...then } = manifest.spec
        const { console, labels, restart, stopGracePeriod } = value.spec
        const spec = new VmSpec({ ...then, restart, labels, console, stopGracePeriod })
        return Records.withWork({ ...rest, spec, desired: "running", completed: false }, work)
      })
    }).pipe(sources.holding(manifest.spec.disks), locks.creating)

  /** Commits it and asks the tree, which begins its next life with the memory. */
  const decide = (name: string, manifest: SnapshotManifest, files: ReadonlyArray<{ aside: string; target: string }>) =>
    Effect.gen(function* () {
      const changed = yield* Effect.onError(commit(name, manifest, goOn(manifest, files)), () => drop(name, files))
      if (Option.isNone(changed) || changed.value.value.work?._tag !== "Restoring") {
        // removed while its disks were being copied, and perhaps made anew
        yield* removeAsides(files)
        return yield* new VmNotFound({ name })
      }
      const path = VmSupervisor.vmPath(name)
      const { state: present } = yield* vms.get(name)
      const tree = yield* supervisor.tree
      if (Option.isNone(tree)) return
      const isUp = present === "running" || present === "paused" || present === "stalled"
      yield* Effect.ignore(isUp ? tree.value.restart(path) : tree.value.start(path))
    }).pipe(locks.record(name))

  const restore = (name: string, snapshot: string) =>
    Effect.gen(function* () {
      yield* refuseState(name)
      const manifest = yield* usable(name, snapshot, true)
      const files = yield* copyAside(name, manifest)
      yield* decide(name, manifest, files)
      yield* supervisor.settled(name)
      return yield* vms.get(name)
    }).pipe(locks.work(name))

  // --- clone ---

  const specOfClone = (manifest: SnapshotManifest, clone: string, { cold = false, forwards = [] }: CloneOptions) => {
    const { disks, name: _, nics, ...rest } = manifest.spec
    const machine = machineOf(manifest.spec, "")
    return new VmSpec({
      ...rest,
      name: clone,
      disks: disks.map((disk) =>
        disk.image !== undefined
          ? sources.place(clone, disk)
          : disk.readOnly
            ? disk
            : { ...disk, path: join(dirname(disk.path), `${clone}-${basename(disk.path)}`) }
      ),
      nics: nics.map(({ mac: __, ...nic }, index) => ({
        ...nic,
        // a guest that goes on keeps the address that it has
        ...(cold ? {} : { mac: machine.nics[index]?.mac ?? "" }),
        forwards: index === 0 ? forwards : []
      }))
    })
  }

  /** The same machine, whose disks have other names: these come from their paths. */
  const renamed = ({ hypervisor: { model }, spec: before }: SnapshotManifest, spec: VmSpec) => {
    const names = new Map(before.disks.map((disk, index) => [diskId(disk), diskId(spec.disks[index] ?? disk)] as const))
    return { ...model, slots: model.slots.map((name) => names.get(name) ?? name) }
  }

  /** Writes down that it is being made: until it is whole, it is there for nobody. */
  const announce = (name: string, spec: VmSpec, files: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      if (Option.isSome(yield* records.get(spec.name))) {
        return yield* new VmAlreadyExists({ name: spec.name, fields: ["name"] })
      }
      const taken = files.find((file) => existsSync(file))
      if (taken !== undefined) {
        return yield* new VmCannot({ name, command: "clone", problem: `${taken} is there already` })
      }
      const record = {
        spec,
        user: Users.lowestFree(new Set([...(yield* storedUsers), ...(yield* Users.running)])),
        desired: "running",
        completed: false,
        removing: true,
        work: { _tag: "Making", files }
      } satisfies Records.VmRecord
      yield* Effect.catchTag(records.put(spec.name, record, { expect: "absent" }), "StateConflict", Effect.die)
      return record
    }).pipe(locks.creating)

  const clone = (name: string, snapshot: string, clone: string, options: CloneOptions) =>
    Effect.gen(function* () {
      const { cold = false } = options
      yield* vms.get(name)
      const manifest = yield* usable(name, snapshot, !cold)
      const volume = manifest.spec.disks.find((disk) => disk.volume !== undefined)?.volume
      if (volume !== undefined) {
        const problem = `its disk is volume ${volume}, of which there is one: a clone would need another`
        return yield* new VmCannot({ name, command: "clone", problem })
      }
      const spec = specOfClone(manifest, clone, options)
      const problems = problemsOf(spec)
      if (problems.length > 0) return yield* new VmSpecInvalid({ problems })
      const places = new Map(manifest.spec.disks.map(({ path }, index) => [path, spec.disks[index]?.path ?? path]))
      const variables = VmPaths.variablesOf(paths, clone)
      const files = contents(manifest, (path) => places.get(path) ?? path, variables)
      yield* DiskCopies.requireRoom(
        name,
        yield* Effect.forEach(files, ({ from, target }) =>
          Effect.map(DiskCopies.allocated(from), (bytes) => ({ path: target, bytes }))
        )
      )
      const record = yield* announce(
        name,
        spec,
        files.map(({ target }) => target)
      )
      const forget = Effect.gen(function* () {
        for (const { target } of files) yield* Effect.ignore(Files.remove(target))
        yield* runs.erase(record)
        yield* Effect.ignore(records.remove(clone))
      })
      const made = Effect.gen(function* () {
        yield* Files.makeDirectory(dirname(variables))
        if (spec.disks.some(({ image }) => image !== undefined)) {
          yield* Files.makeDirectory(VmPaths.disksOf(paths, clone))
        }
        for (const { from, like, target } of files) yield* DiskCopies.copy(processes, { from, to: target, like })
        const { removing: _, ...whole } = record
        const stored = Records.withWork(whole, cold ? undefined : goOn(manifest, [], renamed(manifest, spec)))
        yield* records.put(clone, stored)
        return stored
      })
      const stored = yield* Effect.onError(Effect.mapError(made, failed(name, "clone")), () => forget)
      yield* supervisor.start(stored)
      yield* supervisor.settled(clone)
      return yield* vms.get(clone)
    }).pipe(locks.record(clone), locks.work(name))

  /** Goes on to its end when its caller goes away. */
  const toItsEnd = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.flatMap(Effect.forkIn(effect, scope), Fiber.join)

  return VmRestores.of({
    restore: (name, snapshot) => toItsEnd(restore(name, snapshot)),
    clone: (name, snapshot, other, options = {}) => toItsEnd(clone(name, snapshot, other, options))
  })
})

export const layer = Layer.effect(VmRestores, make)
