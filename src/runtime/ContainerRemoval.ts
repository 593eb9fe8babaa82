/**
 * The removal of a container: forgotten by the desired state first, with the sandbox that was made for it alone; then its
 * actor, its process and its files go.
 *
 * Traps: from the commit on it is gone, whoever waits or goes away; what cannot be cleared away then goes at the next start
 * (`Reconcile.ts`). The name stays locked to the end: a new container of that name finds nothing of the old one.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import { State } from "../storage/State.ts"
import { refused } from "./ContainerError.ts"
import { ContainerLocks } from "./ContainerLocks.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import * as ContainerStatus from "./ContainerStatus.ts"
import { commands } from "./Lifecycle.ts"
import * as Records from "./Records.ts"
import { RuntimeSupervisor } from "./RuntimeSupervisor.ts"
import { Systems } from "./System.ts"

/** taproot takes 16 mounts and unmounts at once, and refuses more. */
const RELEASED_AT_ONCE = 4

/** One for all who remove: they share what may be released at once. */
export const make = Effect.gen(function* () {
  const state = yield* State
  const records = yield* Records.open(state)
  const locks = yield* ContainerLocks
  const runs = yield* ContainerRuns
  const runtime = yield* RuntimeSupervisor
  const systems = yield* Systems
  const { find, stateOf } = yield* ContainerStatus.make
  const releasing = Semaphore.makeUnsafe(RELEASED_AT_ONCE)

  const eraseFiles = (record: Records.ContainerRecord) =>
    systems.present(record.sandbox).pipe(
      Effect.flatMap(
        Option.match({
          onNone: () => Effect.void,
          onSome: ({ releaseRoot }) => releasing.withPermit(releaseRoot(record.spec.name))
        })
      ),
      Effect.ensuring(runs.erase(record))
    )

  /** A running one only with `force`: then it is killed without grace. */
  const remove = Effect.fnUntraced(
    function* (name: string, force: boolean) {
      const { value } = yield* find(name)
      const command = force ? "force-remove" : "remove"
      const present = yield* stateOf(value)
      if (commands[present][command] === "refuse") return yield* refused(name, command, present)
      const sandbox = yield* records.sandboxes.get(value.sandbox)
      const alone = Option.isSome(sandbox) && sandbox.value.value.implicit
      yield* Effect.catchTag(
        state.transaction([
          records.containers.removing(name),
          ...(alone ? [records.sandboxes.removing(value.sandbox)] : [])
        ]),
        // nothing is expected of them
        "StateConflict",
        Effect.die
      )
      yield* Effect.gen(function* () {
        yield* runs.hurry(name)
        yield* runtime.removeContainer(value)
        if (alone) yield* runtime.removeSandbox(value.sandbox)
        yield* Effect.flatMap(runs.ending(value), (ending) => runs.stop(value, ending))
        yield* eraseFiles(value)
      }).pipe(Effect.uninterruptible)
    },
    (effect, name) => locks.container(name)(effect)
  )
  return remove
})
export type Remove = Effect.Success<typeof make>
