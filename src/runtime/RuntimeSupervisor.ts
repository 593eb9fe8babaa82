/**
 * The supervisor of all sandboxes: the `runtime` branch of the tree, and the handle on it.
 *
 * At every start it first clears away what should not be there (`Reconcile.ts`), then registers a supervisor per sandbox of
 * the desired state. When somebody wants the whole runtime gone, what was shared by all goes last: the cgroup above all
 * others.
 *
 * Trap: while it is down there is no tree to ask: nodes are unknown, starts are left to its next start. Commit first.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Actor from "../actor/Actor.ts"
import * as ActorPath from "../actor/ActorPath.ts"
import type { ChildSpec } from "../actor/ChildSpec.ts"
import * as DynamicSupervisor from "../actor/DynamicSupervisor.ts"
import type { RestartIntensityReached, SpecInvalid } from "../actor/Errors.ts"
import { Tree, type TreeEvent, type TreeNode } from "../actor/Tree.ts"
import type { Rootfs } from "../storage/Rootfs.ts"
import { State } from "../storage/State.ts"
import type { Processes } from "../taproot/Processes.ts"
import { Cgroups } from "../host/Cgroups.ts"
import { containerActor } from "./ContainerActor.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import type { Executions } from "./Executions.ts"
import type { OciRuntime } from "./OciRuntime.ts"
import { reconcile } from "./Reconcile.ts"
import * as Records from "./Records.ts"
import type { Secrets } from "./Secrets.ts"
import { sandboxActor, type SandboxSupervisor } from "./SandboxActor.ts"
import { MicroVms } from "./microvm/MicroVms.ts"
import { Systems } from "./System.ts"

/** What the branch stands on. */
export type Services =
  | ContainerRuns
  | Executions
  | Cgroups
  | MicroVms
  | OciRuntime
  | Rootfs
  | Processes
  | Secrets
  | Systems

export class RuntimeSupervisor extends Context.Service<
  RuntimeSupervisor,
  {
    /** To be put below the root `init`; its id is `runtime`. */
    readonly spec: ChildSpec<RestartIntensityReached | SpecInvalid, Services>
    /** The tree, while the supervisor runs. */
    readonly tree: Effect.Effect<Option.Option<Tree["Service"]>>
    /** The actor at a path, if it is there. */
    readonly node: (path: ActorPath.ActorPath) => Effect.Effect<TreeNode | undefined>
    /** Waits until the actor has come up, has failed to, waits for others, or is not there. */
    readonly settled: (path: ActorPath.ActorPath) => Effect.Effect<void>
    /** Waits until the actor waits for others. */
    readonly heldUp: (path: ActorPath.ActorPath) => Effect.Effect<void>
    /** Has a sandbox's supervisor started, with its containers. Fine when it is there or the runtime is down. */
    readonly startSandbox: (sandbox: Records.SandboxRecord) => Effect.Effect<void>
    /** Has a container's actor registered below its sandbox. Fine when it is there, or the sandbox is down. */
    readonly startContainer: (container: Records.ContainerRecord, sandbox: Records.SandboxRecord) => Effect.Effect<void>
    /** Ends a container's actor with its stop hooks, if it is there, and takes it out of the tree. */
    readonly removeContainer: (container: Records.ContainerRecord) => Effect.Effect<void>
    /** The same for a sandbox's, with all below it. */
    readonly removeSandbox: (sandbox: string) => Effect.Effect<void>
  }
>()("ironwood/runtime/RuntimeSupervisor") {}

/** Where the branch hangs. */
export const runtimePath = ActorPath.child(ActorPath.root("init"), "runtime")
export const sandboxPath = (sandbox: string) => ActorPath.child(runtimePath, sandbox)
export const containerPath = ({ sandbox, spec }: Records.ContainerRecord) =>
  ActorPath.child(sandboxPath(sandbox), spec.name)

/** Held up by others it may stay so for ever, which is an answer too. */
const isHeldUp = (node: TreeNode | undefined): boolean => node !== undefined && node.waitingFor.length > 0

const isSettled = (node: TreeNode | undefined): boolean =>
  node?.state !== "starting" && (node?.state !== "waiting" || isHeldUp(node))

