/**
 * Another measure for a machine that is there: processors, memory, what the balloon leaves, the sizes and limits of its disks. The
 * part of `VmsLive` that changes them.
 *
 * What is wanted is committed first, then the machine that runs is made to follow. What its hypervisor does not do is taken back;
 * memory that the guest has not taken in time stays wanted: it goes on taking it.
 *
 * Trap: a disk that has grown stays so.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Devices from "./Devices.ts"
import * as DiskNames from "./DiskNames.ts"
import * as Disks from "./Disks.ts"
import type { Capabilities } from "./Hypervisor.ts"
import { commands, hint } from "./Lifecycle.ts"
import type { DiskLimits } from "./Shape.ts"
import type { World } from "./VmDevices.ts"
import { VmControlFailed, VmDeviceKept, VmSpecInvalid, VmWrongState } from "./VmError.ts"
import { type DiskSpec, problemsOf, VmSpec, withFields } from "./VmSpec.ts"

/** What shall be different; what is left out stays. */
export interface Measure {
  readonly cpus?: number
  readonly memoryBytes?: number
  readonly balloonBytes?: number
  /** Only of one that is down. */
  readonly maxCpus?: number
  readonly maxMemoryBytes?: number
  readonly disks?: ReadonlyArray<{
    /** Its path, the name of its volume, or its serial. */
    readonly path: string
    readonly sizeBytes?: number
    /** Instead of all those that it had; an empty one: none. */
    readonly limits?: DiskLimits
  }>
}

type Problem = { readonly field: string; readonly problem: string }

/** What cannot be while it runs. */
const liveProblems = (
  spec: VmSpec,
  { balloonBytes, cpus, disks = [], maxCpus, maxMemoryBytes, memoryBytes }: Measure,
  able: Capabilities | undefined
): ReadonlyArray<Problem> => {
  const grows = able?.growth.includes(spec.chipset) === true
  const never = "cannot be changed while it runs, by its hypervisor: stop it first"
  const places = spec.maxCpus ?? spec.cpus
  const most = spec.maxMemoryBytes ?? spec.memoryBytes
  const wrong: ReadonlyArray<readonly [boolean, string, string]> = [
    [!grows && cpus !== undefined && cpus !== spec.cpus, "cpus", never],
    [!grows && memoryBytes !== undefined && memoryBytes !== spec.memoryBytes, "memoryBytes", never],
    [balloonBytes !== undefined && able?.balloonTarget !== true, "balloonBytes", never],
    ...disks.flatMap(({ limits, sizeBytes }, index) => [
      [sizeBytes !== undefined && able?.diskSizes !== true, `disks[${index}].sizeBytes`, never] as const,
      [limits !== undefined && able?.diskLimits !== true, `disks[${index}].limits`, never] as const
    ]),
    [maxCpus !== undefined, "maxCpus", "cannot be changed while it runs: stop it first"],
    [maxMemoryBytes !== undefined, "maxMemoryBytes", "cannot be changed while it runs: stop it first"],
    [
      cpus !== undefined && cpus > places,
      "cpus",
      `must be at most ${places} while it runs, its maxCpus: stop it first to give it more`
    ],
    [
      memoryBytes !== undefined && memoryBytes > most,
      "memoryBytes",
      `must be at most ${most} while it runs, its maxMemoryBytes: stop it first to give it more`
    ]
  ]
  return wrong.filter(([isWrong]) => isWrong).map(([, field, problem]) => ({ field, problem }))
}

/** A most that nobody has asked to be another is not what is wrong. */
const asked = (measure: Measure, field: string): string =>
  field === "maxCpus" && measure.maxCpus === undefined
    ? "cpus"
    : field === "maxMemoryBytes" && measure.maxMemoryBytes === undefined
      ? "memoryBytes"
      : field

/** The spec with the measure that it had before, what may have been changed beside it kept. */
const restored = (spec: VmSpec, before: VmSpec): VmSpec => {
  const { balloonBytes: _, maxCpus: __, maxMemoryBytes: ___, ...present } = spec
  const { balloonBytes, cpus, disks, maxCpus, maxMemoryBytes, memoryBytes } = before
  return new VmSpec({
    ...present,
    cpus,
    memoryBytes,
    ...(balloonBytes === undefined ? {} : { balloonBytes }),
    ...(maxCpus === undefined ? {} : { maxCpus }),
    ...(maxMemoryBytes === undefined ? {} : { maxMemoryBytes }),
    disks: present.disks.map((disk) => disks.find(({ path }) => path === disk.path) ?? disk)
  })
}

