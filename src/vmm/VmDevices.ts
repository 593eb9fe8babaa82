/**
 * Disks and cards of a machine that is there: the part of `VmsLive` that puts them in and takes them out.
 *
 * A disk is named by its path (to be taken out also by its volume or its serial), a card by its address. What is wanted is committed first; then the machine that runs is made to
 * follow (`Devices.settle`). A device that its hypervisor does not take is taken out of the record again, the same way as one
 * that a person wants out.
 */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Option from "effect/Option"
import type { FieldProblem, StateFailure, StateValueInvalid } from "../storage/StateErrors.ts"
import * as Devices from "./Devices.ts"
import * as DiskNames from "./DiskNames.ts"
import type { DiskSources } from "./DiskSources.ts"
import type { Hypervisor } from "./Hypervisor.ts"
import { commands, hint, type VmState } from "./Lifecycle.ts"
import type { Records, StoredVm, VmRecord } from "./Records.ts"
import {
  VmControlFailed,
  VmDeviceKept,
  VmDeviceMissing,
  type VmNotFound,
  VmSpecInvalid,
  VmWrongState
} from "./VmError.ts"
import type { VmRun, VmRuns } from "./VmRuns.ts"
import { diskId, type DiskSpec, freeMac, nicId, type NicSpec, type VmSpec, withFields } from "./VmSpec.ts"
import type { Vms } from "./Vms.ts"

type Found = StateFailure | StateValueInvalid

