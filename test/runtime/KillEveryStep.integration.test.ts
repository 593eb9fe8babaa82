/**
 * The brain is killed at a step (`steps.ts`) of what a person asks for: pull and unpack, create and start, exec, stop, start,
 * remove. What was acknowledged holds; what was not is there as a whole or not at all; nothing is left of it on the host, and asking
 * again works.
 *
 * Without flags it is killed at a few steps of each, spread over all of them; with `IRONWOOD_BOOT=all` at every step.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import * as RuntimePaths from "../../src/runtime/RuntimePaths.ts"
import * as EveryStep from "../support/everyStep.ts"
import { eventually } from "../support/eventually.ts"
import { buildImage, directory, file } from "../support/images.ts"
import { debianRegistry, push } from "../support/registry.ts"
import { ask, insist, killBrain, list, NoAnswer, type View, withBrain, type World } from "./livingBrain.ts"
import { isAlive, shell } from "./world.ts"

/** Steps of each command without the flag. */
const SAMPLE = 2
/** What is asked for, and how the host is before and after. */
interface Command {
  /** Before each try, on a brain that lives. */
  readonly before: (world: World, name: string) => Effect.Effect<unknown, unknown>
  readonly request: (name: string) => object
  /** Once the next brain answers: everything, or nothing; `acknowledged`: everything. */
  readonly verify: (world: World, name: string, acknowledged: boolean) => Effect.Effect<void, unknown>
  /** Puts away what it has made, if anything. */
  readonly after: (world: World, name: string) => Effect.Effect<unknown, unknown>
}

const find = (state: string, name: string) =>
  Effect.map(list(state), (found) => Option.fromUndefinedOr(found.find((view) => view.name === name)))

/** Waits until the container is what is wanted of it. */
const settled = ({ state }: World, name: string): Effect.Effect<View | undefined, unknown> =>
  Effect.gen(function* () {
    let last: View | undefined
    for (let tries = 0; tries < 400; tries++) {
      last = Option.getOrUndefined(yield* find(state, name))
      if (last === undefined) return undefined
      if (last.desired === "running" && last.state === "running" && isAlive(last.pid)) return last
      if (last.desired === "stopped" && last.state === "stopped") return last
      yield* Effect.sleep("25 millis")
    }
    assert.fail(`${name} does not become what is wanted: ${JSON.stringify(last)}`)
  })

/** What a container has left on this host, in words. */
const traces = ({ state, taproot }: World, name: string): ReadonlyArray<string> => {
  const isIts = (entry: string) => entry === name || entry.startsWith(`${name}-`)
  const found = ["oci", "bundles", "rootfs", "stages", "networks"].flatMap((place) => {
    const path = join(state, "runtime", place)
    return existsSync(path)
      ? readdirSync(path)
          .filter(isIts)
          .map((entry) => `${place}/${entry}`)
      : []
  })
  const mounts = readFileSync(`/proc/${taproot.pid}/mountinfo`, "utf8")
  if (mounts.includes(`/${name}/`)) found.push("a mount")
  if (existsSync(join(state, "logs", name))) found.push("its log")
  const cgroup = `${RuntimePaths.cgroupOf(state)}/${name}/`
  const isInIt = (pid: string) => {
    try {
      return readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(cgroup)
    } catch {
      return false
    }
  }
  found.push(
    ...readdirSync("/proc")
      .filter((entry) => /^\d+$/.test(entry) && isInIt(entry))
      .map((pid) => `process ${pid}`)
  )
  return found
}

const gone = (world: World, name: string) =>
  Effect.gen(function* () {
    assert.isTrue(Option.isNone(yield* find(world.state, name)))
    yield* eventually(`nothing is left of ${name}`, () => traces(world, name).length === 0).pipe(
      Effect.mapError((error) => `${error.message}: ${traces(world, name).join(", ")}`)
    )
  })

const remove = (world: World, name: string) =>
  Effect.gen(function* () {
    if (Option.isSome(yield* find(world.state, name))) yield* insist(world.state, { call: "remove", name })
    yield* gone(world, name)
  })

const polite = shell("trap 'exit 0' TERM; while :; do sleep 0.02; done")
const create = (name: string) => ({ call: "create", name, fields: { command: polite, stopGracePeriod: 5_000 } })
const created = ({ state }: World, name: string) => insist(state, create(name))

/** It is as it was wanted before, or as it is wanted now. */
const either =
  (wanted: "running" | "stopped"): Command["verify"] =>
  (world, name, acknowledged) =>
    Effect.gen(function* () {
      const view = yield* settled(world, name)
      assert.isDefined(view)
      if (acknowledged) assert.strictEqual(view?.desired, wanted)
      if (view?.desired === "stopped") assert.isUndefined(view.pid)
    })

const Images = Schema.Struct({ images: Schema.Array(Schema.String), damages: Schema.Array(Schema.Unknown) })
const images = ({ state }: World) =>
  Effect.flatMap(insist(state, { call: "images" }), Schema.decodeUnknownEffect(Images))

