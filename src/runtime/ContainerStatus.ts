/**
 * What is said about containers and sandboxes: the desired state as it is stored (`Records.ts`), put together with what the
 * tree knows of their actors. Reads only; keeps nothing, so whoever needs one makes one.
 *
 * Trap: record and node are read one after the other: an answer may show a wish that the actor has not followed yet.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { failuresInARow, type TreeNode } from "../actor/Tree.ts"
import { State } from "../storage/State.ts"
import { ContainerNotFound, SandboxNotFound } from "./ContainerError.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import type { Container, Sandbox, StateError } from "./Containers.ts"
import type { ContainerState } from "./Lifecycle.ts"
import { portsOf } from "./PublishedPorts.ts"
import * as Records from "./Records.ts"
import * as RuntimeSupervisor from "./RuntimeSupervisor.ts"

export const make = Effect.gen(function* () {
  const records = yield* Records.open(yield* State)
  const runs = yield* ContainerRuns
  const runtime = yield* RuntimeSupervisor.RuntimeSupervisor

  const stateWith = ({ spec }: Records.ContainerRecord, node: TreeNode | undefined): Effect.Effect<ContainerState> =>
    node?.state === "running"
      ? Effect.map(runs.isPaused(spec.name), (paused) => (paused ? "paused" : "running"))
      : Effect.succeed(node?.state ?? "unregistered")

  /** What a command finds it in. */
  const stateOf = (record: Records.ContainerRecord): Effect.Effect<ContainerState> =>
    Effect.flatMap(runtime.node(RuntimeSupervisor.containerPath(record)), (node) => stateWith(record, node))

  const describe = Effect.fnUntraced(function* (record: Records.StoredContainer): Effect.fn.Return<Container> {
    const { value } = record
    const path = RuntimeSupervisor.containerPath(value)
    const node = yield* runtime.node(path)
    const running = node?.state === "running" || node?.state === "stopping"
    // one that does not decode is told of by others
    const sandbox = Option.flatten(yield* Effect.option(records.sandboxes.get(value.sandbox)))
    const pid = Number(node?.annotations["pid"] ?? 0)
    return {
      name: record.name,
      uid: record.uid,
      generation: record.generation,
      createdAt: record.createdAt,
      updatedAt: record.updatedAt,
      spec: value.spec,
      sandbox: value.sandbox,
      ports: Option.match(sandbox, { onNone: () => [], onSome: (found) => portsOf(found.value) }),
      image: value.image,
      path,
      desired: value.desired,
      state: yield* stateWith(value, node),
      pid: running && pid > 0 ? pid : undefined,
      ready: running ? node?.annotations["ready"] : undefined,
      incarnation: node?.incarnation ?? 0,
      restarts: node?.restarts ?? 0,
      consecutiveFailures: node === undefined ? 0 : failuresInARow(node, yield* Clock.currentTimeMillis),
      startedAt: node?.startedAt,
      lastExit: node?.lastExit,
      nextAttemptAt: node?.nextAttemptAt,
      node
    }
  })

  const find = (name: string): Effect.Effect<Records.StoredContainer, ContainerNotFound | StateError> =>
    Effect.flatMap(
      records.containers.get(name),
      Option.match({
        onNone: () => Effect.fail(new ContainerNotFound({ name })),
        onSome: (found) => Effect.succeed(found)
      })
    )

  /** The containers of a sandbox. */
  const inSandbox = (sandbox: string) =>
    Effect.map(records.containers.partition, (containers) =>
      containers.records.filter(({ value }) => value.sandbox === sandbox)
    )

  const describeSandbox = Effect.fnUntraced(function* (record: Records.StoredSandbox): Effect.fn.Return<Sandbox> {
    const path = RuntimeSupervisor.sandboxPath(record.name)
    return {
      name: record.name,
      uid: record.uid,
      generation: record.generation,
      createdAt: record.createdAt,
      updatedAt: record.updatedAt,
      spec: record.value.spec,
      implicit: record.value.implicit,
      firstUser: record.value.firstUser,
      ports: portsOf(record.value),
      path,
      containers: (yield* inSandbox(record.name)).map(({ name }) => name),
      node: yield* runtime.node(path)
    }
  })

  const findSandbox = (name: string): Effect.Effect<Records.StoredSandbox, SandboxNotFound | StateError> =>
    Effect.flatMap(
      records.sandboxes.get(name),
      Option.match({
        onNone: () => Effect.fail(new SandboxNotFound({ name })),
        onSome: (found) => Effect.succeed(found)
      })
    )

  return {
    stateOf,
    find,
    describe,
    get: (name: string) => Effect.flatMap(find(name), describe),
    inSandbox,
    findSandbox,
    describeSandbox,
    getSandbox: (name: string) => Effect.flatMap(findSandbox(name), describeSandbox)
  }
})
