/**
 * The real `Vms`: its creations, removals and answers, and its other parts put together.
 *
 * - `Admission.ts`: what is refused before anything is made
 * - `VmStatus.ts`: what is said about a machine
 * - `VmSteering.ts`: what it shall be from now on
 * - `VmDevices.ts`, `VmResize.ts`: its disks and cards, and its measure
 *
 * Commands on one name take turns up to the point where the tree has been asked (a removal: up to
 * its end); creations take turns altogether besides, since they must not give away a user or a disk twice.
 *
 * Trap: a caller that goes away (its deadline has passed) takes nothing back: what was committed is done all the same.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as fs from "node:fs/promises"
import { State } from "../storage/State.ts"
import * as Admission from "./Admission.ts"
import * as DiskSources from "./DiskSources.ts"
import * as Drivers from "./Drivers.ts"
import { Hypervisor } from "./Hypervisor.ts"
import { commands } from "./Lifecycle.ts"
import * as Records from "./Records.ts"
import * as Users from "./Users.ts"
import { ConsoleUnreadable } from "./VmError.ts"
import { VmHasSnapshots } from "./SnapshotError.ts"
import * as SnapshotStore from "./SnapshotStore.ts"
import * as VmLocks from "./VmLocks.ts"
import * as VmMoves from "./VmMoves.ts"
import * as VmDevices from "./VmDevices.ts"
import * as VmResize from "./VmResize.ts"
import * as VmPaths from "./VmPaths.ts"
import * as VmRestores from "./VmRestores.ts"
import { VmRuns } from "./VmRuns.ts"
import * as VmRunsLive from "./VmRunsLive.ts"
import * as VmSnapshotsLive from "./VmSnapshotsLive.ts"
import * as VmStatus from "./VmStatus.ts"
import * as VmSteering from "./VmSteering.ts"
import * as VmSupervisor from "./VmSupervisor.ts"
import { filesOf } from "./Work.ts"
import { VmSpec } from "./VmSpec.ts"
import { Vms } from "./Vms.ts"

export interface Options {
  /** `vm` in the state directory. */
  readonly directory: string
  /** The cgroup of everything here. */
  readonly cgroup: string
  /** Default `qemu-system-x86_64`. */
  readonly binary?: string
  /** Where the programs of other hypervisors are looked for. Default: where a system has its programs. */
  readonly path?: string
}

