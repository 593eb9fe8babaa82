/**
 * The supervisor of all virtual machines: the `vmm` branch of the tree, and the handle on it.
 *
 * At every start it first clears away what should not be there: processes, cgroups, directories and consoles of machines that
 * desired state does not know or whose removal was begun; processes of machines that a person has stopped. Then it registers an actor per machine.
 *
 * Traps: while it is down there is no tree to ask: nodes are unknown, starts are left to its next start. Commit first. A record
 * that cannot be read is not one that is gone: what belongs to its name stays.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import * as Actor from "../actor/Actor.ts"
import * as ActorPath from "../actor/ActorPath.ts"
import type { ChildSpec } from "../actor/ChildSpec.ts"
import * as DynamicSupervisor from "../actor/DynamicSupervisor.ts"
import type { RestartIntensityReached, SpecInvalid } from "../actor/Errors.ts"
import { Tree, type TreeEvent, type TreeNode } from "../actor/Tree.ts"
import { Cgroups } from "../host/Cgroups.ts"
import { State } from "../storage/State.ts"
import { type Process, Processes } from "../taproot/Processes.ts"
import * as Records from "./Records.ts"
import * as SnapshotStore from "./SnapshotStore.ts"
import { vmActor } from "./VmActor.ts"
import * as VmPaths from "./VmPaths.ts"
import { VmRuns } from "./VmRuns.ts"
import * as Work from "./Work.ts"

/** What the branch stands on. */
export type Services = VmRuns | Cgroups | Processes

export class VmSupervisor extends Context.Service<
  VmSupervisor,
  {
    /** To be put below the root `init`; its id is `vmm`. */
    readonly spec: ChildSpec<RestartIntensityReached | SpecInvalid, Services>
    /** The tree, while the supervisor runs. */
    readonly tree: Effect.Effect<Option.Option<Tree["Service"]>>
    /** The actor of a machine, if it is there. */
    readonly node: (name: string) => Effect.Effect<TreeNode | undefined>
    /** Waits until the actor has come up, has failed to, or is not there. */
    readonly settled: (name: string) => Effect.Effect<void>
    /** Has a machine's actor registered. Fine when it is there, or the supervisor is down. */
    readonly start: (record: Records.VmRecord) => Effect.Effect<void>
    /** Ends a machine's actor with its stop hooks, if it is there, and takes it out of the tree. */
    readonly remove: (name: string) => Effect.Effect<void>
  }
>()("ironwood/vmm/VmSupervisor") {}

/** Where the branch hangs. */
const vmmPath = ActorPath.child(ActorPath.root("init"), "vmm")
export const vmPath = (name: string) => ActorPath.child(vmmPath, name)

const isSettled = (node: TreeNode | undefined): boolean => node?.state !== "starting" && node?.state !== "waiting"

const namesIn = (directory: string) => Effect.promise(() => fs.readdir(directory).catch((): Array<string> => []))

/** Kills a process whose machine nobody knows any more, and gives its entry back. */
const endStranger = Effect.fnUntraced(function* (process: Process) {
  yield* Effect.ignore(process.signal("SIGKILL"))
  yield* Effect.timeoutOption(process.exit, "10 seconds")
  yield* process.acknowledge
})

/** See the module header. What has to wait for somebody goes on in `background`. */
const reconcile = Effect.fn("vmm.reconcile")(function* (records: Records.Records, background: Scope.Scope) {
  const runs = yield* VmRuns
  const processes = yield* Processes
  const cgroups = yield* Cgroups
  const { paths } = runs
  const found = yield* records.partition
  for (const broken of found.invalid) yield* Effect.logError(broken.message)
  const removing = found.records.filter(Records.isRemoving)
  const kept = found.records.filter((record) => !Records.isRemoving(record))
  const recordOf = new Map(kept.map(({ name, value }) => [name, value]))
  const names = new Set([...kept, ...found.invalid].map(({ name }) => name))

  // what an earlier brain ran for machines ends before what it has left is taken away
  for (const process of yield* processes.takeAll(VmPaths.toolLabel)) yield* endStranger(process)
  const live = new Set<string>()
  const stopping = new Set<string>()
  for (const process of yield* processes.takeAll(VmPaths.anyLabel)) {
    const parsed = VmPaths.parseLabel(process.label)
    if (Option.isNone(parsed) || !names.has(parsed.value.name)) {
      yield* endStranger(process)
      continue
    }
    const { life, name } = parsed.value
    live.add(VmPaths.cgroupName(name, life))
    const record = recordOf.get(name)
    if (record === undefined || Records.isWanted(record) || stopping.has(name)) continue
    stopping.add(name)
    yield* Effect.forkIn(runs.stop(record, record.grace ?? record.spec.stopGracePeriod), background)
  }
  for (const cgroup of yield* cgroups.children(paths.cgroup)) {
    if (live.has(cgroup)) continue
    yield* Effect.catchCause(cgroups.remove(`${paths.cgroup}/${cgroup}`), (cause) =>
      Effect.logWarning(`the cgroup ${cgroup} could not be cleared away`, Cause.squash(cause))
    )
  }
  for (const directory of [paths.machines, paths.consoles, paths.snapshots]) {
    for (const name of yield* namesIn(directory)) {
      if (names.has(name)) continue
      yield* Effect.promise(() => fs.rm(join(directory, name), { recursive: true, force: true }))
    }
  }
  yield* Effect.ignore(SnapshotStore.clearAsides(paths))
  for (const record of found.records) {
    const { name, value } = record
    for (const file of Records.isRemoving(record) ? Work.filesOf(value.work) : Work.asidesOf(value.work))
      yield* Effect.ignore(Effect.tryPromise(() => fs.rm(file, { force: true })))
    if (value.work?._tag === "Copying") {
      yield* Effect.ignore(records.update(name, (record) => Records.withWork(record.value, undefined)))
    }
  }
  // the last of a removal; one that cannot be written now is done at the next start
  for (const record of removing) yield* Effect.ignore(records.remove(record.name, { expect: record }))
})

