/**
 * Commands on the run that a container has at the moment: signals, freezing, limits, further programs, its processes, what
 * it uses. Where there is none, or the table (`Lifecycle.ts`) has the command refused, they fail with `WrongState`; `stats`
 * leaves it out.
 *
 * Trap: the next run knows nothing of it, but for `update`, which is for every state: it changes the run that is there, if
 * any, then what is wanted.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { State } from "../storage/State.ts"
import type { SignalName } from "../taproot/Signals.ts"
import { ControlFailed, refused, WrongState } from "./ContainerError.ts"
import type { RuntimeMissing } from "./ContainerExit.ts"
import { ContainerLocks } from "./ContainerLocks.ts"
import { ContainerRuns } from "./ContainerRuns.ts"
import { ContainerSpec, type Resources } from "./ContainerSpec.ts"
import * as ContainerStatus from "./ContainerStatus.ts"
import type { ExecSpec } from "./ExecSpec.ts"
import { Executions } from "./Executions.ts"
import { type Command, commands } from "./Lifecycle.ts"
import type { RuntimeFailed } from "./OciRuntime.ts"
import * as ProcessList from "./ProcessList.ts"
import * as Records from "./Records.ts"
import * as RuntimeSpec from "./RuntimeSpec.ts"

/** Fails as a person who gave the command reads it. */
const controlled = <A>(name: string, command: string, effect: Effect.Effect<A, RuntimeMissing | RuntimeFailed>) =>
  Effect.mapError(effect, (error) => {
    const detail = error._tag === "RuntimeFailed" && error.stderr !== "" ? error.stderr : error.message
    return new ControlFailed({ name, command, detail })
  })

export const make = Effect.gen(function* () {
  const records = yield* Records.open(yield* State)
  const executions = yield* Executions
  const locks = yield* ContainerLocks
  const runs = yield* ContainerRuns
  const { find, get, stateOf } = yield* ContainerStatus.make

  /** The present run, for a command that needs one. */
  const runFor = Effect.fnUntraced(function* (name: string, command: Command) {
    const { value } = yield* find(name)
    const present = yield* stateOf(value)
    const run = yield* runs.current(name)
    if (commands[present][command] === "refuse" || Option.isNone(run)) return yield* refused(name, command, present)
    return run.value
  })

  const setPaused = Effect.fnUntraced(function* (name: string, command: "pause" | "resume") {
    const run = yield* runFor(name, command)
    const paused = yield* runs.isPaused(name)
    if (paused !== (command === "pause")) yield* controlled(name, command, runs.setPaused(run, !paused))
    return yield* get(name)
  })

  const kill = Effect.fnUntraced(function* (name: string, signal: SignalName) {
    const { process } = yield* runFor(name, "kill")
    yield* process.signal(signal)
    return yield* get(name)
  })

  const update = Effect.fnUntraced(function* (name: string, change: Resources) {
    yield* locks.container(name)(
      Effect.gen(function* () {
        const { value } = yield* find(name)
        const resources = { ...value.spec.resources, ...change }
        const run = yield* runs.current(name)
        if (commands[yield* stateOf(value)].update === "limit" && Option.isSome(run)) {
          const { id, system } = run.value
          const limits = JSON.stringify(RuntimeSpec.limitsOf(resources, system.limitSwap))
          yield* controlled(name, "update", system.runtime.control("update", id, limits))
        }
        const { resources: _, ...spec } = value.spec
        const changed = new ContainerSpec({ ...spec, resources })
        yield* records.containers.update(name, (record) => ({ ...record.value, spec: changed }))
      }).pipe(Effect.uninterruptible)
    )
    return yield* get(name)
  })

  const top = Effect.fnUntraced(function* (name: string) {
    const { cgroup, system } = yield* Effect.catchTag(runFor(name, "attach"), "WrongState", ({ hint, state }) =>
      Effect.fail(new WrongState({ name, command: "look at the processes of", state, hint }))
    )
    const { value } = yield* find(name)
    const sandbox = yield* records.sandboxes.get(value.sandbox)
    const first = Option.match(sandbox, { onNone: () => undefined, onSome: (found) => found.value.firstUser })
    return yield* ProcessList.list(system.files, yield* system.cgroups.processes(cgroup), first)
  })

  const stats = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
    const wanted =
      names.length === 0
        ? (yield* records.containers.list).map((record) => record.name)
        : yield* Effect.forEach(names, (name) => Effect.map(find(name), (found) => found.name))
    const currents = yield* runs.currents
    const found = yield* Effect.forEach(
      wanted,
      Effect.fnUntraced(function* (name) {
        const run = currents.get(name)
        if (run === undefined) return []
        const time = yield* Clock.currentTimeNanos
        return [{ name, time, ...(yield* run.system.cgroups.stats(run.cgroup)) }]
      }),
      { concurrency: 4 }
    )
    return found.flat()
  })

  return {
    kill,
    pause: (name: string) => setPaused(name, "pause"),
    resume: (name: string) => setPaused(name, "resume"),
    update,
    top,
    stats,
    exec: (name: string, spec: ExecSpec) => Effect.flatMap(runFor(name, "exec"), (run) => executions.open(run, spec)),
    attach: (name: string) => runFor(name, "attach")
  }
})
