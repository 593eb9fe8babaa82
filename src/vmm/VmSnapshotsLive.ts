/**
 * The real `VmSnapshots`.
 *
 * A snapshot is written aside and gets its name when all of it is on the disk. Memory is written while the guest goes on; then it
 * stands still for the rest of it and for the copies of its disks, which share their blocks with the disks where the file
 * system can. So disks and memory are of one moment, and nothing has to be put together again after a crash: no image on top
 * of another is ever begun.
 *
 * Trap: on a file system without shared blocks (ext4) the guest stands still for as long as its disks take to be copied.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { State } from "../storage/State.ts"
import * as Files from "../storage/Files.ts"
import { Processes } from "../taproot/Processes.ts"
import * as Devices from "./Devices.ts"
import * as DiskCopies from "./DiskCopies.ts"
import { type Control, Hypervisor, type Memory } from "./Hypervisor.ts"
import { commands, hint } from "./Lifecycle.ts"
import * as Records from "./Records.ts"
import { SnapshotAlreadyExists, SnapshotFailed, SnapshotUnusable, VmCannot } from "./SnapshotError.ts"
import type { SnapshotFile, SnapshotManifest } from "./SnapshotManifest.ts"
import * as SnapshotStore from "./SnapshotStore.ts"
import { VmNotFound, VmWrongState } from "./VmError.ts"
import { VmLocks } from "./VmLocks.ts"
import * as VmPaths from "./VmPaths.ts"
import { type VmRun, VmRuns } from "./VmRuns.ts"
import { Vms } from "./Vms.ts"
import { VmSnapshots } from "./VmSnapshots.ts"

/** More than what a machine has besides its memory: the state of its devices. */
const DEVICES = 32 * 1024 * 1024

/** A present life that something is to be done with, or why not. */
export const lifeFor = Effect.fnUntraced(function* (name: string, command: "snapshot" | "migrate") {
  const state = (yield* (yield* Vms).get(name)).state
  const run = yield* (yield* VmRuns).current(name)
  if (commands[state][command] === "refuse" || Option.isNone(run)) {
    return yield* new VmWrongState({ name, command, state, hint: hint(command) })
  }
  return { run: run.value, state }
})

/** The hold on a life whose memory can be had. */
export const memoryOf = (run: VmRun, command: string) =>
  Effect.gen(function* () {
    const { name } = run
    const control: Control = yield* Effect.mapError(
      run.hold.get,
      ({ detail }) => new SnapshotFailed({ name, command, detail })
    )
    const { memory } = control
    if (memory === undefined) {
      return yield* new VmCannot({
        name,
        command,
        problem:
          "its hypervisor cannot give its memory away, or was started by an earlier Ironwood: then stop and start it first"
      })
    }
    const isSent = yield* Effect.orElseSucceed(memory.isSent, () => false)
    if (isSent) {
      return yield* new VmCannot({
        name,
        command,
        problem: "it stands still since its memory was written, which its hypervisor does only once: resume it first"
      })
    }
    return { control, memory }
  })

/** The exact machine that a life is, when it has the devices of its record and none is on its way. */
export const modelOf = (record: Records.VmRecord, memory: Memory, command: string) =>
  Effect.gen(function* () {
    const { name, pciDevices } = record.spec
    if (pciDevices.length > 0) {
      return yield* new VmCannot({
        name,
        command,
        problem: "it has a device of the host's, whose state nobody can write down"
      })
    }
    const model = yield* memory.model
    const has = new Set(model.slots.filter((one) => one !== ""))
    const wants = Devices.names(record.spec)
    if (record.leaving !== undefined || (has.size > 0 && !Equal.equals(has, wants))) {
      return yield* new VmCannot({ name, command, problem: "a device of it is on its way in or out" })
    }
    return model
  })