export const make = ({ find, get, hypervisor, problems, records, runs, stateOf, turn }: World) => {
  /** The spec's disks with the measure's sizes and limits, or what is wrong with these. */
  const disksWith = Effect.fnUntraced(function* (spec: VmSpec, changes: NonNullable<Measure["disks"]>) {
    const wrong: Array<Problem> = []
    let disks: ReadonlyArray<DiskSpec> = spec.disks
    for (const [index, { limits, path, sizeBytes }] of changes.entries()) {
      const field = `disks[${index}]`
      const [disk, ...more] = DiskNames.named({ disks }, path)
      if (disk === undefined || more.length > 0) {
        const problem = disk === undefined ? "is no disk of it" : DiskNames.severalProblem([disk, ...more])
        wrong.push({ field: `${field}.path`, problem })
        continue
      }
      if (sizeBytes !== undefined) {
        const present = yield* Effect.result(Disks.sizeOf(disk))
        if (present._tag === "Failure") wrong.push({ field: `${field}.path`, problem: present.failure })
        else if (present.success > sizeBytes) {
          wrong.push({
            field: `${field}.sizeBytes`,
            problem: `must not be less than the ${present.success} bytes that it has: what is on it would be lost`
          })
        }
      }
      const changed = {
        ...disk,
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
        ...(limits === undefined ? {} : { limits })
      }
      disks = disks.map((one) => (one.path === disk.path ? changed : one))
    }
    return { disks, wrong }
  })

  /** What the hypervisor of the life that goes on can do. */
  const abilities = (name: string) =>
    Effect.gen(function* () {
      const run = yield* runs.current(name)
      const drivers = yield* hypervisor.facts
      return drivers.find((driver) => Option.isSome(run) && driver.name === run.value.hypervisor)?.capabilities
    })

  const commit = Effect.fnUntraced(function* (name: string, measure: Measure) {
    const { value } = yield* find(name)
    const present = yield* stateOf(name)
    const action = commands[present]["resize"]
    if (action === "refuse") {
      return yield* new VmWrongState({ name, command: "resize", state: present, hint: hint("resize") })
    }
    const { spec } = value
    const { disks: changes = [], ...rest } = measure
    const { disks, wrong } = yield* disksWith(spec, changes)
    const next = withFields(spec, { ...rest, disks })
    // files that were there before are not its business
    const before = new Set((yield* problems(spec)).map(({ field }) => field))
    const found = [
      ...wrong,
      ...(action === "commit" ? [] : liveProblems(spec, measure, yield* abilities(name))),
      ...problemsOf(next),
      ...(yield* problems(next)).filter(({ field }) => !before.has(field) && !field.startsWith("disks["))
    ].map((one) => ({ ...one, field: asked(measure, one.field) }))
    const once = found.filter((one, index) => found.findIndex(({ field }) => field === one.field) === index)
    if (once.length > 0) return yield* new VmSpecInvalid({ problems: once })
    yield* records.update(name, (record) => ({ ...record.value, spec: next }))
    return spec
  })

  /** Makes the life that goes on follow its record. */
  const follow = Effect.fnUntraced(function* (name: string) {
    const run = yield* runs.current(name)
    if (Option.isSome(run)) yield* Devices.settle(run.value, records)
  })

  return {
    resize: (name: string, measure: Measure) =>
      Effect.gen(function* () {
        const before = yield* turn(name)(commit(name, measure))
        const undo = Effect.andThen(
          records.update(name, ({ value }) => ({ ...value, spec: restored(value.spec, before) })),
          Effect.ignore(follow(name))
        )
        yield* follow(name).pipe(
          Effect.catchTags({
            ControlLost: ({ detail }) =>
              Effect.andThen(undo, Effect.fail(new VmControlFailed({ name, command: "resize", detail }))),
            DeviceKept: ({ detail, id }) =>
              id === "its memory"
                ? Effect.fail(
                    new VmControlFailed({
                      name,
                      command: "resize",
                      detail: `its guest takes its time: ${detail}; this is what it shall have, and it goes on`
                    })
                  )
                : Effect.andThen(undo, Effect.fail(new VmDeviceKept({ name, device: id, detail })))
          })
        )
        return yield* get(name)
      }).pipe(Effect.uninterruptible)
  }
}
