/**
 * The brain is killed at a step (`../runtime/steps.ts`) of what a person asks of a virtual machine: create, start, hot-plug, snapshot,
 * restore, clone, migrate, remove. What was acknowledged holds; what was not is there as a whole or not at all: one hypervisor, one
 * cgroup, no file half written; nothing is left of what is gone, and asking again works.
 *
 * Without flags it is killed at a few steps of each, spread over all of them; with `IRONWOOD_BOOT=all` at every step.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"
import { fromMounts, parseMountInfo } from "../../src/host/CgroupLayout.ts"
import { ask, insist, killBrain, NoAnswer, startTaproot, type World } from "../runtime/livingBrain.ts"
import * as EveryStep from "../support/everyStep.ts"
import { eventually } from "../support/eventually.ts"
import { processesWith } from "../support/ironwood.ts"
import { leftovers, stateDirectory } from "./world.ts"

const View = Schema.Struct({
  name: Schema.String,
  state: Schema.String,
  desired: Schema.String,
  pid: Schema.optionalKey(Schema.Int),
  incarnation: Schema.Int,
  restarts: Schema.Int,
  disks: Schema.Int
})
type View = typeof View.Type
const decodeViews = Schema.decodeUnknownEffect(Schema.Array(View))
const decodeView = Schema.decodeUnknownEffect(View)
const decodeSnapshots = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ snapshot: Schema.String })))

interface Command {
  /** Steps without the flag. */
  readonly sample: number
  readonly before: (world: World, name: string) => Effect.Effect<View | undefined, unknown>
  readonly request: (world: World, name: string) => object
  /** Once the next brain answers: everything, or nothing; `acknowledged`: everything. `was`: what `before` gave. */
  readonly verify: (
    world: World,
    name: string,
    acknowledged: boolean,
    was: View | undefined
  ) => Effect.Effect<void, unknown>
}

const find = ({ state }: World, name: string) =>
  Effect.map(Effect.flatMap(insist(state, { call: "list" }), decodeViews), (found) =>
    found.find((view) => view.name === name)
  )

const processesOf = (name: string) => processesWith(`guest=${name},`)

