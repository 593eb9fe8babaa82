/**
 * The brain is killed at a step (`steps.ts`) of making a microVM with a container in it, and of removing it: the next brain has both of
 * them as they were wanted, or nothing is left, and asking again works.
 *
 * Each try boots a guest or two: without flags it is killed at one step of making one; with `IRONWOOD_BOOT=all` at every step.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import * as RuntimePaths from "../../../src/runtime/RuntimePaths.ts"
import * as EveryStep from "../../support/everyStep.ts"
import { eventually } from "../../support/eventually.ts"
import { ask, insist, killBrain, list, NoAnswer, type View, withBrain, type World } from "../livingBrain.ts"
import { shell } from "../world.ts"

interface Command {
  readonly before: (world: World, name: string) => Effect.Effect<unknown, unknown>
  readonly request: (name: string, world: World) => object
}

/** The monitors of a sandbox's machines. */
const machines = (name: string): ReadonlyArray<string> =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`\0guest=${name},`)
    } catch {
      return false
    }
  })

const traces = ({ state }: World, name: string): ReadonlyArray<string> => {
  const kept = join(state, "runtime/microvms")
  const cgroup = `/sys/fs/cgroup/memory${RuntimePaths.cgroupOf(state)}.microvms/${name}`
  return [
    ...machines(name).map((pid) => `monitor ${pid}`),
    ...(existsSync(kept) ? readdirSync(kept).filter((entry) => entry.split(".")[0] === name) : []),
    ...(existsSync(cgroup) ? [cgroup] : [])
  ]
}

const patiently = <A>(what: string, look: Effect.Effect<A | undefined, unknown>) =>
  Effect.gen(function* () {
    for (let tries = 0; tries < 1_200; tries++) {
      const found = yield* look
      if (found !== undefined) return found
      yield* Effect.sleep("100 millis")
    }
    assert.fail(`it did not happen in two minutes: ${what}`)
  })

/** Running, or gone. */
const settled = ({ state }: World, name: string) =>
  patiently(
    `${name} is as wanted`,
    Effect.map(list(state), (found): Option.Option<View> | undefined => {
      const view = found.find((one) => one.name === name)
      if (view === undefined) return Option.none()
      return view.state === "running" && view.pid !== undefined ? Option.some(view) : undefined
    })
  )

const made = (world: World, name: string) => {
  mkdirSync(join(world.state, "shared"), { recursive: true })
  const fields = { isolation: "microvm", microvm: { diskBytes: 64 * 1024 * 1024 } }
  return insist(world.state, { call: "sandbox", name, fields })
}
/** It shares a directory with the host, which is served by one process more. */
const create = (name: string, { state }: World) => {
  const mounts = [{ source: join(state, "shared"), target: "/shared" }]
  return { call: "create", name, fields: { sandbox: name, command: shell("sleep 100000"), mounts } }
}
const patience = "2 minutes"

const removed = (world: World, name: string) =>
  Effect.gen(function* () {
    yield* Effect.ignore(ask(world.state, { call: "removeSandbox", name })).pipe(Effect.timeout(patience))
    assert.isTrue(Option.isNone(yield* settled(world, name)))
    yield* eventually(`nothing is left of ${name}`, () => traces(world, name).length === 0).pipe(
      Effect.mapError((error) => `${error.message}: ${traces(world, name).join(", ")}`)
    )
  })

const commands: Readonly<Record<string, Command>> = {
  making: { before: made, request: create },
  ...(EveryStep.all
    ? {
        removing: {
          before: (world, name) =>
            Effect.andThen(made(world, name), Effect.timeout(ask(world.state, create(name, world)), patience)),
          request: (name) => ({ call: "removeSandbox", name })
        }
      }
    : {})
}

/** Asks once without a death; how many steps it had. */
const stepsOf = (command: Command, world: World) =>
  Effect.gen(function* () {
    const name = EveryStep.nameAt(0)
    yield* command.before(world, name)
    yield* insist(world.state, { call: "arm" })
    yield* Effect.timeout(ask(world.state, command.request(name, world)), patience)
    const steps = Number(yield* insist(world.state, { call: "steps" }))
    yield* removed(world, name)
    return steps
  })

const killAt = (command: Command, world: World, step: number) =>
  Effect.gen(function* () {
    const name = EveryStep.nameAt(step)
    yield* command.before(world, name)
    yield* insist(world.state, { call: "arm", at: step })
    const answer = yield* Effect.timeoutOption(Effect.option(ask(world.state, command.request(name, world))), patience)
    if (Option.isSome(Option.flatten(answer)) || Option.isNone(answer)) yield* killBrain(world.taproot)
    const view = yield* settled(world, name)
    // one machine that has it, or in time none
    if (Option.isSome(view)) assert.lengthOf(machines(name), 1)
    else
      yield* patiently(
        "no machine is left",
        Effect.sync(() => (machines(name).length === 0 ? true : undefined))
      )
    yield* removed(world, name)
  }).pipe(Effect.mapError((error) => new NoAnswer({ detail: `step ${step}: ${String(error)}` })))

const killEverywhere = (command: Command) =>
  EveryStep.killEverywhere(
    withBrain,
    (world) => Effect.map(stepsOf(command, world), (steps) => EveryStep.chosen(steps, 1)),
    (world, step) => killAt(command, world, step)
  )

describe("a brain that is killed at any step", () => {
  for (const [name, command] of Object.entries(commands)) {
    it.live(
      `of ${name} a microVM: all or nothing, and nothing is left`,
      () => killEverywhere(command),
      EveryStep.all ? 3_600_000 : 300_000
    )
  }
})
