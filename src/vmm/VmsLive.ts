/**
 * The real `Vms`.
 *
 * Every command goes the same way: look up the record and the state, look into the table (`Lifecycle.ts`), commit what a person
 * wants from now on, ask the tree. Commands on one name take turns up to the point where the tree has been asked (a removal: up to
 * its end); creations take turns altogether besides, since they must not give away a user or a disk twice.
 *
 * Trap: a caller that goes away (its deadline has passed) takes nothing back: what was committed is done all the same.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { failuresInARow, type Tree, type TreeNode } from "../actor/Tree.ts"
import { State } from "../storage/State.ts"
import type { FieldProblem } from "../storage/StateErrors.ts"
import { differences } from "../storage/Workload.ts"
import { fixedMacs } from "./Devices.ts"
import * as DiskOwners from "./DiskOwners.ts"
import * as DiskSources from "./DiskSources.ts"
import * as Disks from "./Disks.ts"
import * as Drivers from "./Drivers.ts"
import { Hypervisor, HypervisorMissing } from "./Hypervisor.ts"
import { type Command, commands, hint, type VmState } from "./Lifecycle.ts"
import * as Passthrough from "./Passthrough.ts"
import * as Records from "./Records.ts"
import * as Shape from "./Shape.ts"
import * as Uefi from "./Uefi.ts"
import * as Users from "./Users.ts"
import { CLEARING } from "./VmActor.ts"
import {
  ConsoleUnreadable,
  VmAlreadyExists,
  VmControlFailed,
  VmNotFound,
  VmSpecInvalid,
  VmWrongState
} from "./VmError.ts"
import { VmHasSnapshots } from "./SnapshotError.ts"
import * as SnapshotStore from "./SnapshotStore.ts"
import * as VmLocks from "./VmLocks.ts"
import * as VmMoves from "./VmMoves.ts"
import * as VmDevices from "./VmDevices.ts"
import * as VmResize from "./VmResize.ts"
import * as VmPaths from "./VmPaths.ts"
import * as VmRestores from "./VmRestores.ts"
import * as VmRuns from "./VmRuns.ts"
import * as VmSnapshotsLive from "./VmSnapshotsLive.ts"
import * as VmSupervisor from "./VmSupervisor.ts"
import { filesOf } from "./Work.ts"
import { machineOf, problemsOf, sourceOf, VmSpec } from "./VmSpec.ts"
import { type StateError, type Vm, Vms } from "./Vms.ts"

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
  const runs = yield* VmRuns.VmRuns
  const hypervisor = yield* Hypervisor
  const sources = yield* DiskSources.DiskSources
  const supervisor = yield* VmSupervisor.VmSupervisor
  const scope = yield* Effect.scope
  const records = yield* Records.open(state)
  const { creating, record: lock, work } = yield* VmLocks.VmLocks
  const storedUsers = yield* Records.usersIn(state)

  // --- what is said ---

  interface Standing {
    readonly state: VmState
    readonly since: number | undefined
  }

  const standing = (name: string, node: TreeNode | undefined): Effect.Effect<Standing> =>
    node?.state === "running"
      ? Effect.map(runs.current(name), (run) => {
          const hold = Option.getOrUndefined(run)?.hold
          const seen = hold?.seen()
          return {
            state: seen === "paused" || seen === "stalled" ? seen : "running",
            since: hold?.seenSince() ?? node.since
          }
        })
      : Effect.succeed({ state: node?.state ?? "unregistered", since: node?.since })

  const describe = Effect.fnUntraced(function* (record: Records.StoredVm): Effect.fn.Return<Vm> {
    const { name, value } = record
    const node = yield* supervisor.node(name)
    const running = node?.state === "running" || node?.state === "stopping"
    const pid = Number(node?.annotations["pid"] ?? 0)
    return {
      name,
      uid: record.uid,
      generation: record.generation,
      createdAt: record.createdAt,
      spec: value.spec,
      path: VmSupervisor.vmPath(name),
      desired: value.desired,
      ...(yield* standing(name, node)),
      pid: running && pid > 0 ? pid : undefined,
      hypervisor: node?.annotations["hypervisor"],
      incarnation: node?.incarnation ?? 0,
      restarts: node?.restarts ?? 0,
      reboots: Number(node?.annotations["reboots"] ?? 0),
      consecutiveFailures: node === undefined ? 0 : failuresInARow(node, yield* Clock.currentTimeMillis),
      startedAt: node?.startedAt,
      lastExit: node?.lastExit,
      nextAttemptAt: node?.nextAttemptAt,
      node
    }
  })

  const find = (name: string): Effect.Effect<Records.StoredVm, VmNotFound | StateError> =>
    Effect.flatMap(
      Effect.map(records.get(name), Option.filter(Predicate.not(Records.isRemoving))),
      Option.match({ onNone: () => Effect.fail(new VmNotFound({ name })), onSome: (found) => Effect.succeed(found) })
    )

  const get = (name: string) => Effect.flatMap(find(name), describe)
  const stateOf = (name: string) =>
    Effect.map(
      Effect.flatMap(supervisor.node(name), (node) => standing(name, node)),
      ({ state }) => state
    )

  // --- what is wrong with a spec ---

  /** Of the files that it names. Kernels and disks are looked at where they are. */
  const fileProblems = Effect.fnUntraced(function* (spec: VmSpec, others: ReadonlyArray<Records.StoredVm>) {
    const problems: Array<FieldProblem> = []
    const check = <A>(field: string, look: Effect.Effect<A, string>) =>
      Effect.match(look, {
        onSuccess: Option.some,
        onFailure: (problem) => {
          problems.push({ field, problem })
          return Option.none<A>()
        }
      })
    if (spec.kernel !== undefined) yield* check("kernel", Disks.plain(spec.kernel))
    if (spec.initrd !== undefined) yield* check("initrd", Disks.plain(spec.initrd))
    const ofHost = yield* Effect.promise(() => Shape.hostProblem(spec))
    if (ofHost !== undefined) problems.push({ field: "hugepages", problem: ofHost })
    problems.push(...(yield* Uefi.hostProblems(spec)))
    for (const [index, address] of spec.pciDevices.entries()) {
      const field = `pciDevices[${index}]`
      yield* check(field, Passthrough.inspect(address))
      const owner = others.find(({ value }) => value.spec.pciDevices.includes(address))
      if (owner !== undefined) problems.push({ field, problem: `is a device of virtual machine ${owner.name}` })
    }
    for (const [index, disk] of spec.disks.entries()) {
      const field = `disks[${index}].${sourceOf(disk)}`
      // it will be made: see `DiskSources`
      if (sourceOf(disk) !== "path" && !existsSync(disk.path)) continue
      const identity = yield* check(field, Disks.inspect(disk))
      if (Option.isNone(identity)) continue
      if (disk.sizeBytes !== undefined) yield* check(`disks[${index}].sizeBytes`, Disks.sizeOf(disk))
      if (disk.volume === undefined && disk.format === "raw" && (yield* Disks.looksLikeQcow2(disk.path))) {
        problems.push({ field: `disks[${index}].format`, problem: "is raw, but the file is a qcow2 image" })
      }
      for (const owner of yield* DiskOwners.of(disk, identity.value, others)) {
        problems.push({
          field,
          problem: `is a disk of virtual machine ${owner}; one that is written to belongs to one machine alone`
        })
      }
    }
    return problems
  })

  /** All that is wrong with a spec, and what no hypervisor can do of it. */
  const problemsIn = Effect.fnUntraced(function* (spec: VmSpec) {
    const others = (yield* records.partition).records.filter(({ name }) => name !== spec.name)
    const variables = VmPaths.variablesOf(runs.paths, spec.name)
    const refused = yield* hypervisor.refusals(machineOf(spec, variables), spec.hypervisor)
    const refusals = refused.map(({ field, problem }) => ({
      field: field === "boot" ? "kernel" : field,
      problem
    }))
    return [
      ...problemsOf(spec),
      ...refusals,
      ...(yield* sources.problems(spec)),
      ...(yield* fileProblems(spec, others))
    ]
  })

  /** Fails with all that is wrong, or that there is nothing that could make it. */
  const check = Effect.fnUntraced(function* (spec: VmSpec) {
    const drivers = yield* hypervisor.facts
    const usable = drivers.some(({ problem }) => problem === undefined)
    if (!usable) return yield* new HypervisorMissing({ detail: drivers.map(({ problem }) => problem).join("; ") })
    const problems = yield* problemsIn(spec)
    if (problems.length > 0) return yield* new VmSpecInvalid({ problems })
  })

  /** The machine that has the name, if it is what `spec` says. */
  const same = Effect.fnUntraced(function* (spec: VmSpec) {
    const present = Option.filter(yield* records.get(spec.name), Predicate.not(Records.isRemoving))
    if (Option.isNone(present)) return Option.none()
    const fields = differences(fixedMacs(present.value.value.spec), fixedMacs(spec))
    if (fields.length > 0) return yield* new VmAlreadyExists({ name: spec.name, fields })
    return present
  })

  /** A spec as it was asked for, with the paths of its disks. */
  const placed = Effect.fnUntraced(function* (asked: VmSpec) {
    const problems = asked.disks.flatMap((disk, index) => sources.problemsOf(asked.name, disk, `disks[${index}]`))
    if (problems.length > 0) return yield* new VmSpecInvalid({ problems })
    return sources.placed(asked)
  })

  // --- what is done ---

  /** Asks the tree, in a fiber of its own that no caller's end takes along. */
  const ask = (request: (tree: Tree["Service"]) => Effect.Effect<void, unknown>) =>
    Effect.flatMap(supervisor.tree, (tree) =>
      Effect.forkIn(Option.isNone(tree) ? Effect.void : Effect.ignore(request(tree.value)), scope, {
        startImmediately: true
      })
    )

  /** `start` and `stop`: commit what is wanted from now on, ask, and wait for it outside the lock. */
  const steer = (name: string, command: "start" | "stop", grace?: Duration.Duration) =>
    Effect.gen(function* () {
      const desired = command === "stop" ? "stopped" : "running"
      const fiber = yield* lock(name)(
        Effect.gen(function* () {
          const { value } = yield* find(name)
          const action = commands[yield* stateOf(name)][command]
          const change = ({ grace: before, ...record }: Records.VmRecord): Records.VmRecord => ({
            ...record,
            desired,
            completed: false,
            // A plain stop has nothing to say about how one that is under way goes on.
            ...(grace !== undefined ? { grace } : command === "stop" && before !== undefined ? { grace: before } : {})
          })
          const changed = change(value)
          if (value.desired !== desired || value.completed || !Equal.equals(value.grace, changed.grace)) {
            yield* records.update(name, (record) => change(record.value))
          }
          const path = VmSupervisor.vmPath(name)
          const shutdown = Duration.sum(changed.grace ?? changed.spec.stopGracePeriod, CLEARING)
          return yield* ask((tree) =>
            action === "start"
              ? tree.start(path)
              : action === "restart"
                ? tree.restart(path)
                : action === "stop"
                  ? tree.stop(path, { shutdown })
                  : Effect.void
          )
        })
      )
      yield* Fiber.join(fiber)
      if (command === "start") yield* supervisor.settled(name)
      return yield* get(name)
    })

  const refuse = (name: string, command: Command, present: VmState) =>
    new VmWrongState({
      name,
      command: command === "force-remove" ? "remove" : command,
      state: present,
      hint: hint(command)
    })

  /** The present life, for a command that needs one. */
  const runFor = Effect.fnUntraced(function* (name: string, command: Command) {
    yield* find(name)
    const present = yield* stateOf(name)
    const run = yield* runs.current(name)
    if (commands[present][command] === "refuse" || Option.isNone(run)) return yield* refuse(name, command, present)
    return run.value
  })

  /** Commits that a life is paused, or (no label) that none is. */
  const remember = (name: string, paused: string | undefined) =>
    records.update(name, ({ value }) => {
      const { paused: _, ...rest } = value
      return paused === undefined ? rest : { ...rest, paused }
    })

  /** `reset`, `pause` and `resume`: asked of its hypervisor, and what became of it looked at by whoever follows it. */
  const control = (name: string, command: "reset" | "pause" | "resume") =>
    Effect.gen(function* () {
      const { hold, process } = yield* runFor(name, command)
      yield* Effect.gen(function* () {
        // the table is asked about what is, not about what was seen last
        const seen = yield* hold.look
        const present = yield* stateOf(name)
        const action = commands[present][command]
        if (action === "refuse") return yield* refuse(name, command, present)
        if (action === "keep") return
        const held = yield* hold.get
        const goOn = Effect.andThen(held.resume, hold.look)
        if (action === "resume") {
          // neither waits for the other: one that goes on with the mark, or stands still without it, is what it seems to be
          return yield* Effect.all([goOn, remember(name, undefined)], { concurrency: "unbounded", discard: true })
        }
        // Committed before it is done: after a reset its hypervisor does not tell one that is paused from a new one.
        if (action === "pause" || seen === "paused") yield* remember(name, process.label)
        if (action === "pause") yield* held.pause
        if (action === "reset") yield* held.reset
        yield* action === "reset" && seen === "stalled" ? goOn : hold.look
      }).pipe(Effect.catchTag("ControlLost", ({ detail }) => new VmControlFailed({ name, command, detail })))
      return yield* get(name)
    }).pipe(work(name))

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
    Layer.provideMerge(VmRuns.layer(paths)),
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
