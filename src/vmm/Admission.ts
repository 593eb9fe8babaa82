/**
 * Whether a virtual machine can be made here: whether its name is free (or has what is asked for already), whether the files that it
 * names are what they should be, and whether a hypervisor of this host can do what it wants. All that is wrong is told in one
 * answer, before anything is made. Changes nothing.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import { existsSync } from "node:fs"
import { State } from "../storage/State.ts"
import type { FieldProblem } from "../storage/StateErrors.ts"
import { differences } from "../storage/Workload.ts"
import { fixedMacs } from "./Devices.ts"
import * as DiskOwners from "./DiskOwners.ts"
import { DiskSources } from "./DiskSources.ts"
import * as Disks from "./Disks.ts"
import { Hypervisor, HypervisorMissing } from "./Hypervisor.ts"
import * as Passthrough from "./Passthrough.ts"
import * as Records from "./Records.ts"
import * as Shape from "./Shape.ts"
import * as Uefi from "./Uefi.ts"
import { VmAlreadyExists, VmSpecInvalid } from "./VmError.ts"
import * as VmPaths from "./VmPaths.ts"
import { VmRuns } from "./VmRuns.ts"
import { machineOf, problemsOf, sourceOf, type VmSpec } from "./VmSpec.ts"

export const make = Effect.gen(function* () {
  const records = yield* Records.open(yield* State)
  const hypervisor = yield* Hypervisor
  const { paths } = yield* VmRuns
  const sources = yield* DiskSources

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
    const variables = VmPaths.variablesOf(paths, spec.name)
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

  return { check, placed, problemsIn, same }
})
