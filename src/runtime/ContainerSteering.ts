/**
 * Commands that change what a container shall be from now on: start, stop, restart, another restart policy.
 *
 * Every one goes the same way: look up the record and the state, look into the table (`Lifecycle.ts`), commit what a person
 * wants from now on, ask the tree. Commands on one name take turns up to the point where the tree has been asked, so what is
 * committed last is what is done last; what takes long (a stop's grace) is waited for outside.
 *
 * Trap: a caller that goes away (its deadline has passed) takes nothing back: what was committed is done all the same.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { ActorPath } from "../actor/ActorPath.ts"
import type { RestartPolicy } from "../actor/RestartPolicy.ts"
import type { Tree } from "../actor/Tree.ts"
import { State } from "../storage/State.ts"
import { CLEARING } from "./ContainerActor.ts"
import { SpecInvalid } from "./ContainerError.ts"
import { ContainerLocks } from "./ContainerLocks.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import { ContainerSpec } from "./ContainerSpec.ts"
import * as ContainerStatus from "./ContainerStatus.ts"
import { fallbackProblems } from "./Dependencies.ts"
import { type Action, commands } from "./Lifecycle.ts"
import * as Records from "./Records.ts"
import * as RuntimeSupervisor from "./RuntimeSupervisor.ts"
import type { StopOptions } from "./StopOptions.ts"

/** What an action asks of the tree; the others are done without it. */
const requests: Readonly<Record<Action, (tree: Tree["Service"], path: ActorPath) => Effect.Effect<void, unknown>>> = {
  start: (tree, path) => tree.start(path),
  stop: (tree, path) => tree.stop(path),
  restart: (tree, path) => tree.restart(path),
  commit: () => Effect.void,
  signal: () => Effect.void,
  execute: () => Effect.void,
  connect: () => Effect.void,
  pause: () => Effect.void,
  resume: () => Effect.void,
  limit: () => Effect.void,
  keep: () => Effect.void,
  remove: () => Effect.void,
  "stop-and-remove": () => Effect.void,
  refuse: () => Effect.void
}

/** Its requests to the tree live as long as the scope. */
export const make = Effect.gen(function* () {
  const records = yield* Records.open(yield* State)
  const locks = yield* ContainerLocks
  const runs = yield* ContainerRuns
  const runtime = yield* RuntimeSupervisor.RuntimeSupervisor
  const { find, get, inSandbox, stateOf } = yield* ContainerStatus.make
  const scope = yield* Effect.scope

  /** Asks the tree, in a fiber of its own that no caller's end takes along. */
  const ask = (request: (tree: Tree["Service"]) => Effect.Effect<void, unknown>) =>
    Effect.flatMap(runtime.tree, (tree) =>
      Effect.forkIn(Option.isNone(tree) ? Effect.void : Effect.ignore(request(tree.value)), scope, {
        startImmediately: true
      })
    )

  /** Commits what is wanted from now on, asks, and waits for it outside the lock. */
  const steer = Effect.fnUntraced(function* (
    name: string,
    command: "start" | "stop" | "restart",
    options: StopOptions = {}
  ) {
    const desired = command === "stop" ? "stopped" : "running"
    const { fiber, path } = yield* locks.container(name)(
      Effect.gen(function* () {
        const { value } = yield* find(name)
        const path = RuntimeSupervisor.containerPath(value)
        const present = yield* stateOf(value)
        const action = commands[present][command]
        const otherwise = options.gracePeriod !== undefined || options.signal !== undefined
        // A plain stop has nothing to say about how one that is under way goes on.
        const keeps = command === "stop" && !otherwise
        const change = ({ ending, ...record }: Records.ContainerRecord): Records.ContainerRecord => ({
          ...record,
          desired,
          completed: false,
          ...(otherwise ? { ending: options } : keeps && ending !== undefined ? { ending } : {})
        })
        const changed = change(value)
        if (value.desired !== desired || value.completed || !Equal.equals(value.ending, changed.ending)) {
          yield* records.containers.update(name, (record) => change(record.value))
        }
        if (action !== "stop") return { path, fiber: yield* ask((tree) => requests[action](tree, path)) }
        if (present === "stopping" && otherwise) {
          yield* Effect.forkIn(
            Effect.flatMap(runs.ending(changed), (ending) => runs.stop(changed, ending)),
            scope
          )
        }
        const shutdown = options.gracePeriod && Duration.sum(options.gracePeriod, CLEARING)
        return { path, fiber: yield* ask((tree) => tree.stop(path, { shutdown })) }
      })
    )
    // Held up by others that it needs, it may not come up for as long as nobody helps them.
    yield* command === "stop" ? Fiber.join(fiber) : Effect.raceFirst(Fiber.join(fiber), runtime.heldUp(path))
    if (command !== "stop") yield* runtime.settled(path)
    return yield* get(name)
  })

  const setPolicy = Effect.fnUntraced(function* (name: string, policy: RestartPolicy) {
    yield* locks.container(name)(
      Effect.gen(function* () {
        const { value } = yield* find(name)
        const siblings = new Set((yield* inSandbox(value.sandbox)).map((sibling) => sibling.name))
        const problems = fallbackProblems(name, policy.fallback, siblings)
        if (problems.length > 0) return yield* new SpecInvalid({ what: "container", problems })
        const { restart: _, ...spec } = value.spec
        const changed = new ContainerSpec({ ...spec, restart: policy })
        yield* records.containers.update(name, (record) => ({ ...record.value, spec: changed }))
        yield* Effect.flatMap(
          ask((tree) => tree.setPolicy(RuntimeSupervisor.containerPath(value), policy)),
          Fiber.join
        )
      })
    )
    return yield* get(name)
  })

  return {
    start: (name: string) => steer(name, "start"),
    stop: (name: string, options?: StopOptions) => steer(name, "stop", options),
    restart: (name: string) => steer(name, "restart"),
    setPolicy
  }
})
export type ContainerSteering = Effect.Success<typeof make>
