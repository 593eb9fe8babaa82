/**
 * The actor of one virtual machine: it has a life (the one that still goes on, or a new one), follows it to its end, and ends with
 * what that means. Everything else is its restart policy's business.
 *
 * Its two endings are the actor's: *stop* ends the guest (power button, grace, its hypervisor) and clears away all of that life;
 * *release* touches nothing, and the next incarnation, in this brain or the next, finds it again.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Actor from "../actor/Actor.ts"
import type { ChildSpec } from "../actor/ChildSpec.ts"
import { isFinal } from "../actor/Decision.ts"
import * as ExitView from "../actor/ExitView.ts"
import * as ProcessAge from "../taproot/ProcessAge.ts"
import * as Devices from "./Devices.ts"
import type { Listener } from "./Hold.ts"
import type { GuestState } from "./Hypervisor.ts"
import { isWanted, type Records, type VmRecord, withWork } from "./Records.ts"
import { type VmFailure, VmmRefused } from "./VmExit.ts"
import { type VmRun, VmRuns } from "./VmRuns.ts"

/** What a stop takes beyond the grace: writing back, the kill, the last of the console, the kernel's clean-up. */
export const CLEARING = Duration.seconds(60)

/** A machine whose disks and cards are not those of its record is looked after again. */
const SETTLE_AGAIN = Duration.seconds(30)

const words = ({ chipset, cpus, memoryBytes }: VmRecord["spec"]): string =>
  `${chipset}, ${cpus} ${cpus === 1 ? "CPU" : "CPUs"}, ${Math.round(memoryBytes / 1_048_576)} MiB`

/** What is less than it should be with a guest in this state. */
const degradedBy = (state: GuestState): string =>
  state === "stalled" ? "it stands still: a disk of it took no more; make room, then resume it" : ""

const isRestoring = ({ work }: VmRecord): boolean => work?._tag === "Restoring"

/** A new life, with a snapshot's memory where that is decided: once. If it fails, the next one begins cold. */
const start = (runs: VmRuns["Service"], records: Records, record: VmRecord, incarnation: number) => {
  const { name } = record.spec
  const commit = (change: (record: VmRecord) => VmRecord) => records.update(name, ({ value }) => change(value))
  // a state that cannot be written now: whoever reads it later finds the same and does it again, to no harm
  const done = Effect.ignore(commit((value) => withWork(value, undefined)))
  const { work } = record
  if (work?._tag !== "Restoring") return runs.start(record, incarnation, () => Effect.void)
  const arrived = (label: string) =>
    commit((value) => {
      const { grace: _, paused: __, ...rest } = value
      return withWork({ ...rest, ...(work.paused ? { paused: label } : {}) }, { _tag: "Arrived", life: label })
    }).pipe(
      Effect.mapError(({ message }) => new VmmRefused({ name, detail: message })),
      Effect.asVoid
    )
  return Effect.tapError(
    Effect.tap(runs.start(record, incarnation, arrived), () => done),
    () => done
  )
}

export const vmActor = (
  record: VmRecord,
  records: Records,
  /** Nothing of it is left to be looked after: it goes on as an earlier brain left it, instead of starting. */
  resume = false
): ChildSpec<VmFailure, VmRuns> => {
  const { spec } = record
  return Actor.make(
    spec.name,
    {
      kind: "vm",
      description: words(spec),
      policy: spec.restart,
      shutdown: Duration.sum(spec.stopGracePeriod, CLEARING),
      // what its disks are made of may have to be fetched
      startDeadline: spec.disks.some(({ image }) => image !== undefined) ? "2 hours" : "2 minutes",
      autoStart: isWanted(record),
      resume,
      // one that shall run once stays to be looked at
      keep: true
    },
    Effect.gen(function* () {
      const runs = yield* VmRuns
      const self = yield* Actor.Self
      const present = Effect.match(records.get(spec.name), {
        onFailure: () => record,
        onSuccess: Option.match({ onNone: () => record, onSome: ({ value }) => value })
      })
      yield* Actor.onStop(
        Effect.gen(function* () {
          // How it is to be stopped was committed just now.
          const now = yield* present
          const ended = yield* runs.stop(
            now,
            isRestoring(now) ? Duration.zero : (now.grace ?? now.spec.stopGracePeriod)
          )
          // a restore is no end of it
          if (Option.isSome(ended) && !isRestoring(now)) yield* Actor.stopped(ended.value)
        })
      )

      const now = yield* present
      if (isRestoring(now)) yield* runs.stop(now, Duration.zero)
      const found = yield* runs.find(now)
      const first = Option.isSome(found) ? found.value : yield* start(runs, records, now, self.incarnation)
      const factsOf = ({ hypervisor, process }: VmRun) => ({
        pid: String(process.pid),
        run: process.label.slice("vm/".length),
        hypervisor
      })
      const age = yield* ProcessAge.of(first.process)
      yield* Option.isSome(found) ? Actor.adopted(factsOf(first), age) : Actor.ready(factsOf(first), age)

      let reboots = 0
      let reasons = { state: "", trouble: "", devices: "" }
      const degraded = (change: Partial<typeof reasons>): void => {
        reasons = { ...reasons, ...change }
        self.annotate({
          degraded: [reasons.state, reasons.trouble, reasons.devices].filter((reason) => reason !== "").join("; ")
        })
      }
      let run = first
      // what was changed while nobody was there, or half changed
      const settling = yield* Queue.sliding<void>(1)
      const settle = Effect.suspend(() => Devices.settle(run, records)).pipe(
        Effect.tap(() => Effect.sync(() => degraded({ devices: "" }))),
        Effect.tapError(({ message }) => Effect.sync(() => degraded({ devices: message }))),
        Effect.retry(Schedule.spaced(SETTLE_AGAIN)),
        Effect.ignore
      )
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(settle, Queue.take(settling))))
      const listener: Listener = {
        state: (state) => {
          self.annotate({ paused: state === "paused" ? "yes" : "" })
          degraded({ state: degradedBy(state) })
        },
        trouble: (why) => degraded({ trouble: why }),
        unplugged: () => void Queue.offerUnsafe(settling, undefined),
        rebooted: () => {
          reboots++
          self.annotate({ reboots: String(reboots) })
          return spec.onReboot === "end"
        }
      }
      let ended = yield* run.hold.follow(listener)
      for (let next = runs.successor(run); next !== undefined; next = runs.successor(run)) {
        // its memory has gone to another process, which is the same life to everybody
        run = next
        self.annotate({ ...factsOf(run), moves: String(run.life.move) })
        ended = yield* run.hold.follow(listener)
      }
      yield* runs.verdict(
        now,
        run,
        ended,
        Effect.fnUntraced(function* (verdict) {
          const view = ExitView.fromExit(0, verdict, false)
          // The policy may have been changed since; a state that cannot be written is no reason to hide how it ended.
          const update = records.update(spec.name, ({ value }) => ({
            ...value,
            judged: run.process.label,
            completed: value.completed || isFinal(value.spec.restart, view)
          }))
          yield* Effect.ignore(update)
        })
      )
    })
  )
}
