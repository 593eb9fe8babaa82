/**
 * The real `VmMoves`: live migration between two processes on this host.
 *
 * A second life is launched that waits for memory (`Moving`), the first one sends it while its guest goes on, and both stand still when all
 * of it is there. Then it is committed that the second one counts (`Arrived`): the first is ended, the other let go. What goes
 * wrong before the commit ends the second life and lets the first go on; what goes wrong after it is a matter of the second
 * one and its restart policy.
 *
 * Traps:
 * - For that moment the host needs the machine's memory twice.
 * - A port of the host can be had by one process only: the new one takes those that lead to the guest when the old one has ended.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { State } from "../storage/State.ts"
import * as Records from "./Records.ts"
import { Hypervisor } from "./Hypervisor.ts"
import { SnapshotFailed, VmCannot } from "./SnapshotError.ts"
import { VmLocks } from "./VmLocks.ts"
import * as Shape from "./Shape.ts"
import * as VmPaths from "./VmPaths.ts"
import { VmRuns } from "./VmRuns.ts"
import { VmMoves } from "./VmSnapshots.ts"
import { lifeFor, memoryOf, modelOf, recordOf } from "./VmSnapshotsLive.ts"
import * as VmSpec from "./VmSpec.ts"
import { Vms } from "./Vms.ts"

const make = Effect.gen(function* () {
  const vms = yield* Vms
  const runs = yield* VmRuns
  const hypervisor = yield* Hypervisor
  const locks = yield* VmLocks
  const records = yield* Records.open(yield* State)
  const scope = yield* Effect.scope
  const context = yield* Effect.context<Vms | VmRuns>()

  const fail = (name: string) => (error: { readonly message: string }) =>
    new SnapshotFailed({ name, command: "migrate", detail: error.message })

  /** Commits that the other life counts, unless the machine has come to its end meanwhile. */
  const commit = (name: string, from: string, to: string) =>
    Effect.gen(function* () {
      const changed = yield* records.update(name, ({ value }) => {
        if (value.work?._tag !== "Moving" || value.judged === from || value.desired !== "running") return value
        const { paused, ...rest } = value
        return Records.withWork({ ...rest, ...(paused === from ? { paused: to } : {}) }, { _tag: "Arrived", life: to })
      })
      if (Option.isSome(changed) && changed.value.value.work?._tag === "Arrived") return changed.value.value
      return yield* new SnapshotFailed({ name, command: "migrate", detail: "it has come to its end meanwhile" })
    }).pipe(locks.record(name))

  const migrate = (name: string) =>
    Effect.gen(function* () {
      const { from, life, memory, paused, record } = yield* locks.record(name)(
        Effect.gen(function* () {
          const { value } = yield* recordOf(records, name)
          const { run, state } = yield* Effect.provideContext(lifeFor(name, "migrate"), context)
          const drivers = yield* hypervisor.facts
          if (drivers.find((one) => one.name === run.hypervisor)?.capabilities.moves !== true) {
            const able = drivers.filter(({ capabilities }) => capabilities.moves).map((one) => one.name)
            const problem = `${run.hypervisor} does not move a machine that runs; ${able.join(" or ")} could`
            return yield* new VmCannot({ name, command: "migrate", problem })
          }
          const lacking = yield* Effect.promise(() => Shape.hostProblem(value.spec))
          if (lacking !== undefined) {
            const problem = `it is there twice while it moves: ${lacking}`
            return yield* new VmCannot({ name, command: "migrate", problem })
          }
          const { memory } = yield* memoryOf(run, "migrate")
          const life = { ...run.life, move: run.life.move + 1 }
          const work = { _tag: "Moving", from: run.process.label, to: VmPaths.label(name, life) } as const
          const paused = state === "paused"
          // a brain that died while it let the guest go on has left the mark
          const moving = (value: Records.VmRecord) =>
            Records.withWork(Records.withPaused(value, paused ? run.process.label : undefined), work)
          yield* records.update(name, ({ value }) => moving(value))
          return { from: run, life, memory, paused, record: moving(value) }
        })
      )
      const sent = from.devices.withPermit(
        Effect.gen(function* () {
          const to = yield* runs.await(record, from, life, yield* modelOf(record, memory, "migrate"))
          return yield* Effect.gen(function* () {
            const other = yield* memoryOf(to, "migrate")
            const before = yield* memory.send(to.directory, other.memory.arrived)
            const standing = (yield* Clock.currentTimeMillis) - before
            const now = yield* commit(name, from.process.label, to.process.label)
            return { to, other, standing, now }
          }).pipe(Effect.onError(() => runs.end(record, to)))
        })
      )
      const undo = memory
        .settle(!paused)
        .pipe(
          Effect.ignore,
          Effect.andThen(Effect.ignore(records.update(name, ({ value }) => Records.withWork(value, undefined))))
        )
      const { now, other, standing, to } = yield* Effect.onError(Effect.mapError(sent, fail(name)), () => undo)
      yield* runs.succeed(now, from, to)
      const { nics } = VmSpec.machineOf(now.spec, "")
      // one that ends meanwhile is judged like any other; a port that somebody else has taken is missing from now on
      yield* Effect.ignore(other.memory.claim(nics), { log: "Warn" })
      if (!paused) yield* Effect.ignore(other.control.resume)
      const stoodStill = paused ? 0 : (yield* Clock.currentTimeMillis) - standing
      yield* Effect.ignore(records.update(name, ({ value }) => Records.withWork(value, undefined)))
      yield* Effect.ignore(to.hold.look)
      return { vm: yield* vms.get(name), stoodStill }
    }).pipe(locks.work(name))

  return VmMoves.of({
    // goes on to its end when its caller goes away
    migrate: (name) => Effect.flatMap(Effect.forkIn(migrate(name), scope), Fiber.join)
  })
})

export const layer = Layer.effect(VmMoves, make)
