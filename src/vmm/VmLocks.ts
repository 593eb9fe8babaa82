/**
 * Who waits for whom, among the commands on virtual machines. Not re-entrant; taken in the order in which they stand here.
 *
 * Trap: a stop, a start and a removal wait for no work: a machine can be ended while a snapshot of it is being written.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KeyedLock from "../storage/KeyedLock.ts"

type Lock = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

export class VmLocks extends Context.Service<
  VmLocks,
  {
    /** Of who has something done to the life that a machine has, from its beginning to its end. */
    readonly work: (name: string) => Lock
    /** Of who looks at what is so and commits what shall be. */
    readonly record: (name: string) => Lock
    /** Of who makes a machine: no user and no disk is given away twice. */
    readonly creating: Lock
  }
>()("ironwood/vmm/VmLocks") {}

export const layer = Layer.sync(VmLocks, () => {
  const locks = KeyedLock.make()
  return {
    work: (name) => locks.withLock(`work/${name}`),
    record: (name) => locks.withLock(`vm/${name}`),
    creating: locks.withLock("create")
  }
})