/** A record that is there for people. */
export const recordOf = (records: Records.Records, name: string) =>
  Effect.flatMap(
    Effect.map(records.get(name), Option.filter(Predicate.not(Records.isRemoving))),
    Option.match({ onNone: () => Effect.fail(new VmNotFound({ name })), onSome: (found) => Effect.succeed(found) })
  )

const make = Effect.gen(function* () {
  const processes = yield* Processes
  const hypervisor = yield* Hypervisor
  const vms = yield* Vms
  const runs = yield* VmRuns
  const locks = yield* VmLocks
  const records = yield* Records.open(yield* State)
  const scope = yield* Effect.scope
  const { paths } = runs

  /** Disks that its guest writes to, by their place in the spec; none may be a device. */
  const writtenDisks = Effect.fnUntraced(function* ({ name, value }: Records.StoredVm) {
    const found: Array<{ readonly index: number; readonly path: string; readonly bytes: number }> = []
    for (const [index, { path, readOnly }] of value.spec.disks.entries()) {
      if (readOnly) continue
      const stat = yield* Effect.mapError(
        Files.attempt("look at", path, () => fs.stat(path)),
        ({ message }) => new VmCannot({ name, command: "snapshot", problem: message })
      )
      if (!stat.isFile()) {
        return yield* new VmCannot({
          name,
          command: "snapshot",
          problem: `${path} is a device: only files are copied; have it read-only, or take a snapshot of the device by its own means`
        })
      }
      found.push({ index, path, bytes: stat.blocks * 512 })
    }
    return found
  })

  /** The files of a snapshot in `aside`; its guest goes on afterwards, whatever happens. */
  const write = (record: Records.StoredVm, snapshot: string, run: VmRun, memory: Memory, paused: boolean) =>
    Effect.gen(function* () {
      const { name, value } = record
      const disks = yield* writtenDisks(record)
      const aside = yield* SnapshotStore.begin(paths, name, snapshot)
      const variables = VmPaths.variablesOf(paths, name)
      const copies = [
        ...disks.map(({ index, path }) => ({ from: path, file: `disk${index}` })),
        ...(existsSync(variables) ? [{ from: variables, file: "variables" }] : [])
      ]
      yield* DiskCopies.requireRoom(name, [
        { path: join(aside, "memory"), bytes: value.spec.memoryBytes + DEVICES },
        ...disks.map(({ bytes, index }) => ({ path: join(aside, `disk${index}`), bytes }))
      ])
      const found = (yield* hypervisor.facts).find((one) => one.name === run.hypervisor)
      const model = yield* modelOf(value, memory, "snapshot")
      const standing = yield* Effect.gen(function* () {
        const before = yield* memory.save(join(aside, "memory"))
        const begun = (yield* Clock.currentTimeMillis) - before
        for (const { file, from } of copies) yield* DiskCopies.copy(processes, { from, to: join(aside, file) })
        return begun
      }).pipe(Effect.ensuring(Effect.ignore(memory.settle(!paused))))
      const stoodStill = (yield* Clock.currentTimeMillis) - standing
      const described = new Map<string, SnapshotFile>()
      const beside = memory.beside.map((suffix) => `memory${suffix}`)
      for (const name of ["memory", ...beside]) {
        yield* Files.attempt("sync", aside, async () => {
          const file = await fs.open(join(aside, name), "r")
          await file.sync().finally(() => file.close())
        })
      }
      for (const file of ["memory", ...beside, ...copies.map(({ file }) => file)]) {
        described.set(file, yield* SnapshotStore.describe(aside, file))
      }
      const fileOf = (file: string) => Effect.fromNullishOr(described.get(file))
      const manifest: SnapshotManifest = {
        version: 1,
        name,
        snapshot,
        createdAt: yield* Clock.currentTimeMillis,
        hypervisor: {
          name: run.hypervisor,
          version: found?.version ?? "",
          model,
          accelerator: found?.acceleration?.accelerator ?? "tcg"
        },
        spec: value.spec,
        paused,
        stoodStill: paused ? 0 : stoodStill,
        memory: yield* fileOf("memory"),
        ...(beside.length === 0 ? {} : { beside: yield* Effect.forEach(beside, fileOf) }),
        disks: yield* Effect.forEach(disks, ({ index }) =>
          Effect.map(fileOf(`disk${index}`), (file) => ({ index, file }))
        ),
        ...(described.has("variables") ? { variables: yield* fileOf("variables") } : {})
      }
      yield* SnapshotStore.seal(paths, manifest)
      return manifest
    })

  const create = (name: string, snapshot: string) =>
    Effect.gen(function* () {
      const { memory, paused, record, run } = yield* locks.record(name)(
        Effect.gen(function* () {
          const record = yield* recordOf(records, name)
          if ((yield* names(name)).includes(snapshot)) return yield* new SnapshotAlreadyExists({ name, snapshot })
          const { run, state } = yield* Effect.provideContext(lifeFor(name, "snapshot"), context)
          const { memory } = yield* memoryOf(run, "snapshot")
          const paused = state === "paused"
          // a brain that died while it let the guest go on has left the mark
          yield* records.update(name, ({ value }) =>
            Records.withWork(Records.withPaused(value, paused ? run.process.label : undefined), {
              _tag: "Saving",
              life: run.process.label
            })
          )
          return { record, run, memory, paused }
        })
      )
      return yield* write(record, snapshot, run, memory, paused).pipe(
        (writing) => run.devices.withPermit(writing),
        Effect.catchTags({
          ControlLost: ({ detail }) => new SnapshotFailed({ name, command: "snapshot", detail }),
          CopyFailed: ({ detail }) => new SnapshotFailed({ name, command: "snapshot", detail }),
          StorageFailed: ({ message }) => new SnapshotFailed({ name, command: "snapshot", detail: message }),
          NoSuchElementError: Effect.die
        }),
        Effect.onError(() => Effect.ignore(Files.remove(SnapshotStore.asideOf(paths, name, snapshot)))),
        Effect.ensuring(
          Effect.ignore(
            records.update(name, ({ value }) =>
              value.work?._tag === "Saving" ? Records.withWork(value, undefined) : value
            )
          )
        )
      )
    }).pipe(locks.work(name))

  const names = (name: string) =>
    Effect.mapError(
      SnapshotStore.names(paths, name),
      ({ message }) => new SnapshotFailed({ name, command: "snapshot ls", detail: message })
    )

  const context = yield* Effect.context<Vms | VmRuns>()

  return VmSnapshots.of({
    // goes on to its end when its caller goes away
    create: (name, snapshot) => Effect.flatMap(Effect.forkIn(create(name, snapshot), scope), Fiber.join),
    list: (name) =>
      Effect.gen(function* () {
        const machines = name === undefined ? (yield* vms.list).map((vm) => vm.name) : [(yield* vms.get(name)).name]
        const found: Array<SnapshotManifest | SnapshotUnusable> = []
        for (const machine of machines) {
          for (const snapshot of yield* names(machine)) {
            const one = yield* Effect.result(SnapshotStore.read(paths, machine, snapshot))
            if (Result.isSuccess(one)) found.push(one.success)
            // one that was removed meanwhile is none
            else if (one.failure._tag === "SnapshotUnusable") found.push(one.failure)
          }
        }
        return found
      }),
    get: (name, snapshot) => Effect.andThen(vms.get(name), SnapshotStore.read(paths, name, snapshot)),
    remove: (name, snapshot) =>
      Effect.gen(function* () {
        yield* vms.get(name)
        if (!(yield* names(name)).includes(snapshot)) yield* SnapshotStore.read(paths, name, snapshot)
        yield* Effect.mapError(
          SnapshotStore.remove(paths, name, snapshot),
          ({ message }) => new SnapshotUnusable({ name, snapshot, problem: message })
        )
      }).pipe(locks.work(name))
  })
})

export const layer = Layer.effect(VmSnapshots, make)