const make = Effect.gen(function* () {
  const scope = yield* Effect.scope
  const records = yield* Records.open(yield* State)
  let tree = Option.none<Tree["Service"]>()
  /** A later start of the supervisor in the same brain is no restart of Ironwood. */
  let begun = false

  /** Who waits for which actor. */
  const waiting = new Map<string, Deferred.Deferred<void>>()
  const wake = (path: string): void => {
    const waiters = waiting.get(path)
    waiting.delete(path)
    if (waiters !== undefined) Deferred.doneUnsafe(waiters, Effect.void)
  }
  const wakeAll = (): void => [...waiting.keys()].forEach(wake)
  const hear = (event: TreeEvent): void => {
    if (event._tag === "Removed") wake(event.path)
    else if (event._tag === "Changed" && isSettled(event.node)) wake(event.node.path)
    // What happened before a new beginning is not told: everybody looks again.
    else if (event._tag === "Snapshot") wakeAll()
  }

  const supervisor = yield* DynamicSupervisor.make("vmm", {
    kind: "vmm",
    description: "virtual machines",
    children: Effect.gen(function* () {
      const runs = yield* VmRuns
      const cgroups = yield* Cgroups
      yield* Actor.onStop(Effect.andThen(runs.quiet, cgroups.remove(runs.paths.cgroup)))
      if (!begun) yield* Records.forgetStops(records)
      begun = true
      yield* reconcile(records, scope)
      const found = yield* Tree
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          tree = Option.some(found)
        }),
        () =>
          Effect.sync(() => {
            tree = Option.none()
            wakeAll()
          })
      )
      yield* Effect.forkScoped(Stream.runForEach(found.watch(), (event) => Effect.sync(() => hear(event))))
      const desired = yield* records.partition
      const kept = desired.records.filter((record) => !Records.isRemoving(record))
      return yield* Effect.forEach(Records.byAge(kept), ({ name, value }) =>
        Effect.map(runs.isLeft(name), (left) => vmActor(value, records, !left))
      )
    })
  })

  const node = (name: string): Effect.Effect<TreeNode | undefined> =>
    Effect.suspend(() =>
      Option.match(tree, {
        onNone: () => Effect.undefined,
        onSome: (found) => Effect.orElseSucceed(found.get(vmPath(name)), () => undefined)
      })
    )

  return VmSupervisor.of({
    spec: supervisor.spec,
    tree: Effect.sync(() => tree),
    node,
    settled: (name) =>
      Effect.gen(function* () {
        const path = vmPath(name)
        while (true) {
          const waiters = waiting.get(path) ?? Deferred.makeUnsafe<void>()
          waiting.set(path, waiters)
          if (isSettled(yield* node(name))) break
          yield* Deferred.await(waiters)
        }
        wake(path)
      }),
    // Desired state is committed: who is there already, or will start with a supervisor that is down, is all right.
    start: (record) => Effect.ignore(supervisor.startChild(vmActor(record, records), { wait: "registered" })),
    remove: (name) =>
      Effect.suspend(() =>
        Option.match(tree, {
          onNone: () => Effect.void,
          onSome: (found) =>
            Effect.ignore(
              Effect.andThen(found.stop(vmPath(name), { shutdown: Duration.minutes(2) }), found.remove(vmPath(name)))
            )
        })
      )
  })
})

export const layer: Layer.Layer<VmSupervisor, never, State> = Layer.effect(VmSupervisor, make)