const make = Effect.gen(function* () {
  const scope = yield* Effect.scope
  const records = yield* Records.open(yield* State)
  const sandboxes = new Map<string, SandboxSupervisor>()
  let tree = Option.none<Tree["Service"]>()
  /** A later start of the runtime in the same brain is no restart of Ironwood. */
  let begun = false

  /** Who waits for which actor. One watch serves them all: a hundred starts shall not mean a hundred watches. */
  const waiting = new Map<string, Deferred.Deferred<void>>()
  const wake = (path: string): void => {
    const waiters = waiting.get(path)
    waiting.delete(path)
    if (waiters !== undefined) Deferred.doneUnsafe(waiters, Effect.void)
  }
  const wakeAll = Effect.sync(() => [...waiting.keys()].forEach(wake))
  /** Who waits for an actor to be held up. */
  const held = new Set<{ readonly path: string; readonly tell: () => void }>()
  const tellHeld = (node: TreeNode): void => {
    if (held.size === 0 || !isHeldUp(node)) return
    for (const waiter of held) if (waiter.path === node.path) waiter.tell()
  }
  const hear = (event: TreeEvent): void => {
    if (event._tag === "Changed") tellHeld(event.node)
    if (event._tag === "Removed") wake(event.path)
    else if (event._tag === "Changed" && isSettled(event.node)) wake(event.node.path)
    // What happened before a new beginning is not told: everybody looks again.
    else if (event._tag === "Snapshot") [...waiting.keys()].forEach(wake)
  }

  const addSandbox = (record: Records.SandboxRecord) =>
    Effect.map(sandboxActor(record, records), (supervisor) => {
      sandboxes.set(record.spec.name, supervisor)
      return supervisor.spec
    })

  const supervisor = yield* DynamicSupervisor.make("runtime", {
    kind: "runtime",
    description: "sandboxes and their containers",
    children: Effect.gen(function* () {
      const { paths, quiet } = yield* ContainerRuns
      const cgroups = yield* Cgroups
      const microVms = yield* MicroVms
      yield* Actor.onStop(quiet.pipe(Effect.andThen(cgroups.remove(paths.cgroup)), Effect.andThen(microVms.forgetAll)))
      if (!begun) yield* Records.forgetStops(records)
      begun = true
      const desired = yield* records.sandboxes.partition
      const systems = yield* Systems
      for (const { value } of desired.records) {
        if (value.spec.isolation === "microvm") yield* systems.expect(value.spec.name)
      }
      yield* reconcile(records, scope)
      yield* cgroups.limitProcesses(paths.cgroup, systems.host.processLimits.all)
      const found = yield* Tree
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          tree = Option.some(found)
        }),
        () =>
          Effect.andThen(
            Effect.sync(() => {
              tree = Option.none()
            }),
            wakeAll
          )
      )
      yield* Effect.forkScoped(Stream.runForEach(found.watch(), (event) => Effect.sync(() => hear(event))))
      sandboxes.clear()
      return yield* Effect.forEach(Records.byAge(desired.records), ({ value }) => addSandbox(value))
    })
  })

  const node = (path: ActorPath.ActorPath): Effect.Effect<TreeNode | undefined> =>
    Effect.suspend(() =>
      Option.match(tree, {
        onNone: () => Effect.undefined,
        onSome: (found) => Effect.orElseSucceed(found.get(path), () => undefined)
      })
    )

  const remove = (path: ActorPath.ActorPath) =>
    Effect.suspend(() =>
      Option.match(tree, {
        onNone: () => Effect.void,
        onSome: (found) => Effect.ignore(Effect.andThen(found.stop(path), found.remove(path)))
      })
    )

  /** Desired state is committed: who is there already, or will start with a supervisor that is down, is all right. */
  const registered = <A, E>(start: Effect.Effect<A, E>) => Effect.ignore(start)

  return RuntimeSupervisor.of({
    spec: supervisor.spec,
    tree: Effect.sync(() => tree),
    node,
    settled: (path) =>
      Effect.gen(function* () {
        while (true) {
          const waiters = waiting.get(path) ?? Deferred.makeUnsafe<void>()
          waiting.set(path, waiters)
          if (isSettled(yield* node(path))) break
          yield* Deferred.await(waiters)
        }
        wake(path)
      }),
    heldUp: (path) =>
      Effect.raceFirst(
        Effect.callback<void>((resume) => {
          const waiter = { path, tell: () => resume(Effect.void) }
          held.add(waiter)
          return Effect.sync(() => held.delete(waiter))
        }),
        // It may be so already.
        Effect.flatMap(node(path), (found) => (isHeldUp(found) ? Effect.void : Effect.never))
      ),
    startSandbox: (sandbox) =>
      Effect.flatMap(addSandbox(sandbox), (spec) => registered(supervisor.startChild(spec, { wait: "acknowledged" }))),
    startContainer: (container, sandbox) =>
      Effect.suspend(() => {
        const above = sandboxes.get(container.sandbox)
        if (above === undefined) return Effect.void
        return registered(above.startChild(containerActor(container, sandbox, records), { wait: "registered" }))
      }),
    removeContainer: (container) => remove(containerPath(container)),
    removeSandbox: (sandbox) =>
      Effect.andThen(
        remove(sandboxPath(sandbox)),
        Effect.sync(() => sandboxes.delete(sandbox))
      )
  })
})

export const layer: Layer.Layer<RuntimeSupervisor, never, State> = Layer.effect(RuntimeSupervisor, make)
