/**
 * Clears away what is there and should not be, before any container starts: what a brain that died left half-way, and what
 * an older taproot or boot of the host left altogether. Desired state says what should be; everything else goes.
 *
 * - Processes of containers that are not wanted: killed when the container is gone, stopped in its own way when a person has
 *   stopped it (in the background: that may take its grace).
 * - States of the OCI runtime, bundles and cgroups of runs that have no process under taproot, with whatever still lives in
 *   such a cgroup: a taproot that was killed leaves its containers behind as orphans of somebody else.
 * - Root file systems, what sandboxes share, and logs of containers and sandboxes that are gone.
 *
 * A container that runs in the place of a parked one (`whenSpent: "fallback"`) is wanted by no person, but by the tree: it is
 * left alone, and the tree takes it over.
 *
 * Trap: a record that cannot be read is not one that is gone: what belongs to its name stays.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs/promises"
import { Journal } from "../actor/Journal.ts"
import { Rootfs } from "../storage/Rootfs.ts"
import { type Process, Processes } from "../taproot/Processes.ts"
import { Cgroups } from "../host/Cgroups.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import { type Finding, findings } from "./Lifecycle.ts"
import { creatorLabel, OciRuntime } from "./OciRuntime.ts"
import { type ContainerRecord, isWanted, type Records } from "./Records.ts"
import { MicroVms } from "./microvm/MicroVms.ts"
import * as RuntimePaths from "./RuntimePaths.ts"
import { Secrets } from "./Secrets.ts"
import { Systems } from "./System.ts"

const namesIn = (directory: string) => Effect.promise(() => fs.readdir(directory).catch((): Array<string> => []))

const removeTree = (path: string) => Effect.promise(() => fs.rm(path, { recursive: true, force: true }))

const warn = (what: string) => (cause: Cause.Cause<unknown>) =>
  Effect.logWarning(`${what} could not be cleared away`, Cause.squash(cause))

/** Kills a process whose container nobody knows any more, and gives its entry back. */
const endStranger = Effect.fnUntraced(function* (process: Process) {
  yield* Effect.ignore(process.signal("SIGKILL", { group: true }))
  yield* Effect.timeoutOption(process.exit, "10 seconds")
  yield* process.acknowledge
})

/** A process of a container as taproot has it. */
interface Found {
  readonly container: string
  readonly incarnation: number
  readonly finding: Finding
  readonly process: Process
}

/** Everything under taproot that belongs to a container. */
const lookAround = Effect.gen(function* () {
  const processes = yield* Processes
  const describe = (halfMade: boolean, label: string, process: Process) =>
    Effect.map(process.exitNow, (exit) =>
      Option.map(RuntimePaths.parseLabel(label), ({ container, incarnation }): Found => {
        const finding = halfMade ? "half-made" : Option.isSome(exit) ? "ended" : "running"
        return { container, incarnation, finding, process }
      })
    )
  const runs = yield* Effect.forEach(yield* processes.takeAll(RuntimePaths.anyLabel), (process) =>
    describe(false, process.label, process)
  )
  const creators = yield* Effect.forEach(yield* processes.takeAll(creatorLabel(RuntimePaths.anyLabel)), (process) =>
    describe(true, process.label.slice(creatorLabel("").length), process)
  )
  return [...runs, ...creators].flatMap(Option.toArray)
})

/** Leftovers of runs: everything that bears the id of a run without a living or unjudged process. */
const clearRuns = Effect.fnUntraced(function* (live: ReadonlySet<string>) {
  const runtime = yield* OciRuntime
  const cgroups = yield* Cgroups
  const { paths } = yield* ContainerRuns
  const cgroupOf = new Map<string, string>()
  for (const [sandbox, runs] of yield* cgroups.grandchildren(paths.cgroup)) {
    for (const id of runs) cgroupOf.set(id, `${paths.cgroup}/${sandbox}/${id}`)
  }
  const ids = new Set([...(yield* runtime.list), ...(yield* namesIn(paths.bundles)), ...cgroupOf.keys()])
  const dead = [...ids].filter((id) => !live.has(id))
  const clear = (id: string) =>
    runtime
      .remove({ id, cgroup: cgroupOf.get(id) ?? `${paths.cgroup}/${id}` })
      .pipe(Effect.andThen(removeTree(`${paths.bundles}/${id}`)), Effect.catchCause(warn(`run ${id}`)))
  yield* Effect.forEach(dead, clear, { concurrency: 8, discard: true })
})