const onContainers: Readonly<Record<string, Command>> = {
  "create and start": {
    before: () => Effect.void,
    request: create,
    verify: (world, name, acknowledged) =>
      Effect.gen(function* () {
        const view = yield* settled(world, name)
        if (acknowledged) assert.strictEqual(view?.desired, "running")
        if (view === undefined) yield* gone(world, name)
        // the same again is made, or is there
        yield* insist(world.state, create(name))
        assert.strictEqual((yield* settled(world, name))?.desired, "running")
      }),
    after: remove
  },
  exec: {
    before: created,
    request: (name) => {
      const command = shell("echo begun > /tmp/begun; sleep 100000")
      return { call: "exec", name, fields: { command, environment: {}, stdin: false, detach: false } }
    },
    verify: (world, name) =>
      Effect.gen(function* () {
        const view = yield* settled(world, name)
        const run = view?.node?.annotations["run"]
        assert.deepStrictEqual([run, view?.restarts], [`${name}-1`, 0], "the container itself has noticed nothing")
        const isAlone = Effect.map(
          insist(world.state, { call: "top", name }),
          (found) => !JSON.stringify(found).includes("100000")
        )
        let alone = yield* isAlone
        for (let tries = 0; tries < 200 && !alone; tries++) {
          yield* Effect.sleep("25 millis")
          alone = yield* isAlone
        }
        assert.isTrue(alone, "what was run for a caller ends with the brain")
      }),
    after: remove
  },
  stop: { before: created, request: (name) => ({ call: "stop", name }), verify: either("stopped"), after: remove },
  start: {
    before: (world, name) => Effect.andThen(created(world, name), insist(world.state, { call: "stop", name })),
    request: (name) => ({ call: "start", name }),
    verify: either("running"),
    after: remove
  },
  remove: {
    before: created,
    request: (name) => ({ call: "remove", name }),
    verify: (world, name, acknowledged) =>
      Effect.gen(function* () {
        const view = yield* settled(world, name)
        if (acknowledged) assert.isUndefined(view)
        if (view === undefined) yield* gone(world, name)
        else assert.strictEqual(view.desired, "running")
      }),
    after: remove
  }
}

const layered = buildImage({
  layers: [
    {
      entries: [directory("etc"), file("etc/motd", "gzip"), directory("deep"), file("deep/er", "x")],
      compression: "gzip"
    },
    { entries: [file("etc/zstd", "zstd".repeat(50_000))], compression: "zstd" }
  ],
  config: { Cmd: ["/bin/true"] }
})

const pulled = (host: string): Command => {
  const reference = `${host}/app:1`
  return {
    before: () => Effect.void,
    request: () => ({ call: "pull", name: reference }),
    verify: (world, _name, acknowledged) =>
      Effect.gen(function* () {
        const found = yield* images(world)
        assert.deepStrictEqual(found.damages, [], "whatever is there is whole")
        if (acknowledged) assert.include(found.images, reference)
        yield* insist(world.state, { call: "pull", name: reference })
        const again = yield* images(world)
        assert.deepStrictEqual(again.damages, [])
        assert.include(again.images, reference)
        assert.deepStrictEqual(readdirSync(join(world.state, "content/temporary")), [])
      }),
    after: ({ state }) => insist(state, { call: "untag", name: reference })
  }
}

/** How many steps it has, done once without a death. */
const stepsOf = (command: Command, world: World) =>
  Effect.gen(function* () {
    const name = EveryStep.nameAt(0)
    yield* command.before(world, name)
    yield* insist(world.state, { call: "arm" })
    const answer = yield* Effect.timeoutOption(ask(world.state, command.request(name)), "1 second")
    const steps = Number(yield* insist(world.state, { call: "steps" }))
    if (Option.isNone(answer)) yield* killBrain(world.taproot)
    yield* command.verify(world, name, true)
    yield* command.after(world, name)
    return steps
  })

const killAt = (command: Command, world: World, step: number) =>
  Effect.gen(function* () {
    const name = EveryStep.nameAt(step)
    yield* command.before(world, name)
    yield* insist(world.state, { call: "arm", at: step })
    // one that waits for its end, or has fewer steps than the last time, is not killed by itself
    const answer = yield* Effect.timeoutOption(Effect.option(ask(world.state, command.request(name))), "3 seconds")
    const acknowledged = Option.isSome(Option.flatten(answer))
    if (acknowledged || Option.isNone(answer)) yield* killBrain(world.taproot)
    yield* command.verify(world, name, acknowledged)
    yield* command.after(world, name)
  }).pipe(Effect.mapError((error) => new NoAnswer({ detail: `step ${step}: ${String(error)}` })))

const killEverywhere = (command: Command) =>
  EveryStep.killEverywhere(
    withBrain,
    (world) => Effect.map(stepsOf(command, world), (steps) => EveryStep.chosen(steps, SAMPLE)),
    (world, step) => killAt(command, world, step)
  )

const time = EveryStep.all ? 3_600_000 : 120_000

describe("a brain that is killed at any step", () => {
  for (const [name, command] of Object.entries(onContainers)) {
    it.live(`of ${name}: all or nothing, and nothing is left`, () => killEverywhere(command), time)
  }

  it.live(
    "of a pull: every blob and layer that is there is whole, and pulling again works",
    () =>
      Effect.gen(function* () {
        const host = yield* debianRegistry()
        yield* push(host, "app", "1", layered)
        yield* killEverywhere(pulled(host))
      }).pipe(Effect.scoped),
    time
  )
})
