/**
 * The desired state of virtual machines as it is stored (`State`).
 *
 * Traps: stored data; a field that is added later needs a default for decoding. `completed` is no wish but the memory that the
 * wish was fulfilled: a machine whose guest powered off and that its policy does not restart stays so over restarts of brain
 * and host. `judged` names the life that policy has dealt with: whatever is still there of it is to be cleared away.
 *
 * A removal begins with its mark and ends with the record: who meets the mark (a later brain, a creation under the name) ends what
 * was begun. To people a machine with the mark is gone.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type Collection, openedOnce, type State, type StateRecord } from "../storage/State.ts"
import { GracePeriod } from "../storage/Workload.ts"
import { VmSpec } from "./VmSpec.ts"
import { Work } from "./Work.ts"

export const VmRecord = Schema.Struct({
  spec: VmSpec,
  /** Whom its hypervisor runs as, where we may choose: no two machines the same. */
  user: Schema.Int,
  desired: Schema.Literals(["running", "stopped"]),
  completed: Schema.Boolean,
  /** The label of the last life that was judged. */
  judged: Schema.optionalKey(Schema.String),
  /** The label of the life that a person paused: it was let go before. */
  paused: Schema.optionalKey(Schema.String),
  /** While stopped: how long it may take, where not as the spec says. */
  grace: Schema.optionalKey(GracePeriod),
  /** What is under way with its memory and disks. */
  work: Schema.optionalKey(Work),
  /** Disks and cards (`diskId`, `nicId`) of it that are being taken out: they are in the spec until the guest has let go of them. */
  leaving: Schema.optionalKey(Schema.Array(Schema.String)),
  /** It is being removed. */
  removing: Schema.optionalKey(Schema.Literal(true))
})
export type VmRecord = typeof VmRecord.Type

export type StoredVm = StateRecord<VmRecord>
export type Records = Collection<VmRecord>

export const open = openedOnce((state): Effect.Effect<Records> => state.collection("vm", VmRecord))

/**
 * Machines that a person stopped, and whose policy does not remember that over restarts of Ironwood, shall run again. One that
 * cannot be written stays stopped.
 */
export const forgetStops = Effect.fnUntraced(function* (records: Records) {
  const { records: found } = yield* records.partition
  for (const { name, value } of found) {
    if (value.desired === "running" || value.spec.restart.rememberStop) continue
    yield* Effect.ignore(
      records.update(name, (record) => {
        const { grace: _, ...rest } = record.value
        return { ...rest, desired: "running", completed: false }
      })
    )
  }
})

/** The record with this under way, or (nothing) nothing any more. */
export const withWork = (record: VmRecord, work: Work | undefined): VmRecord => {
  const { work: _, ...rest } = record
  return work === undefined ? rest : { ...rest, work }
}

/** The record with the life that a person has paused, or (nothing) with none. */
export const withPaused = (record: VmRecord, life: string | undefined): VmRecord => {
  const { paused: _, ...rest } = record
  return life === undefined ? rest : { ...rest, paused: life }
}

/** In the order in which they were made. */
export const byAge = (found: ReadonlyArray<StoredVm>): ReadonlyArray<StoredVm> =>
  found.toSorted((one, other) => one.createdAt - other.createdAt)

/** Whether its actor shall run. */
export const isWanted = ({ completed, desired }: VmRecord): boolean => desired === "running" && !completed

export const isRemoving = ({ value }: StoredVm): boolean => value.removing === true

/** Whom machines run as, by what is stored: also of those whose spec cannot be read any more. */
export const usersIn = (state: State["Service"]): Effect.Effect<Effect.Effect<ReadonlyArray<number>>> =>
  Effect.map(state.collection("vm", Schema.Struct({ user: Schema.Int })), ({ partition }) =>
    Effect.map(partition, ({ records }) => records.map(({ value }) => value.user))
  )
