/** What differs between two machine configs, field by field, and how each difference takes effect. */
import type { KernelParameters } from "../host/KernelParameters.ts"
import { fieldPath } from "./Document.ts"
import { overriding } from "./Effective.ts"
import { isSecret } from "./ImagesDocument.ts"
import type { MachineConfig } from "./MachineConfig.ts"
import { equals, isObject, type Json, member } from "./MergePatch.ts"
import { type Reach, rowOf } from "./Reach.ts"

/** One field that differs; undefined is not set. */
export interface Change {
  readonly field: string
  readonly before: Json | undefined
  readonly after: Json | undefined
  readonly reach: Reach
  /** What overrides it, or why it does not take effect here; else empty. */
  readonly note: string
}

/** What decides where a field reaches: what the kernel was told, on a machine that boots into Ironwood. */
export type Here = KernelParameters | undefined

const reachOf = (field: string, here: Here): Pick<Change, "reach" | "note"> => {
  const row = rowOf(field)
  if (here === undefined) {
    return row?.machineOnly === true
      ? { reach: "elsewhere", note: "this Ironwood is a process on a machine that is not its own" }
      : { reach: "live", note: "" }
  }
  const parameter = overriding(field, here)
  if (parameter !== undefined) return { reach: "overridden", note: `the kernel command line says ${parameter}` }
  return {
    reach: row?.reach ?? "live",
    note: row?.field === "state" ? "and only from where the machine has its config when it starts" : ""
  }
}

/** Instead of a secret. */
const hidden = "(hidden)"

/** The leaves that differ, lists as a whole, with their paths. */
const leaves = (
  before: Json | undefined,
  after: Json | undefined,
  path: ReadonlyArray<string>
): ReadonlyArray<Pick<Change, "before" | "after" | "field">> => {
  if (equals(before, after)) return []
  if ((isObject(before) || before === undefined) && (isObject(after) || after === undefined)) {
    const names = new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])
    if (names.size > 0) {
      return [...names].flatMap((name) =>
        leaves(before && member(before, name), after && member(after, name), [...path, name])
      )
    }
  }
  const field = fieldPath(path)
  const shown = (value: Json | undefined) => (value !== undefined && isSecret(field) ? hidden : value)
  return [{ field, before: shown(before), after: shown(after) }]
}

export const between = (before: MachineConfig, after: MachineConfig, here: Here): ReadonlyArray<Change> =>
  leaves(before, after, []).map((leaf) => ({ ...leaf, ...reachOf(leaf.field, here) }))
