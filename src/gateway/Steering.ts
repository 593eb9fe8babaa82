/**
 * What a person does to an actor: start, stop, restart, another policy.
 *
 * What he wants of a container, a sandbox or a virtual machine is desired state: it goes through the service that commits it
 * first, so that it holds over restarts of brain and host. Any other actor is steered by the tree alone, and is as its
 * supervisor has it after the next start of the brain.
 *
 * Traps:
 * - A stop of a sandbox stops its containers: those are what can be wanted down. Its own actor stays, with network and cgroup.
 * - A sandbox has no policy that would be kept; that of its actor is changed in the tree.
 */
import * as Effect from "effect/Effect"
import * as Path from "../actor/ActorPath.ts"
import * as Lifecycle from "../actor/Lifecycle.ts"
import type { RestartPolicy } from "../actor/RestartPolicy.ts"
import { Tree, type TreeNode } from "../actor/Tree.ts"
import { Containers } from "../runtime/Containers.ts"
import { Vms } from "../vmm/Vms.ts"
import { setPolicy as setContainerPolicy } from "./ContainerMessages.ts"

/** Starts it in the tree; fine when it is up. */
const startActor = ({ path }: TreeNode) =>
  Effect.flatMap(Tree, (tree) => Effect.catchTag(tree.start(path), "AlreadyStarted", () => Effect.void))

export const start = Effect.fnUntraced(function* (node: TreeNode) {
  const name = Path.id(node.path)
  switch (node.kind) {
    case "container":
      return yield* Effect.asVoid((yield* Containers).start(name))
    case "sandbox":
      yield* startActor(node)
      return yield* Effect.asVoid((yield* Containers).startSandbox(name))
    case "vm":
      return yield* Effect.asVoid((yield* Vms).start(name))
    default:
      return yield* startActor(node)
  }
})

export const stop = Effect.fnUntraced(function* ({ kind, path }: TreeNode) {
  const name = Path.id(path)
  switch (kind) {
    case "container":
      return yield* Effect.asVoid((yield* Containers).stop(name))
    case "sandbox":
      return yield* Effect.asVoid((yield* Containers).stopSandbox(name))
    case "vm":
      return yield* Effect.asVoid((yield* Vms).stop(name))
    default:
      return yield* (yield* Tree).stop(path)
  }
})

export const restart = Effect.fnUntraced(function* ({ kind, path, state, type }: TreeNode) {
  const name = Path.id(path)
  const tree = yield* Tree
  switch (kind) {
    case "container":
      return yield* Effect.asVoid((yield* Containers).restart(name))
    case "vm":
      // One that is down, or backs off, is only started; one that runs is wanted up before it ends.
      yield* (yield* Vms).start(name)
      return Lifecycle.isAlive(state) ? yield* tree.restart(path) : undefined
    default:
      // What a supervisor manages is adopted again: restarting `runtime` must not kill every container.
      return yield* tree.restart(path, { ending: type === "supervisor" ? "release" : "stop" })
  }
})

/** Another policy from its next end on. */
export const setPolicy = Effect.fnUntraced(function* ({ kind, path }: TreeNode, policy: RestartPolicy) {
  const name = Path.id(path)
  switch (kind) {
    case "container":
      return yield* Effect.asVoid(setContainerPolicy(name, policy))
    case "vm":
      return yield* Effect.asVoid((yield* Vms).setPolicy(name, policy))
    default:
      return yield* (yield* Tree).setPolicy(path, policy)
  }
})
