/** What runs beneath actors, with guests that answer, lie, and say nothing. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as ActorPath from "../../src/actor/ActorPath.ts"
import type { ProcessFacts } from "../../src/host/SystemFiles.ts"
import { type ContainerRun, ContainerRuns } from "../../src/runtime/ContainerRuns.ts"
import * as ProcessesBeneath from "../../src/runtime/ProcessesBeneath.ts"
import * as ProcessList from "../../src/runtime/ProcessList.ts"
import { type System, Systems } from "../../src/runtime/System.ts"
import * as State from "../../src/storage/State.ts"
import { Processes } from "../../src/taproot/Processes.ts"
import { withMuteGuest } from "./microvm/Guests.ts"

const facts = (
  pid: number,
  parent: number,
  command: string,
  { inner, rss = "10" }: { readonly inner?: number; readonly rss?: string } = {}
): ProcessFacts => ({
  pid,
  stat: `${pid} (na) me) S ${parent} 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 1 0 1000 100 ${rss} 0`,
  status: `Name:\tx\nUid:\t0\t0\t0\t0\nNSpid:\t${pid}${inner === undefined ? "" : `\t${inner}`}\n`,
  command: `${command.replaceAll(" ", "\0")}\0`
})

/** What a guest has: its init, a thread of its kernel, what looks at its files, and two processes of `web`. */
const ordinary: ReadonlyArray<ProcessFacts> = [
  facts(1, 0, "/init"),
  { ...facts(2, 0, ""), command: "" },
  { ...facts(40, 2, ""), command: "" },
  facts(91, 1, "/usr/lib/ironwood/files"),
  facts(98, 1, "sh -c work", { inner: 1 }),
  facts(120, 98, "sleep 5", { inner: 7 })
]

const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "ironwood-beneath-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
)

const root = ActorPath.root("init")
const box = ActorPath.child(ActorPath.child(root, "runtime"), "box")
const web = { kind: "container", path: ActorPath.child(box, "web") }
const other = { kind: "container", path: ActorPath.child(box, "other") }
const machine = { kind: "microvm", path: ActorPath.child(box, "microVM") }

/** A sandbox `box` in a microVM with a container `web`, whose guest answers with `answers`, one after the other. */
const withGuest = <A, E>(
  answers: () => Effect.Effect<ReadonlyArray<ProcessFacts>>,
  use: (of: Effect.Success<typeof ProcessesBeneath.make>, systems: Systems["Service"]) => Effect.Effect<A, E>,
  pids: () => Effect.Effect<ReadonlyArray<number>> = () => Effect.succeed([98, 120])
) =>
  Effect.gen(function* () {
    const systems = yield* Systems
    const processes = yield* Processes
    const process = yield* processes.spawn({ label: "web-1", argv: ["/bin/sh"] })
    const { host } = systems
    const guest: System = {
      ...host,
      files: { ...host.files, processes: answers, uptime: Effect.succeed(100) },
      cgroups: { ...host.cgroups, processes: pids }
    }
    const run: ContainerRun = {
      id: "web-1",
      bundle: "",
      cgroup: "/ironwood/box/web-1",
      label: "web-1",
      terminal: false,
      stdin: false,
      system: guest,
      container: "web",
      incarnation: 1,
      process,
      stored: Deferred.makeUnsafe<void>()
    }
    yield* systems.expect("box")
    yield* systems.settle("box", Exit.succeed(guest))
    const { namespaces, paths, pidNamespaces, stages } = systems
    const runs = Layer.mock(ContainerRuns, {
      namespaces,
      paths,
      pidNamespaces,
      stages,
      log: () => assert.fail("no log is read"),
      currents: Effect.succeed(new Map([["web", run]])),
      current: () => Effect.succeedNone
    })
    const beneath = yield* Effect.provide(ProcessesBeneath.make, runs)
    return yield* use(beneath, systems)
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Layer.merge(
        withMuteGuest(() => {}),
        Layer.unwrap(Effect.map(scratch, (directory) => State.layer({ path: join(directory, "state.db") })))
      )
    )
  )

const commands = (beneath: ProcessesBeneath.Beneath | undefined) => beneath?.processes.map(({ command }) => command)