/** Names of containers that run in the place of another one. Most hosts have no fallbacks, and read no journal for this. */
const standIns = Effect.fnUntraced(function* (records: ReadonlyArray<ContainerRecord>) {
  if (records.every(({ spec }) => spec.restart.fallback === undefined)) return new Set<string>()
  const { nodes } = yield* (yield* Journal).load
  return new Set([...nodes.values()].flatMap(({ rest }) => (rest?.fallback === undefined ? [] : [rest.fallback])))
})

/** See the module header. What has to wait for somebody goes on in `background`. */
export const reconcile = Effect.fn("runtime.reconcile")(function* (records: Records, background: Scope.Scope) {
  const runs = yield* ContainerRuns
  const rootfs = yield* Rootfs
  const cgroups = yield* Cgroups
  const { paths } = runs

  const containers = yield* records.containers.partition
  const sandboxes = yield* records.sandboxes.partition
  for (const broken of [...containers.invalid, ...sandboxes.invalid]) yield* Effect.logError(broken.message)
  const recordOf = new Map(containers.records.map(({ name, value }) => [name, value]))
  const containerNames = new Set([...containers.records, ...containers.invalid].map(({ name }) => name))
  const sandboxNames = new Set([...sandboxes.records, ...sandboxes.invalid].map(({ name }) => name))

  const inPlace = yield* standIns(containers.records.map(({ value }) => value))
  const live = new Set<string>()
  const stopping = new Set<string>()
  /** One stop deals with everything of a container, also with an end that means nothing any more. */
  const stopLater = (record: ContainerRecord) =>
    Effect.suspend(() => {
      if (stopping.has(record.spec.name)) return Effect.void
      stopping.add(record.spec.name)
      const stop = Effect.flatMap(runs.ending(record), (ending) => runs.stop(record, ending))
      return Effect.asVoid(Effect.forkIn(stop, background))
    })
  for (const { container, finding, incarnation, process } of yield* lookAround) {
    const record = recordOf.get(container)
    const isBroken = record === undefined && containerNames.has(container)
    const wanted = record === undefined ? "unknown" : isWanted(record) || inPlace.has(container) ? "wanted" : "unwanted"
    // Somebody else deals with it: it is no leftover.
    const leave = Effect.sync(() => live.add(RuntimePaths.runId(container, incarnation)))
    const kill = endStranger(process)
    const stop = record === undefined ? kill : Effect.andThen(leave, stopLater(record))
    const remedies = { adopt: leave, judge: leave, stop, kill, forget: stop, clear: Effect.void }
    yield* remedies[isBroken ? "adopt" : findings[finding][wanted]]
  }
  yield* (yield* MicroVms).reconcile(sandboxNames)
  const { names, userNetworks } = yield* Systems
  for (const id of yield* userNetworks.reconcile(sandboxNames)) live.add(id)
  yield* names.reconcile(sandboxNames)
  for (const id of yield* runs.pidNamespaces.reconcile(sandboxNames)) live.add(id)
  yield* clearRuns(live)
  yield* runs.stages.reconcile
  yield* (yield* Secrets).reconcile(live)

  yield* Effect.catchCause(rootfs.reconcile(containerNames), warn("root file systems"))
  for (const sandbox of yield* runs.namespaces.list) {
    if (!sandboxNames.has(sandbox)) yield* runs.namespaces.forget(sandbox)
  }
  for (const sandbox of yield* cgroups.children(paths.cgroup)) {
    if (sandboxNames.has(sandbox)) continue
    yield* Effect.catchCause(cgroups.remove(`${paths.cgroup}/${sandbox}`), warn(`the cgroup of sandbox ${sandbox}`))
  }
  const clearLogs = Effect.fnUntraced(function* (sandbox: string) {
    for (const container of yield* namesIn(`${paths.logs}/${sandbox}`)) {
      const keep = containerNames.has(container) && (recordOf.get(container)?.sandbox ?? sandbox) === sandbox
      if (!keep) yield* removeTree(`${paths.logs}/${sandbox}/${container}`)
    }
    if (!sandboxNames.has(sandbox)) yield* Effect.ignore(Effect.tryPromise(() => fs.rmdir(`${paths.logs}/${sandbox}`)))
  })
  yield* Effect.forEach(yield* namesIn(paths.logs), clearLogs, { concurrency: 16, discard: true })
})
