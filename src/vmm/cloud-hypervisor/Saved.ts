/**
 * What Cloud Hypervisor has written of a machine, for another life of it: the configuration in it names descriptors of a process that
 * is gone, and disks by the names that they had. Everything else is believed, as it was written.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { ControlLost } from "../Hypervisor.ts"
import type { VmConfig } from "./Api.ts"

const Fields = Schema.Record(Schema.String, Schema.Unknown)
const Config = Schema.fromJsonString(Fields)
const Disks = Schema.Array(Schema.StructWithRest(Schema.Struct({ id: Schema.String }), [Fields]))

export interface Saved {
  /** The texts of its files. */
  readonly config: string
  readonly state: string
}

/**
 * The same for a life that was launched with `now`; `names` are what its disks are called there, in the order of the configuration. In
 * the state a disk is named wherever something of it is.
 */
export const forLife = Effect.fnUntraced(function* (saved: Saved, now: VmConfig, names: ReadonlyArray<string>) {
  const wrong = (detail: string) => new ControlLost({ command: "vm.restore", detail })
  const config = yield* Effect.mapError(Schema.decodeEffect(Config)(saved.config), ({ message }) => wrong(message))
  const disks = yield* Effect.mapError(Schema.decodeUnknownEffect(Disks)(config["disks"] ?? []), ({ message }) =>
    wrong(message)
  )
  let { state } = saved
  const moved = []
  for (const [index, disk] of disks.entries()) {
    const id = names[index]
    const path = (now.disks ?? []).find((one) => one.id === id)?.path
    if (id === undefined || path === undefined) return yield* wrong(`it has a disk ${disk.id}, and the machine has not`)
    if (id !== disk.id) state = state.replaceAll(disk.id, id)
    moved.push({ ...disk, id, path })
  }
  const { landlock_enable: _, landlock_rules: __, ...rest } = config
  const { landlock_enable, landlock_rules, payload } = now
  const next = {
    ...rest,
    payload,
    ...(landlock_enable === undefined ? {} : { landlock_enable }),
    ...(landlock_rules === undefined ? {} : { landlock_rules }),
    ...(moved.length === 0 ? {} : { disks: moved })
  }
  return { config: JSON.stringify(next), state }
})
