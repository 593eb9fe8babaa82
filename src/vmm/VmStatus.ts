/**
 * What is said about virtual machines: the desired state as it is stored (`Records.ts`), put together with what the tree knows of
 * their actors and what was seen of their guests. Reads only; keeps nothing, so whoever needs one makes one.
 *
 * Trap: record and node are read one after the other: an answer may show a wish that the actor has not followed yet.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import { failuresInARow, type TreeNode } from "../actor/Tree.ts"
import { State } from "../storage/State.ts"
import type { VmState } from "./Lifecycle.ts"
import * as Records from "./Records.ts"
import { VmNotFound } from "./VmError.ts"
import { VmRuns } from "./VmRuns.ts"
import type { StateError, Vm } from "./Vms.ts"
import * as VmSupervisor from "./VmSupervisor.ts"

interface Standing {
  readonly state: VmState
  readonly since: number | undefined
}

export const make = Effect.gen(function* () {
  const records = yield* Records.open(yield* State)
  const runs = yield* VmRuns
  const supervisor = yield* VmSupervisor.VmSupervisor

  const standing = (name: string, node: TreeNode | undefined): Effect.Effect<Standing> =>
    node?.state === "running"
      ? Effect.map(runs.current(name), (run) => {
          const hold = Option.getOrUndefined(run)?.hold
          const seen = hold?.seen()
          return {
            state: seen === "paused" || seen === "stalled" ? seen : "running",
            since: hold?.seenSince() ?? node.since
          }
        })
      : Effect.succeed({ state: node?.state ?? "unregistered", since: node?.since })

  const describe = Effect.fnUntraced(function* (record: Records.StoredVm): Effect.fn.Return<Vm> {
    const { name, value } = record
    const node = yield* supervisor.node(name)
    const running = node?.state === "running" || node?.state === "stopping"
    const pid = Number(node?.annotations["pid"] ?? 0)
    return {
      name,
      uid: record.uid,
      generation: record.generation,
      createdAt: record.createdAt,
      spec: value.spec,
      path: VmSupervisor.vmPath(name),
      desired: value.desired,
      ...(yield* standing(name, node)),
      pid: running && pid > 0 ? pid : undefined,
      hypervisor: node?.annotations["hypervisor"],
      incarnation: node?.incarnation ?? 0,
      restarts: node?.restarts ?? 0,
      reboots: Number(node?.annotations["reboots"] ?? 0),
      consecutiveFailures: node === undefined ? 0 : failuresInARow(node, yield* Clock.currentTimeMillis),
      startedAt: node?.startedAt,
      lastExit: node?.lastExit,
      nextAttemptAt: node?.nextAttemptAt,
      node
    }
  })

  const find = (name: string): Effect.Effect<Records.StoredVm, VmNotFound | StateError> =>
    Effect.flatMap(
      Effect.map(records.get(name), Option.filter(Predicate.not(Records.isRemoving))),
      Option.match({ onNone: () => Effect.fail(new VmNotFound({ name })), onSome: (found) => Effect.succeed(found) })
    )

  const get = (name: string) => Effect.flatMap(find(name), describe)
  const stateOf = (name: string) =>
    Effect.map(
      Effect.flatMap(supervisor.node(name), (node) => standing(name, node)),
      ({ state }) => state
    )

  return { describe, find, get, stateOf }
})
export type VmStatus = Effect.Success<typeof make>