export interface World {
  readonly records: Records
  readonly runs: VmRuns["Service"]
  readonly hypervisor: Hypervisor["Service"]
  readonly sources: DiskSources["Service"]
  /** Commands on one machine take turns, and with creations. */
  readonly turn: (name: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly find: (name: string) => Effect.Effect<StoredVm, VmNotFound | Found>
  readonly stateOf: (name: string) => Effect.Effect<VmState>
  readonly get: Vms["Service"]["get"]
  /** All that is wrong with a spec, files included. */
  readonly problems: (spec: VmSpec) => Effect.Effect<ReadonlyArray<FieldProblem>, Found>
}

type Command = "plug" | "unplug"

const words: Readonly<Record<Command, string>> = { plug: "plug into", unplug: "unplug from" }

export const make = ({ find, get, hypervisor, problems, records, runs, sources, stateOf, turn }: World) => {
  /** Fails with what forbids it now; whether a guest must follow. */
  const allowed = Effect.fnUntraced(function* ({ name, value }: StoredVm, command: Command, field: string) {
    const present = yield* stateOf(name)
    const action = commands[present][command]
    if (action === "refuse") {
      return yield* new VmWrongState({ name, command: words[command], state: present, hint: hint(command) })
    }
    if (action === "commit") return
    const run = yield* runs.current(name)
    const drivers = yield* hypervisor.facts
    const driver = drivers.find((one) => Option.isSome(run) && one.name === run.value.hypervisor)
    const { chipset } = value.spec
    if (driver?.capabilities.hotPlug.includes(chipset) !== true) {
      return yield* new VmSpecInvalid({
        problems: [{ field, problem: `a ${chipset} takes and gives no device while it runs: stop it first` }]
      })
    }
  })

  /** Makes the life that goes on, if there is one, follow the record. */
  const follow = (name: string, command: string, device: string) =>
    Effect.gen(function* () {
      const run = yield* runs.current(name)
      if (Option.isNone(run)) return
      yield* Effect.catchTags(pluggable(run.value, name, command), {
        ControlLost: ({ detail }) => new VmControlFailed({ name, command, detail }),
        DeviceKept: ({ detail }) => new VmDeviceKept({ name, device, detail })
      })
    })

  const pluggable = (run: VmRun, name: string, command: string) =>
    Effect.gen(function* () {
      const control = yield* run.hold.get
      if ((yield* control.devices) === undefined) {
        return yield* new VmControlFailed({
          name,
          command,
          detail: "this life of it was begun by an earlier Ironwood, without slots: stop it and start it"
        })
      }
      yield* Devices.settle(run, records)
    })

  const edit = (name: string, change: (record: VmRecord) => VmRecord) =>
    records.update(name, ({ value }) => change(value))

  const withSpec = (record: VmRecord, fields: Partial<VmSpec>): VmRecord => ({
    ...record,
    spec: withFields(Devices.fixedMacs(record.spec), fields)
  })

  const mark = (name: string, id: string) =>
    edit(name, (record) => ({
      ...record,
      spec: Devices.fixedMacs(record.spec),
      leaving: [...new Set([...(record.leaving ?? []), id])]
    }))

  const unmark = (name: string, id: string) =>
    edit(name, ({ leaving = [], ...record }) => {
      const left = leaving.filter((one) => one !== id)
      return left.length === 0 ? record : { ...record, leaving: left }
    })

  /** Commits `next`, whose device `id` is new, and has it plugged in. */
  const attach = (name: string, command: string, device: string, id: string, commit: Effect.Effect<boolean, Failing>) =>
    Effect.gen(function* () {
      const isNew = yield* turn(name)(commit)
      yield* follow(name, command, device).pipe(
        Effect.tapError(() =>
          isNew
            ? // it shall be as if nobody had asked for it
              Effect.andThen(mark(name, id), Effect.ignore(follow(name, command, device)))
            : Effect.void
        )
      )
      return yield* get(name)
    }).pipe(Effect.uninterruptible)

  type Failing = VmNotFound | VmWrongState | VmSpecInvalid | Found

  /** What is wrong with the device at `index` of a list of the spec, as fields of `field`. */
  const checked = (spec: VmSpec, list: "disks" | "nics", index: number, field: string) =>
    Effect.gen(function* () {
      const prefix = `${list}[${index}]`
      const found = (yield* problems(spec)).filter(
        (problem) => problem.field === list || problem.field.startsWith(prefix)
      )
      if (found.length === 0) return
      return yield* new VmSpecInvalid({
        problems: found.map((one) => ({
          ...one,
          field: one.field.replace(prefix, field).replace(/^(disks|nics)$/, field)
        }))
      })
    })

  const taken = (field: string, problem: string) => new VmSpecInvalid({ problems: [{ field, problem }] })

  const attachDisk = Effect.fnUntraced(function* (name: string, asked: DiskSpec) {
    const wrong = sources.problemsOf(name, asked, "disk")
    if (wrong.length > 0) return yield* new VmSpecInvalid({ problems: wrong })
    if (asked.image !== undefined) {
      return yield* taken("disk.image", "is only for a machine that is created: attach a file or a volume")
    }
    const disk = sources.place(name, asked)
    if (disk.volume !== undefined) {
      const { value } = yield* find(name)
      const only = withFields(value.spec, { disks: [disk] })
      const [problem] = yield* sources.problems(only)
      if (problem !== undefined) return yield* taken("disk.volume", problem.problem)
      yield* Effect.mapError(sources.prepare(name, [disk]), ({ message }) => taken("disk.volume", message))
    }
    return yield* plugDisk(name, disk)
  })

  const plugDisk = (name: string, disk: DiskSpec) =>
    attach(
      name,
      "attach-disk",
      disk.path,
      diskId(disk),
      Effect.gen(function* () {
        const found = yield* find(name)
        const { leaving = [], spec } = found.value
        yield* allowed(found, "plug", "disk")
        const present = spec.disks.find(({ path }) => path === disk.path)
        if (present !== undefined) {
          if (leaving.includes(diskId(disk))) return yield* taken("disk.path", "is being taken out of it")
          if (Equal.equals(present, disk)) return false
          return yield* taken("disk.path", "is a disk of it already, which is used in another way")
        }
        const disks = [...spec.disks, disk]
        yield* checked(withFields(spec, { disks }), "disks", spec.disks.length, "disk")
        yield* edit(name, (record) => withSpec(record, { disks: [...record.spec.disks, disk] }))
        return true
      }).pipe(sources.holding([disk]))
    )

  const attachNic = Effect.fnUntraced(function* (name: string, asked: NicSpec) {
    const { value } = yield* find(name)
    const nic = { ...asked, mac: asked.mac ?? freeMac(value.spec) }
    return yield* attach(
      name,
      "attach-nic",
      nic.mac,
      nicId(nic.mac),
      Effect.gen(function* () {
        const found = yield* find(name)
        const { leaving = [] } = found.value
        const spec = Devices.fixedMacs(found.value.spec)
        yield* allowed(found, "plug", "nic")
        const present = spec.nics.find(({ mac }) => mac === nic.mac)
        if (present !== undefined) {
          if (leaving.includes(nicId(nic.mac))) return yield* taken("nic.mac", "is being taken out of it")
          if (Equal.equals(present, nic)) return false
          return yield* taken("nic.mac", "is the address of another card of it already")
        }
        yield* checked(withFields(spec, { nics: [...spec.nics, nic] }), "nics", spec.nics.length, "nic")
        yield* edit(name, (record) => withSpec(record, { nics: [...Devices.fixedMacs(record.spec).nics, nic] }))
        return true
      })
    )
  })

  const detach = (
    name: string,
    command: "detach-disk" | "detach-nic",
    device: string,
    idIn: (spec: VmSpec) => Effect.Effect<string, VmSpecInvalid>
  ) =>
    Effect.gen(function* () {
      const id = yield* turn(name)(
        Effect.gen(function* () {
          const found = yield* find(name)
          const id = yield* idIn(found.value.spec)
          if (!Devices.names(found.value.spec).has(id)) return yield* new VmDeviceMissing({ name, device })
          yield* allowed(found, "unplug", command === "detach-disk" ? "path" : "mac")
          yield* mark(name, id)
          // nobody has it: it is gone
          if (Option.isNone(yield* runs.current(name))) yield* edit(name, (record) => Devices.forget(record, [id]))
          return id
        })
      )
      // one that the guest keeps stays; a hypervisor that does not answer is asked again by the actor
      yield* follow(name, command, device).pipe(Effect.tapErrorTag("VmDeviceKept", () => unmark(name, id)))
      return yield* get(name)
    }).pipe(Effect.uninterruptible)

  /** A disk by its path, the name of its volume, or its serial. */
  const diskBy = (word: string) => (spec: VmSpec) => {
    const found = DiskNames.named(spec, word)
    return found.length > 1
      ? Effect.fail(taken("path", DiskNames.severalProblem(found)))
      : Effect.succeed(diskId({ path: found[0]?.path ?? word }))
  }

  return {
    attachDisk,
    attachNic,
    detachDisk: (name: string, disk: string) => detach(name, "detach-disk", disk, diskBy(disk)),
    detachNic: (name: string, mac: string) => detach(name, "detach-nic", mac, () => Effect.succeed(nicId(mac)))
  }
}
