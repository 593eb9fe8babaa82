/**
 * Every cell of the command table, driven: each command in each state of a container, on the real parts. What is done must
 * be what the table (`Lifecycle.ts`) says, cell by cell, and nothing else.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type * as Root from "../../src/actor/Root.ts"
import type { Container, Containers } from "../../src/runtime/Containers.ts"
import {
  type Action,
  type Command,
  commands,
  containerStates,
  type ContainerState
} from "../../src/runtime/Lifecycle.ts"
import { runtimePath, sandboxPath } from "../../src/runtime/RuntimeSupervisor.ts"
import { create, isAlive, logText, shell, until, withContainers } from "./world.ts"

/** A runtime that keeps a container in its start as long as there is a file of its name: crun behind a script. */
const slowRuntime = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = mkdtempSync(join(tmpdir(), "ironwood-slow-"))
    const path = join(directory, "slow-crun")
    const held = `"${directory}/held/\${last%.*}"`
    writeFileSync(path, `#!/bin/sh\nfor last; do :; done\nwhile [ -e ${held} ]; do sleep 0.02; done\nexec crun "$@"\n`)
    chmodSync(path, 0o755)
    mkdirSync(join(directory, "held"))
    const file = (name: string) => join(directory, "held", name)
    return {
      directory,
      path,
      hold: (name: string) => Effect.sync(() => writeFileSync(file(name), "")),
      letGo: (name: string) => Effect.sync(() => rmSync(file(name), { force: true }))
    }
  }),
  ({ directory }) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

interface World {
  readonly containers: Containers["Service"]
  readonly tree: Root.Root["tree"]
  readonly runtime: Effect.Success<typeof slowRuntime>
}

/** How a container gets into a state, how it goes on from there, and the actions that wait for that. */
interface State {
  readonly reach: (world: World, name: string) => Effect.Effect<unknown, unknown>
  readonly goOn?: (world: World, name: string, action: Action) => Effect.Effect<unknown, unknown>
  readonly waits?: ReadonlyArray<Action>
}

const polite = shell("trap 'echo got USR1' USR1; trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done")
/** Ends when it gets USR1, and not for TERM. */
const stubborn = shell("trap '' TERM; trap 'echo got USR1; exit 0' USR1; echo ready; while :; do sleep 0.02; done")
const hour = 3_600_000

const ready = ({ containers }: World, name: string) =>
  Effect.gen(function* () {
    while (!(yield* logText(containers, name)).includes("ready")) yield* Effect.sleep("5 millis")
  })

const running = (world: World, name: string) =>
  Effect.andThen(create(world.containers, { name, command: polite, stopGracePeriod: hour }), ready(world, name))

const ended = (command: string, restart: object) => (world: World, name: string) =>
  create(world.containers, { name, command: shell(command), restart }, false)

const states: Readonly<Record<ContainerState, State>> = {
  unregistered: {
    reach: (world, name) => Effect.andThen(running(world, name), world.tree.stop(runtimePath)),
    goOn: ({ tree }) => tree.start(runtimePath)
  },
  waiting: {
    reach: (world, name) => Effect.andThen(running(world, name), world.tree.stop(sandboxPath(name))),
    goOn: ({ tree }, name) => tree.start(sandboxPath(name)),
    waits: ["commit"]
  },
  starting: {
    reach: ({ containers, runtime }, name) =>
      Effect.andThen(runtime.hold(name), create(containers, { name, command: polite, stopGracePeriod: hour }, false)),
    // a restart has to come into its second start before that is let through
    goOn: ({ containers, runtime }, name, action) =>
      Effect.andThen(
        action === "restart" ? until(containers, name, ({ incarnation }) => incarnation === 2) : Effect.void,
        runtime.letGo(name)
      ),
    waits: ["commit", "restart"]
  },
  running: { reach: running },
  paused: { reach: (world, name) => Effect.andThen(running(world, name), world.containers.pause(name)) },
  "backing-off": { reach: ended("exit 1", { restart: "permanent", backoff: { initial: hour, max: hour } }) },
  stopping: {
    reach: (world, name) =>
      create(world.containers, { name, command: stubborn, stopGracePeriod: hour }).pipe(
        Effect.andThen(ready(world, name)),
        Effect.andThen(Effect.forkDetach(world.containers.stop(name)))
      ),
    goOn: ({ containers }, name) => containers.kill(name, "SIGUSR1"),
    waits: ["stop", "restart"]
  },
  stopped: { reach: (world, name) => Effect.andThen(running(world, name), world.containers.stop(name)) },
  parked: { reach: ended("exit 1", { restart: "permanent", maxConsecutive: 1, whenSpent: "park" }) },
  finished: { reach: ended("exit 0", { restart: "transient" }) },
  failed: { reach: ended("exit 1", { restart: "on-success" }) }
}

const order: ReadonlyArray<Command> = [
  "start",
  "stop",
  "restart",
  "kill",
  "exec",
  "attach",
  "pause",
  "resume",
  "update",
  "remove",
  "force-remove"
]

