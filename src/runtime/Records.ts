/**
 * The desired state of containers and sandboxes as it is stored (`State`): what was asked for, with what was found out when
 * it was.
 *
 * Traps: stored data; a field that is added later needs a default for decoding. `completed` is no wish but the memory that
 * the wish was fulfilled: a container that ran to its end and that its policy does not restart stays so over restarts of
 * brain and host.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import * as Schema from "effect/Schema"
import { Digest } from "../storage/Digest.ts"
import { type Collection, openedOnce, type StateRecord } from "../storage/State.ts"
import { ContainerSpec } from "./ContainerSpec.ts"
import { StopOptions } from "./StopOptions.ts"
import { WorkloadName } from "../storage/Workload.ts"
import { SandboxSpec } from "./SandboxSpec.ts"
import { SpecInvalid } from "./ContainerError.ts"
import * as UserRanges from "./UserRanges.ts"
import * as Users from "../vmm/Users.ts"

export const ContainerRecord = Schema.Struct({
  spec: ContainerSpec,
  /** The sandbox it runs in: the one it names, or its own. */
  sandbox: WorkloadName,
  /** What its image reference meant at creation, or when it was pulled; absent until then. */
  image: Schema.optionalKey(Digest),
  /** Of this container among all that ever had its name; what it writes is kept by it. */
  identity: Schema.optionalKey(Schema.String),
  /** What a person wants it to be. */
  desired: Schema.Literals(["running", "stopped"]),
  completed: Schema.Boolean,
  /** While stopped: how the person who asked for it wanted it done, where not as the spec says. */
  ending: Schema.optionalKey(StopOptions)
})
export type ContainerRecord = typeof ContainerRecord.Type

export const SandboxRecord = Schema.Struct({
  spec: SandboxSpec,
  /** Made for one container that named none, and removed with it. */
  implicit: Schema.Boolean,
  /** Whom the monitor of its microVM runs as: no two sandboxes the same. Absent until it has had one. */
  user: Schema.optionalKey(Schema.Int),
  /** With users of its own: the first of theirs on this host; see `UserRanges.ts`. */
  firstUser: Schema.optionalKey(Schema.Int),
  /** The ports of the host that its published ports have, where it left any of them to its host; see `PublishedPorts.ts`. */
  hostPorts: Schema.optionalKey(Schema.Array(Schema.Int))
})
export type SandboxRecord = typeof SandboxRecord.Type

export type StoredContainer = StateRecord<ContainerRecord>
export type StoredSandbox = StateRecord<SandboxRecord>

/** Both collections. */
export interface Records {
  readonly containers: Collection<ContainerRecord>
  readonly sandboxes: Collection<SandboxRecord>
}

export const open = openedOnce((state): Effect.Effect<Records> =>
  Effect.all({
    containers: state.collection("container", ContainerRecord),
    sandboxes: state.collection("sandbox", SandboxRecord)
  })
)

/**
 * Containers that a person stopped, and whose policy does not remember that over restarts of Ironwood, shall run again. Once
 * per brain, before anything of them is looked at. One that cannot be written stays stopped.
 */
export const forgetStops = Effect.fnUntraced(function* ({ containers }: Records) {
  const { records } = yield* containers.partition
  for (const { name, value } of records) {
    if (value.desired === "running" || value.spec.restart.rememberStop) continue
    yield* Effect.ignore(
      containers.update(name, ({ value: { identity, image, sandbox, spec } }) => ({
        spec,
        sandbox,
        ...(identity === undefined ? {} : { identity }),
        ...(image === undefined ? {} : { image }),
        desired: "running",
        completed: false
      }))
    )
  }
})

/** In the order in which they were made: that of their names is an accident, and another one than before a restart. */
export const byAge = <A>(records: ReadonlyArray<StateRecord<A>>): ReadonlyArray<StateRecord<A>> =>
  records.toSorted((one, other) => one.createdAt - other.createdAt)

/** Whether its actor shall run. */
export const isWanted = ({ completed, desired }: ContainerRecord): boolean => desired === "running" && !completed

/** Nobody looks for a free range before another has stored the one it has found. */
const turn = Semaphore.makeUnsafe(1)

/** Runs `store` with the range of users that a sandbox of this spec gets, from `start` on, while nobody else is given one. */
export const withRange = <A, E, R>(
  { sandboxes }: Pick<Records, "sandboxes">,
  start: number,
  spec: SandboxSpec,
  store: (range: Pick<SandboxRecord, "firstUser">) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | SpecInvalid, R> => {
  if (spec.userNamespace === "host") return store({})
  return turn.withPermit(
    Effect.gen(function* () {
      const { records } = yield* sandboxes.partition
      const taken = new Set(records.flatMap(({ value: { firstUser } }) => firstUser ?? []))
      const firstUser = UserRanges.lowestFree(taken, yield* Users.running, start)
      if (firstUser === undefined) {
        const problem = "every range of users of this host is given away: remove a sandbox that has one"
        return yield* new SpecInvalid({ what: "sandbox", problems: [{ field: "userNamespace", problem }] })
      }
      return yield* store({ firstUser })
    })
  )
}