const cgroupsOf = ({ state }: World, name: string): ReadonlyArray<string> => {
  const isIts = (entry: string) => new RegExp(`^${name}-\\d+(\\.\\d+)?$`).test(entry)
  const found = new Set<string>()
  for (const { mountPoint } of fromMounts(parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8"))).hierarchies) {
    const path = `${mountPoint}/${basename(state)}`
    if (existsSync(path)) for (const entry of readdirSync(path)) if (isIts(entry)) found.add(entry)
  }
  return [...found]
}

const entriesOf = (...path: ReadonlyArray<string>): ReadonlyArray<string> =>
  existsSync(join(...path)) ? readdirSync(join(...path)) : []

const diskOf = ({ state }: World, name: string) => join(state, `${name}.img`)

/** What should be on no host: whatever it is in the midst of. */
const halves = ({ state }: World, name: string): ReadonlyArray<string> => [
  ...entriesOf(state).filter((entry) => entry.includes(".restore")),
  ...entriesOf(state, "vm/snapshots", name).filter((entry) => entry.startsWith("."))
]

/** What a machine has left, in words. */
const traces = (world: World, name: string): ReadonlyArray<string> => [
  ...processesOf(name).map((pid) => `process ${pid}`),
  ...cgroupsOf(world, name).map((cgroup) => `cgroup ${cgroup}`),
  ...["machines", "consoles", "snapshots"].filter((place) => existsSync(join(world.state, "vm", place, name))),
  ...halves(world, name)
]

const gone = (world: World, name: string) =>
  Effect.gen(function* () {
    assert.isUndefined(yield* find(world, name))
    yield* eventually(`nothing is left of ${name}`, () => traces(world, name).length === 0).pipe(
      Effect.mapError((error) => `${error.message}: ${traces(world, name).join(", ")}`)
    )
  })

/** What is wrong with a machine that should run; empty: it runs, once, and nothing else is there of it. */
const wrong = (world: World, name: string, view: View | undefined): string => {
  const [pids, cgroups] = [processesOf(name), cgroupsOf(world, name)]
  const lives = entriesOf(world.state, "vm/machines", name).filter((entry) => entry.startsWith("life-"))
  return [
    ...(view?.state === "running" ? [] : [`it is ${view?.state}`]),
    ...(pids.length === 1 && pids[0] === view?.pid ? [] : [`processes ${pids.join()}, and it has ${view?.pid}`]),
    ...(cgroups.length === 1 ? [] : [`cgroups ${cgroups.join()}`]),
    ...(lives.length < 2 ? [] : [`directories ${lives.join()}`]),
    ...halves(world, name)
  ].join("; ")
}

const runs = (world: World, name: string): Effect.Effect<View, unknown> =>
  Effect.gen(function* () {
    let view: View | undefined
    for (let tries = 0; tries < 600; tries++) {
      view = yield* find(world, name)
      if (view !== undefined && wrong(world, name, view) === "") return view
      yield* Effect.sleep("25 millis")
    }
    return assert.fail(`${name} does not become whole: ${wrong(world, name, view)}`)
  })

const remove = (world: World, name: string) =>
  Effect.gen(function* () {
    if ((yield* find(world, name)) !== undefined) yield* insist(world.state, { call: "remove", name })
    yield* gone(world, name)
  })

const small = { memoryBytes: 64 * 1024 ** 2, commandLine: "console=ttyS0 guest.do=deaf" }
const diskAt = (path: string) => {
  if (!existsSync(path)) writeFileSync(path, "")
  truncateSync(path, 4 * 1024 ** 2)
  return { path }
}
const create = (world: World, name: string, fields = {}) => ({
  call: "create",
  name,
  fields: { ...small, disks: [diskAt(diskOf(world, name))], ...fields }
})
const created = (world: World, name: string, fields = {}) =>
  Effect.flatMap(insist(world.state, create(world, name, fields)), decodeView)

const snapshotsOf = ({ state }: World, name: string) =>
  Effect.map(Effect.flatMap(insist(state, { call: "snapshots", name }), decodeSnapshots), (found) =>
    found.map(({ snapshot }) => snapshot)
  )
const withSnapshot = (world: World, name: string) =>
  Effect.tap(created(world, name), () => insist(world.state, { call: "snapshot", name }))

const commands: Readonly<Record<string, Command>> = {
  "create and start": {
    sample: 2,
    before: () => Effect.undefined,
    request: create,
    verify: (world, name, acknowledged) =>
      Effect.gen(function* () {
        const view = yield* find(world, name)
        if (acknowledged) assert.isDefined(view)
        if (view === undefined) yield* gone(world, name)
        // the same again is made, or is there
        yield* insist(world.state, create(world, name))
        yield* runs(world, name)
      })
  },
  start: {
    sample: 1,
    before: (world, name) => Effect.tap(created(world, name), () => insist(world.state, { call: "stop", name })),
    request: (_world, name) => ({ call: "start", name }),
    verify: (world, name, acknowledged) =>
      Effect.gen(function* () {
        const view = yield* find(world, name)
        if (acknowledged) assert.strictEqual(view?.desired, "running")
        if (view?.desired === "stopped") assert.deepStrictEqual(processesOf(name), [])
        else yield* runs(world, name)
      })
  },
  "hot-plug": {
    sample: 1,
    before: (world, name) => created(world, name, { chipset: "q35" }),
    request: (world, name) => ({ call: "attach", name, fields: diskAt(join(world.state, `${name}-2.img`)) }),
    verify: (world, name, acknowledged, was) =>
      Effect.gen(function* () {
        const view = yield* runs(world, name)
        assert.strictEqual(view.pid, was?.pid)
        if (acknowledged) assert.strictEqual(view.disks, 2)
        yield* insist(world.state, { call: "attach", name, fields: diskAt(join(world.state, `${name}-2.img`)) })
        assert.strictEqual((yield* runs(world, name)).disks, 2)
      })
  },
  snapshot: {
    sample: 1,
    before: created,
    request: (_world, name) => ({ call: "snapshot", name }),
    verify: (world, name, acknowledged, was) =>
      Effect.gen(function* () {
        const view = yield* runs(world, name)
        assert.strictEqual(view.pid, was?.pid, "it has gone on")
        const there = yield* snapshotsOf(world, name)
        if (acknowledged) assert.deepStrictEqual(there, ["good"])
        if (there.length === 0) yield* insist(world.state, { call: "snapshot", name })
        // which checks it
        yield* insist(world.state, { call: "restore", name })
        yield* runs(world, name)
      })
  },
  restore: {
    sample: 2,
    before: withSnapshot,
    request: (_world, name) => ({ call: "restore", name }),
    verify: (world, name, acknowledged, was) =>
      Effect.gen(function* () {
        const view = yield* runs(world, name)
        if (acknowledged) assert.notStrictEqual(view.pid, was?.pid)
        assert.deepStrictEqual(yield* snapshotsOf(world, name), ["good"])
        yield* insist(world.state, { call: "restore", name })
        yield* runs(world, name)
      })
  },
  clone: {
    sample: 1,
    before: withSnapshot,
    request: (_world, name) => ({ call: "clone", name }),
    verify: (world, name, acknowledged, was) =>
      Effect.gen(function* () {
        const [clone, disk] = [`${name}-clone`, join(world.state, `${name}-clone-${name}.img`)]
        assert.strictEqual((yield* runs(world, name)).pid, was?.pid)
        const view = yield* find(world, clone)
        if (acknowledged) assert.isDefined(view)
        if (view === undefined) {
          yield* gone(world, clone)
          assert.isFalse(existsSync(disk), "its disk is gone")
        } else yield* runs(world, clone)
        if (view !== undefined) yield* remove(world, clone)
      })
  },
  migrate: {
    sample: 2,
    before: created,
    request: (_world, name) => ({ call: "migrate", name }),
    verify: (world, name, acknowledged, was) =>
      Effect.gen(function* () {
        const view = yield* runs(world, name)
        if (acknowledged) assert.notStrictEqual(view.pid, was?.pid)
        assert.deepStrictEqual([view.restarts], [0], "whoever runs now has the first one's memory")
        yield* insist(world.state, { call: "migrate", name })
        yield* runs(world, name)
      })
  },
  remove: {
    sample: 1,
    before: withSnapshot,
    request: (_world, name) => ({ call: "remove", name }),
    verify: (world, name, acknowledged) =>
      Effect.gen(function* () {
        const view = yield* find(world, name)
        if (acknowledged) assert.isUndefined(view)
        yield* view === undefined ? gone(world, name) : runs(world, name)
      })
  }
}

/** How many steps it has, done once without a death. */
const stepsOf = (command: Command, world: World) =>
  Effect.gen(function* () {
    const name = EveryStep.nameAt(0)
    const was = yield* command.before(world, name)
    yield* insist(world.state, { call: "arm" })
    yield* ask(world.state, command.request(world, name))
    const steps = Number(yield* insist(world.state, { call: "steps" }))
    yield* command.verify(world, name, true, was)
    yield* remove(world, name)
    return steps
  })

const killAt = (command: Command, world: World, step: number) =>
  Effect.gen(function* () {
    const name = EveryStep.nameAt(step)
    const was = yield* command.before(world, name)
    yield* insist(world.state, { call: "arm", at: step })
    const answer = yield* Effect.option(ask(world.state, command.request(world, name)))
    // one that had fewer steps than the last time is not killed by itself
    if (answer._tag === "Some") yield* killBrain(world.taproot)
    yield* command.verify(world, name, answer._tag === "Some", was)
    yield* remove(world, name)
  }).pipe(Effect.mapError((error) => new NoAnswer({ detail: `step ${step}: ${String(error)}` })))

const brainFile = fileURLToPath(new URL("brain.ts", import.meta.url))

const withBrain = <A>(use: (world: World) => Effect.Effect<A, unknown>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const state = yield* stateDirectory
      yield* Effect.addFinalizer(() => Effect.sync(() => assert.deepStrictEqual(leftovers(state), [])))
      const taproot = yield* startTaproot(state, brainFile)
      return yield* use({ state, taproot })
    })
  )

const killEverywhere = (command: Command) =>
  EveryStep.killEverywhere(
    withBrain,
    (world) => Effect.map(stepsOf(command, world), (steps) => EveryStep.chosen(steps, command.sample)),
    (world, step) => killAt(command, world, step)
  )

const time = EveryStep.all ? 3_600_000 : 120_000

describe("a brain that is killed at any step", () => {
  for (const [name, command] of Object.entries(commands)) {
    it.live(`of ${name}: one machine, whole, or nothing of it`, () => killEverywhere(command), time)
  }
})