const give = ({ containers }: World, command: Command, name: string): Effect.Effect<unknown, unknown> => {
  switch (command) {
    case "start":
    case "stop":
    case "restart":
      return containers[command](name)
    case "kill":
      return containers.kill(name, "SIGUSR1")
    case "exec":
      return Effect.scoped(
        Effect.flatMap(
          containers.exec(name, { command: shell("kill -USR1 1"), environment: {}, stdin: false, detach: false }),
          ({ process }) => process.exit
        )
      )
    case "attach":
      return containers.attach(name)
    case "pause":
    case "resume":
      return containers[command](name)
    case "update":
      return containers.update(name, { memoryBytes: 33_554_432, pids: 77 })
    case "remove":
    case "force-remove":
      return containers.remove(name, { force: command === "force-remove" })
  }
}

/** What must be so when the command has answered. `before` is the container as it was found. */
const verify = Effect.fnUntraced(function* (
  { containers }: World,
  action: Action,
  command: Command,
  before: Container,
  error: unknown
) {
  const { name } = before
  if (action === "refuse") {
    assert.propertyVal(error, "_tag", "WrongState")
    assert.propertyVal(error, "state", before.state)
    assert.propertyVal(error, "command", command)
    const { desired, generation, incarnation, pid, state } = yield* containers.get(name)
    assert.deepStrictEqual(
      { desired, generation, incarnation, pid, state },
      {
        desired: before.desired,
        generation: before.generation,
        incarnation: before.incarnation,
        pid: before.pid,
        state: before.state
      }
    )
    return
  }
  assert.isUndefined(error)
  if (action === "remove" || action === "stop-and-remove") {
    assert.strictEqual((yield* Effect.flip(containers.get(name)))._tag, "ContainerNotFound")
    assert.isFalse(isAlive(before.pid))
    return
  }
  const after = yield* containers.get(name)
  if (action === "connect" || action === "keep" || action === "pause" || action === "resume") {
    const state = command === "pause" ? "paused" : command === "resume" ? "running" : before.state
    assert.deepStrictEqual([after.state, after.pid, after.generation], [state, before.pid, before.generation])
    return
  }
  if (command === "update") {
    assert.deepStrictEqual(after.spec.resources, { memoryBytes: 33_554_432, pids: 77 })
    if (action === "limit") {
      assert.deepStrictEqual([after.state, after.pid], [before.state, before.pid])
      const [{ memoryLimitBytes, pidsLimit } = {}] = Array.from(yield* containers.stats([name]))
      assert.deepStrictEqual([memoryLimitBytes, pidsLimit], [33_554_432, 77])
    }
    return
  }
  if (action === "signal" || action === "execute") {
    // a frozen one hears of it when it goes on
    if (before.state === "paused") yield* containers.resume(name)
    while (!(yield* logText(containers, name)).includes("got USR1")) yield* Effect.sleep("5 millis")
    assert.deepStrictEqual([after.desired, after.incarnation], [before.desired, before.incarnation])
    return
  }
  assert.strictEqual(after.desired, command === "stop" ? "stopped" : "running")
  const lives = after.incarnation - before.incarnation
  if (action === "stop") {
    assert.deepStrictEqual([after.state, after.pid, lives], ["stopped", undefined, 0])
    assert.isFalse(isAlive(before.pid))
  } else if (action === "commit") {
    // what was down goes on when its supervisor does; nothing else changes
    const follows = before.state === "waiting" || before.state === "unregistered"
    if (!follows) assert.deepStrictEqual([lives, after.pid === before.pid || before.pid === undefined], [0, true])
    const goesOn = before.state === "paused" ? "paused" : "running"
    const wanted = command === "stop" ? "stopped" : goesOn
    yield* until(containers, name, ({ state }) => state === wanted)
  } else {
    assert.strictEqual(lives, 1)
    if (before.pid !== undefined) assert.isFalse(isAlive(before.pid))
  }
})

/**
 * How many cells at once, each with a container of its own: only who stops the whole runtime needs it for itself, and one that is
 * held in its start keeps one of the few calls of the OCI runtime.
 */
const atOnce = (state: ContainerState): number => (state === "unregistered" ? 1 : state === "starting" ? 2 : 4)

describe("commands by state", () => {
  for (const state of containerStates) {
    it.live(`${state}: every command does what the table says`, () =>
      Effect.gen(function* () {
        const runtime = yield* slowRuntime
        yield* withContainers(
          ({ containers, root }) =>
            Effect.gen(function* () {
              const world = { containers, runtime, tree: root.tree }
              const cell = Effect.fnUntraced(function* (command: Command) {
                const action = commands[state][command]
                const name = `${state}-${command}`
                yield* states[state].reach(world, name)
                const before = yield* until(containers, name, (seen) => seen.state === state)
                const { goOn, waits = [] } = states[state]
                const proceed: Effect.Effect<unknown, unknown> = goOn?.(world, name, action) ?? Effect.void
                const fiber = yield* Effect.forkChild(Effect.result(give(world, command, name)))
                if (waits.includes(action)) yield* Effect.andThen(Effect.sleep("200 millis"), proceed)
                const answer = yield* Fiber.join(fiber)
                const follows = action === "commit" && !waits.includes(action)
                if (follows) yield* proceed
                const error = Result.isFailure(answer) ? answer.failure : undefined
                yield* verify(world, action, command, before, error)
                if (!follows) yield* Effect.ignore(proceed)
                yield* Effect.ignore(containers.remove(name, { force: true }))
              })
              yield* Effect.forEach(order, cell, { concurrency: atOnce(state), discard: true })
            }),
          { candidates: [runtime.path] }
        )
      }).pipe(Effect.scoped)
    )
  }
})
