/**
 * Who waits for whom, among the commands on containers and sandboxes. Not re-entrant; whoever takes both takes the sandbox's
 * first.
 *
 * Trap: held until the tree has been asked (a removal: up to its end), never over a stop's grace or a start's patience.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KeyedLock from "../storage/KeyedLock.ts"

type Lock = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

export class ContainerLocks extends Context.Service<
  ContainerLocks,
  {
    /** Of who looks at what a container is and commits what it shall be. */
    readonly container: (name: string) => Lock
    /** Of who makes or removes a sandbox, or puts a new container into it. */
    readonly sandbox: (name: string) => Lock
  }
>()("ironwood/runtime/ContainerLocks") {}

export const layer = Layer.sync(ContainerLocks, () => {
  const locks = KeyedLock.make()
  return {
    container: (name) => locks.withLock(`container/${name}`),
    sandbox: (name) => locks.withLock(`sandbox/${name}`)
  }
})