const make = Effect.gen(function* () {
  const state = yield* State
  const runs = yield* VmRuns
  const hypervisor = yield* Hypervisor
  const sources = yield* DiskSources.DiskSources
  const supervisor = yield* VmSupervisor.VmSupervisor
  const records = yield* Records.open(state)
  const { creating, record: lock } = yield* VmLocks.VmLocks
  const storedUsers = yield* Records.usersIn(state)
  const status = yield* VmStatus.make
  const { describe, find, get, stateOf } = status
  const { check, placed, problemsIn, same } = yield* Admission.make
  const { ask, control, refuse, runFor, steer } = yield* VmSteering.make(status)

  /** All of a removal that comes after its mark. */
  const forget = ({ name, value }: Records.StoredVm) =>
    Effect.gen(function* () {
      yield* runs.hurry(name)
      yield* supervisor.remove(name)
      yield* runs.stop(value, Duration.zero)
      yield* runs.erase(value)
      yield* Effect.ignore(SnapshotStore.removeAll(runs.paths, name))
      for (const file of filesOf(value.work)) {
        yield* Effect.ignore(Effect.tryPromise(() => fs.rm(file, { force: true })))
      }
      yield* Effect.catchTag(records.remove(name), "StateConflict", Effect.die)
    }).pipe(Effect.uninterruptible)

  const create: Vms["Service"]["create"] = Effect.fn("Vms.create")(function* (asked, options = {}) {
    const spec = yield* placed(asked)
    const made = Effect.gen(function* () {
      const present = yield* same(spec)
      if (Option.isSome(present)) return present.value
      // a removal that an earlier brain has begun
      const left = yield* records.get(spec.name)
      if (Option.isSome(left)) yield* forget(left.value)
      yield* check(spec)
      const record = {
        spec,
        user: Users.lowestFree(new Set([...(yield* storedUsers), ...(yield* Users.running)])),
        desired: options.start === false ? "stopped" : "running",
        completed: false
      } satisfies Records.VmRecord
      const stored = yield* Effect.catchTag(
        records.put(spec.name, record, { expect: "absent" }),
        "StateConflict",
        Effect.die
      )
      yield* supervisor.start(record)
      return stored
    }).pipe(sources.holding(spec.disks), creating, lock(spec.name))
    const record = yield* Effect.uninterruptible(made)
    if (options.wait === true) yield* supervisor.settled(spec.name)
    return yield* describe(record)
  })

  const world: VmDevices.World = {
    records,
    runs,
    hypervisor,
    sources,
    turn: (name) => (effect) => lock(name)(creating(effect)),
    find,
    stateOf,
    get,
    problems: problemsIn
  }

  return Vms.of({
    create,
    ...VmDevices.make(world),
    ...VmResize.make(world),
    validate: (asked) =>
      Effect.gen(function* () {
        const spec = yield* placed(asked)
        const found = yield* Effect.result(same(spec))
        if (Result.isSuccess(found) && Option.isSome(found.success)) {
          return Option.some(yield* describe(found.success.value))
        }
        yield* check(spec)
        return Result.isFailure(found) ? yield* found.failure : Option.none()
      }),
    get,
    list: Effect.flatMap(records.list, (found) =>
      Effect.forEach(found.filter(Predicate.not(Records.isRemoving)), describe)
    ),
    start: (name) => steer(name, "start"),
    stop: (name, grace) => steer(name, "stop", grace),
    reset: (name) => control(name, "reset"),
    pause: (name) => control(name, "pause"),
    resume: (name) => control(name, "resume"),
    remove: (name, options) =>
      lock(name)(
        Effect.gen(function* () {
          const record = yield* find(name)
          const command = options?.force === true ? "force-remove" : "remove"
          const present = yield* stateOf(name)
          if (commands[present][command] === "refuse") return yield* refuse(name, command, present)
          const snapshots = yield* Effect.orElseSucceed(SnapshotStore.names(runs.paths, name), () => [])
          if (command === "remove" && snapshots.length > 0) return yield* new VmHasSnapshots({ name, snapshots })
          const marked = yield* records.update(name, (present) => ({ ...present.value, removing: true }))
          // From here on it is gone; whatever cannot be cleared away now goes at the next start.
          yield* forget(Option.getOrElse(marked, () => record))
        })
      ),
    setPolicy: (name, policy) =>
      Effect.gen(function* () {
        yield* lock(name)(
          Effect.gen(function* () {
            const { value } = yield* find(name)
            const { restart: _, ...spec } = value.spec
            const changed = new VmSpec({ ...spec, restart: policy })
            yield* records.update(name, (record) => ({ ...record.value, spec: changed }))
            yield* Effect.flatMap(
              ask((tree) => tree.setPolicy(VmSupervisor.vmPath(name), policy)),
              Fiber.join
            )
          })
        )
        return yield* get(name)
      }),
    console: (name, options = {}) =>
      Stream.unwrap(
        Effect.map(find(name), ({ value }) =>
          Stream.mapError(
            runs.console(value).read(options),
            ({ code, path }) => new ConsoleUnreadable({ name, path, problem: code })
          )
        )
      ),
    attach: (name) => Effect.map(runFor(name, "attach"), ({ process }) => process)
  })
})

/** `Vms` and the branch of the tree below it (`VmSupervisor`), which the caller puts below the root; with what that needs to run. */
export const layer = (options: Options) => {
  const paths = VmPaths.make(options.directory, options.cgroup)
  return Layer.mergeAll(VmSnapshotsLive.layer, VmRestores.layer, VmMoves.layer).pipe(
    Layer.provideMerge(Layer.effect(Vms, make)),
    Layer.provide(VmLocks.layer),
    Layer.provideMerge(VmSupervisor.layer),
    Layer.provideMerge(VmRunsLive.layer(paths)),
    Layer.provideMerge(DiskSources.layer(paths)),
    Layer.provideMerge(
      Drivers.layer({
        directory: paths.trial,
        ...(options.binary === undefined ? {} : { qemu: options.binary }),
        ...(options.path === undefined ? {} : { path: options.path })
      })
    )
  )
}