describe("processes beneath actors", () => {
  it.effect("of a guest are those of each container, and of the machine what is in none", () =>
    withGuest(
      () => Effect.succeed(ordinary),
      (of) =>
        Effect.gen(function* () {
          const found = yield* of([machine, web, other, { kind: "sandbox", path: box }], "guests")
          assert.deepStrictEqual([...found.keys()].sort(), [machine.path, web.path].sort())
          assert.deepStrictEqual(commands(found.get(machine.path)), ["/init", "/usr/lib/ironwood/files"])
          assert.deepStrictEqual(commands(found.get(web.path)), ["sh -c work", "sleep 5"])
          const [first] = found.get(web.path)?.processes ?? []
          assert.deepInclude(first, { pid: 98, innerPid: 1, memoryBytes: 40_960, age: 90_000 })
        })
    )
  )

  it.effect("of a guest that is asked by several at a time are asked for once", () =>
    Effect.gen(function* () {
      let asked = 0
      const gate = yield* Deferred.make<void>()
      yield* withGuest(
        () => {
          asked++
          return Effect.as(Deferred.await(gate), ordinary)
        },
        (of) =>
          Effect.gen(function* () {
            const all = yield* Effect.forkChild(
              Effect.all([of([web], "guests"), of([machine], "all"), of([web], "all")], { concurrency: "unbounded" })
            )
            yield* TestClock.adjust("10 millis")
            yield* Deferred.succeed(gate, undefined)
            const found = yield* Fiber.join(all)
            assert.deepStrictEqual(
              found.map(({ size }) => size),
              [1, 1, 1]
            )
            assert.strictEqual(asked, 1)
            yield* of([web], "guests")
            assert.strictEqual(asked, 2, "and once more when somebody asks later")
          })
      )
    })
  )

  it.effect("of a guest that is silent are missing after a second, and at once from then on", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      let asked = 0
      yield* withGuest(
        () => {
          asked++
          return Effect.as(Deferred.await(gate), ordinary)
        },
        (of) =>
          Effect.gen(function* () {
            const first = yield* Effect.forkChild(of([machine, web], "guests"))
            yield* TestClock.adjust(ProcessesBeneath.PATIENCE - 1)
            assert.isUndefined(first.pollUnsafe())
            yield* TestClock.adjust(1)
            const told = yield* Fiber.join(first)
            assert.strictEqual(told.get(web.path)?.problem, "the guest has not answered yet")
            assert.deepStrictEqual(told.get(machine.path)?.processes, [])
            for (let times = 0; times < 5; times++) {
              const again = yield* Effect.forkChild(of([web], "guests"))
              yield* TestClock.adjust(0)
              assert.property((yield* Fiber.join(again)).get(web.path), "problem")
            }
            assert.strictEqual(asked, 1, "nothing piles up at a guest that owes an answer")
            yield* Deferred.succeed(gate, undefined)
            yield* TestClock.adjust(0)
            assert.deepStrictEqual(commands((yield* of([web], "guests")).get(web.path)), ["sh -c work", "sleep 5"])
          })
      )
    })
  )

  it.effect("of a guest that has no process, or whose cgroups make no sense, cannot be told", () =>
    Effect.gen(function* () {
      const empty = yield* withGuest(
        () => Effect.succeed([]),
        (of) => of([web], "guests")
      )
      assert.propertyVal(empty.get(web.path), "problem", "the guest does not tell")
      const absurd = yield* withGuest(
        () => Effect.succeed(ordinary),
        (of) => of([machine], "guests"),
        () => Effect.die("EIO")
      )
      assert.propertyVal(absurd.get(machine.path), "problem", "the guest does not tell")
    })
  )

  it.effect("of a guest that has thousands are bounded, and the rest is counted", () =>
    withGuest(
      () =>
        Effect.succeed(Array.from({ length: 5_000 }, (_, index) => facts(1_000 + index, 1, "flood", { inner: index }))),
      (of) =>
        Effect.map(of([web], "guests"), (found) => {
          const beneath = found.get(web.path)
          assert.strictEqual(beneath?.processes.length, ProcessesBeneath.MOST)
          assert.strictEqual(beneath?.omitted, 5_000 - ProcessesBeneath.MOST)
        }),
      () => Effect.succeed(Array.from({ length: 5_000 }, (_, index) => 1_000 + index))
    )
  )

  it.effect("of a sandbox whose machine is not there are none", () =>
    withGuest(
      () => Effect.succeed(ordinary),
      (of, systems) =>
        Effect.gen(function* () {
          yield* systems.expect("box")
          assert.strictEqual((yield* of([machine, web], "all")).size, 0)
        })
    )
  )

  it("whose numbers are none count as 0", () => {
    for (const rss of ["lots", "-1", "1e300", "NaN", "99999999999999999999"]) {
      const [listed] = ProcessList.ordered([facts(5, 1, "liar", { rss })], 100, undefined)
      assert.strictEqual(listed?.memoryBytes, 0)
    }
    const [nonsense] = ProcessList.ordered(
      [{ pid: 5, stat: "", status: "NSpid:\t5\t99999999999999999999999\nUid:\t-3\n", command: "" }],
      0,
      undefined
    )
    assert.deepStrictEqual(nonsense, {
      pid: 5,
      innerPid: 5,
      parent: 0,
      uid: 0,
      state: "?",
      cpuMillis: 0,
      memoryBytes: 0,
      age: 0,
      command: "[]"
    })
  })
})
