/**
 * What a virtual machine shall be from now on, and what is done to the life that it has: the commands on one that is there.
 *
 * Every command goes the same way: look up the record and the state, look into the table (`Lifecycle.ts`), commit what a person
 * wants, ask the tree or the hypervisor.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { Tree } from "../actor/Tree.ts"
import { State } from "../storage/State.ts"
import { type Command, commands, hint, type VmState } from "./Lifecycle.ts"
import * as Records from "./Records.ts"
import { CLEARING } from "./VmActor.ts"
import { VmControlFailed, VmWrongState } from "./VmError.ts"
import { VmLocks } from "./VmLocks.ts"
import { VmRuns } from "./VmRuns.ts"
import type { VmStatus } from "./VmStatus.ts"
import * as VmSupervisor from "./VmSupervisor.ts"

/** What is asked goes on as long as the scope. */
export const make = Effect.fnUntraced(function* ({ find, get, stateOf }: VmStatus) {
  const records = yield* Records.open(yield* State)
  const { record: lock, work } = yield* VmLocks
  const runs = yield* VmRuns
  const supervisor = yield* VmSupervisor.VmSupervisor
  const scope = yield* Effect.scope

  /** Asks the tree, in a fiber of its own that no caller's end takes along. */
  const ask = (request: (tree: Tree["Service"]) => Effect.Effect<void, unknown>) =>
    Effect.flatMap(supervisor.tree, (tree) =>
      Effect.forkIn(Option.isNone(tree) ? Effect.void : Effect.ignore(request(tree.value)), scope, {
        startImmediately: true
      })
    )

  /** `start` and `stop`: commit what is wanted from now on, ask, and wait for it outside the lock. */
  const steer = (name: string, command: "start" | "stop", grace?: Duration.Duration) =>
    Effect.gen(function* () {
      const desired = command === "stop" ? "stopped" : "running"
      const fiber = yield* lock(name)(
        Effect.gen(function* () {
          const { value } = yield* find(name)
          const action = commands[yield* stateOf(name)][command]
          const change = ({ grace: before, ...record }: Records.VmRecord): Records.VmRecord => ({
            ...record,
            desired,
            completed: false,
            // A plain stop has nothing to say about how one that is under way goes on.
            ...(grace !== undefined ? { grace } : command === "stop" && before !== undefined ? { grace: before } : {})
          })
          const changed = change(value)
          if (value.desired !== desired || value.completed || !Equal.equals(value.grace, changed.grace)) {
            yield* records.update(name, (record) => change(record.value))
          }
          const path = VmSupervisor.vmPath(name)
          const shutdown = Duration.sum(changed.grace ?? changed.spec.stopGracePeriod, CLEARING)
          return yield* ask((tree) =>
            action === "start"
              ? tree.start(path)
              : action === "restart"
                ? tree.restart(path)
                : action === "stop"
                  ? tree.stop(path, { shutdown })
                  : Effect.void
          )
        })
      )
      yield* Fiber.join(fiber)
      if (command === "start") yield* supervisor.settled(name)
      return yield* get(name)
    })

  const refuse = (name: string, command: Command, present: VmState) =>
    new VmWrongState({
      name,
      command: command === "force-remove" ? "remove" : command,
      state: present,
      hint: hint(command)
    })

  /** The present life, for a command that needs one. */
  const runFor = Effect.fnUntraced(function* (name: string, command: Command) {
    yield* find(name)
    const present = yield* stateOf(name)
    const run = yield* runs.current(name)
    if (commands[present][command] === "refuse" || Option.isNone(run)) return yield* refuse(name, command, present)
    return run.value
  })

  /** Commits that a life is paused, or (no label) that none is. */
  const remember = (name: string, paused: string | undefined) =>
    records.update(name, ({ value }) => Records.withPaused(value, paused))

  /** `reset`, `pause` and `resume`: asked of its hypervisor, and what became of it looked at by whoever follows it. */
  const control = (name: string, command: "reset" | "pause" | "resume") =>
    Effect.gen(function* () {
      const { hold, process } = yield* runFor(name, command)
      yield* Effect.gen(function* () {
        // The table is asked about what is, not about what was seen last. Only one that was seen to stand still does so until
        // somebody lets it go on, or says itself that it cannot.
        const standsStill = commands[yield* stateOf(name)][command] === "resume"
        const seen = standsStill ? hold.seen() : yield* hold.look
        const present = yield* stateOf(name)
        const action = commands[present][command]
        if (action === "refuse") return yield* refuse(name, command, present)
        if (action === "keep") return
        const held = yield* hold.get
        if (action === "resume") {
          // neither waits for the other: one that goes on with the mark, or stands still without it, is what it seems to be
          return yield* Effect.all([hold.goOn, remember(name, undefined)], { concurrency: "unbounded", discard: true })
        }
        // Committed before it is done: after a reset its hypervisor does not tell one that is paused from a new one.
        if (action === "pause" || seen === "paused") yield* remember(name, process.label)
        if (action === "pause") yield* held.pause
        if (action === "reset") yield* held.reset
        yield* action === "reset" && seen === "stalled" ? hold.goOn : hold.look
      }).pipe(Effect.catchTag("ControlLost", ({ detail }) => new VmControlFailed({ name, command, detail })))
      return yield* get(name)
    }).pipe(work(name))

  return { ask, control, refuse, runFor, steer }
})
