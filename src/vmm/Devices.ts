/**
 * The disks and cards of a machine that runs, made those that its record says: what is missing is plugged in, what is leaving is
 * taken out, and what the guest has let go of is forgotten. Whoever has changed the record calls `settle`, and so does every actor
 * when it has taken hold of its machine: so a brain that died between two steps leaves nothing half plugged in.
 *
 * Traps:
 * - A device that is leaving is in the spec until the guest has let go of it: no other machine gets its disk before. A life that
 *   begins meanwhile begins without it.
 * - A machine that cannot be plugged into keeps what it was started with: its next life follows the record.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Control, ControlLost, DeviceKept } from "./Hypervisor.ts"
import type { Records, VmRecord } from "./Records.ts"
import type { StateError } from "./Vms.ts"
import type { VmRun } from "./VmRuns.ts"
import { diskId, macAt, machineOf, nicId, type VmSpec, withFields } from "./VmSpec.ts"

/** The spec without some of its disks and cards. */
const without = (spec: VmSpec, ids: ReadonlyArray<string>): VmSpec => {
  if (ids.length === 0) return spec
  const fixed = fixedMacs(spec)
  return withFields(fixed, {
    disks: fixed.disks.filter((disk) => !ids.includes(diskId(disk))),
    nics: fixed.nics.filter((_, index) => !ids.includes(nicId(macAt(fixed, index))))
  })
}

/** The spec with all addresses said: those that come from a card's place in the list would change with the list. */
export const fixedMacs = (spec: VmSpec): VmSpec =>
  withFields(spec, { nics: spec.nics.map((nic, index) => ({ ...nic, mac: macAt(spec, index) })) })

/** What a life that begins now is to have. */
export const wanted = ({ leaving = [], spec }: VmRecord): VmSpec => without(spec, leaving)

/** The record without what has left. */
export const forget = (record: VmRecord, gone: ReadonlyArray<string>): VmRecord => {
  const { leaving = [], ...rest } = record
  const left = leaving.filter((id) => !gone.includes(id))
  return { ...rest, spec: without(record.spec, gone), ...(left.length === 0 ? {} : { leaving: left }) }
}

/** The names of all disks and cards of a spec. */
export const names = (spec: VmSpec): ReadonlySet<string> => {
  const { disks, nics } = machineOf(spec, "")
  return new Set([...disks, ...nics].map(({ id }) => id))
}

const plugIn = (record: VmRecord, control: Control, present: ReadonlySet<string>) =>
  Effect.gen(function* () {
    const { disks, nics } = machineOf(wanted(record), "")
    for (const disk of disks) if (!present.has(disk.id)) yield* control.attachDisk(disk)
    for (const nic of nics) if (!present.has(nic.id)) yield* control.attachNic(nic)
  })

/** See the module header. Callers take turns. */
export const settle = (run: VmRun, records: Records): Effect.Effect<void, ControlLost | DeviceKept | StateError> =>
  Effect.gen(function* () {
    const found = yield* records.get(run.name)
    if (Option.isNone(found)) return
    const { value } = found.value
    const control = yield* run.hold.get
    const present = yield* control.devices
    const shape = control.shape(machineOf(wanted(value), ""))
    if (present === undefined) return yield* shape
    const { leaving = [], spec } = value
    const known = names(spec)
    const strangers = [...present].filter((id) => !known.has(id))
    for (const id of [...leaving, ...strangers]) yield* control.detach(id)
    if (leaving.length > 0) yield* records.update(run.name, (record) => forget(record.value, leaving))
    yield* plugIn(value, control, present)
    yield* shape
  }).pipe((settling) => run.devices.withPermit(settling))
