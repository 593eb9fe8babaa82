/** The tree as data: snapshots, watches from a revision, histories, and the calls that steer it. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import type { ChildSpec } from "../../src/actor/ChildSpec.ts"
import * as DynamicSupervisor from "../../src/actor/DynamicSupervisor.ts"
import * as RestartPolicy from "../../src/actor/RestartPolicy.ts"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import type { NoSuchActor } from "../../src/actor/Errors.ts"
import type { Revision, TreeNode, TreeSnapshot } from "../../src/actor/Tree.ts"
import { Fold, sorted } from "./Fold.ts"
import { Probes } from "./Probe.ts"

const none: Effect.Effect<ReadonlyArray<ChildSpec<unknown, never>>> = Effect.succeed([])

const pool = Effect.gen(function* () {
  const probes = new Probes()
  const dynamic = yield* DynamicSupervisor.make("pool", { children: none })
  const root = yield* Root.start(Supervisor.make("init", { children: [dynamic.spec] }))
  return { probes, dynamic, root }
})

/** Follows the tree in the background, from a revision on top of what was known then. */
const follow = (root: Root.Root, from?: TreeSnapshot) =>
  Effect.gen(function* () {
    const fold = new Fold(from)
    yield* Effect.forkScoped(
      Stream.runForEach(root.tree.watch(from?.revision), (event) => Effect.sync(() => fold.apply(event)))
    )
    yield* Effect.yieldNow
    return fold
  })

describe("watch", () => {
  it.effect("begins with a snapshot and tells every change with the event behind it", () =>
    Effect.gen(function* () {
      const { dynamic, probes, root } = yield* pool
      const seen: Array<string> = []
      yield* Effect.forkScoped(
        Stream.runForEach(root.tree.watch(), (event) =>
          Effect.sync(() =>
            seen.push(
              event._tag === "Changed"
                ? `${event.node.state}${event.entry === undefined ? "" : ` (${event.entry.event})`}`
                : event._tag
            )
          )
        )
      )
      yield* Effect.yieldNow
      yield* dynamic.startChild(probes.make("a", { policy: RestartPolicy.permanent }))
      yield* probes.crash("a")
      yield* dynamic.terminateChild("a")
      yield* dynamic.deleteChild("a")
      yield* Effect.yieldNow
      assert.deepStrictEqual(seen, [
        "Snapshot",
        "waiting",
        "starting",
        "running (started)",
        "backing-off (ended)",
        "starting",
        "running (started)",
        "stopping (stopped)",
        "stopped",
        "Removed"
      ])
    })
  )

  it.effect("folds to the snapshot from any revision still held", () =>
    Effect.gen(function* () {
      const { dynamic, probes, root } = yield* pool
      const past: Array<TreeSnapshot> = [yield* root.tree.snapshot()]
      for (let turn = 0; turn < 30; turn++) {
        const id = `child-${turn % 7}`
        if (turn % 5 === 4) yield* Effect.ignore(dynamic.terminateChild(id))
        else if (turn % 5 === 3) yield* Effect.ignore(dynamic.deleteChild(`child-${(turn + 6) % 7}`))
        else yield* Effect.ignore(dynamic.startChild(probes.make(id, { policy: RestartPolicy.workload })))
        if (turn % 3 === 0 && probes.log.includes(`start ${id}`)) yield* probes.crash(id)
        yield* TestClock.adjust(50)
        past.push(yield* root.tree.snapshot())
      }
      const now = yield* root.tree.snapshot()
      for (const snapshot of past) {
        const fold = yield* follow(root, snapshot)
        assert.deepStrictEqual(fold.known, sorted(now.nodes))
        assert.strictEqual(fold.snapshots, 0)
      }
    })
  )

  it.effect("resets with a snapshot when the revision is unknown", () =>
    Effect.gen(function* () {
      const { root } = yield* pool
      const now = yield* root.tree.snapshot()
      for (const from of [now.revision + 1, -1, 1e12] satisfies Array<Revision>) {
        const first = yield* Stream.runHead(root.tree.watch(from))
        assert.deepInclude(first, { value: { _tag: "Snapshot" as const, revision: now.revision, snapshot: now } })
      }
    })
  )

  it.effect("gives a slow reader the newest state of each actor, and a very slow one a snapshot", () =>
    Effect.gen(function* () {
      const { dynamic, probes, root } = yield* pool
      yield* dynamic.startChild(probes.make("a"))
      const churn = (times: number) => Effect.repeat(dynamic.restartChild("a"), { times: times - 1 })
      const before = yield* root.tree.snapshot()
      yield* churn(1_500)
      const slow = yield* follow(root, before)
      assert.deepInclude(slow, { snapshots: 0, events: 1 })
      assert.deepStrictEqual(slow.known, sorted((yield* root.tree.snapshot()).nodes))
      yield* churn(2_000)
      const late = yield* follow(root, before)
      assert.deepInclude(late, { snapshots: 1, events: 1 })
      assert.deepStrictEqual(late.known, sorted((yield* root.tree.snapshot()).nodes))
    })
  )

  it.effect("ends with the tree, after the last change", () =>
    Effect.gen(function* () {
      const { root } = yield* pool
      const fold = new Fold()
      const following = yield* Effect.forkScoped(
        Stream.runForEach(root.tree.watch(), (event) => Effect.sync(() => fold.apply(event)))
      )
      yield* Effect.yieldNow
      yield* root.end("stop")
      yield* Fiber.join(following)
      assert.strictEqual(fold.nodes.get("init")?.state, "stopped")
    })
  )

  it.effect("an abandoned watch leaves nothing", () =>
    Effect.gen(function* () {
      const { root } = yield* pool
      const watches = yield* Effect.forEach(Array.from({ length: 10 }), () =>
        Effect.forkScoped(Stream.runDrain(root.tree.watch()))
      )
      yield* Effect.yieldNow
      assert.deepInclude(yield* root.resources, { watchers: 10 })
      yield* Fiber.interruptAll(watches)
      assert.deepInclude(yield* root.resources, { watchers: 0 })
    })
  )
})

describe("history", () => {
  it.effect("keeps the last events, the oldest first, each with decision and reason", () =>
    Effect.gen(function* () {
      const { dynamic, probes, root } = yield* pool
      yield* dynamic.startChild(probes.make("a", { policy: RestartPolicy.permanent }))
      for (let crash = 1; crash <= 40; crash++) yield* probes.crash("a", `number ${crash}`)
      const history = yield* root.tree.history("init/pool/a")
      assert.strictEqual(history.length, 32)
      const last = history[30]
      assert.deepInclude(last, {
        event: "ended",
        decision: "restart",
        delay: 0,
        reason: "it ended (Crash), consecutive end number 40; permanent: restart at once"
      })
      assert.deepInclude(last?.exit, { tag: "Crash", message: "number 40" })
      assert.deepStrictEqual(
        history.map((entry) => entry.revision),
        [...history].map((entry) => entry.revision).sort((left, right) => left - right)
      )
    })
  )
})

describe("snapshot", () => {
  it.effect("has the tree's order and newest state, whoever came, went or changed his place since the last one", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const group = yield* Supervisor.managed<never>("group", { children: [probes.make("a"), probes.make("b")] })
      const dynamic = yield* DynamicSupervisor.make("pool", { children: none })
      const root = yield* Root.start(Supervisor.make("init", { children: [group.spec, dynamic.spec] }))
      const { tree } = root
      const walked = (path: string): Effect.Effect<ReadonlyArray<TreeNode>, NoSuchActor> =>
        Effect.gen(function* () {
          const below = yield* Effect.forEach(yield* tree.children(path), (child) => walked(child.path))
          return [yield* tree.get(path), ...below.flat()]
        })
      const same = Effect.gen(function* () {
        const { nodes } = yield* tree.snapshot()
        assert.deepStrictEqual(nodes, yield* walked("init"))
      })
      const steps: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        Effect.void,
        probes.crash("a"),
        dynamic.startChild(probes.make("x")),
        group.startChild(probes.make("c")),
        Effect.suspend(() => probes.crash("x")),
        Effect.andThen(group.terminateChild("a"), group.deleteChild("a")),
        // "a" is in the list, and so before the others again
        tree.restart("init/group"),
        Effect.suspend(() => probes.crash("c")),
        Effect.andThen(dynamic.terminateChild("x"), dynamic.deleteChild("x")),
        dynamic.startChild(probes.make("x")),
        tree.stop("init/pool")
      ]
      for (const step of steps) {
        yield* step
        yield* same
      }
    })
  )

  it.effect("lists supervisors before children, siblings in order of start, and subtrees", () =>
    Effect.gen(function* () {
      const probes = new Probes()
      const inner = Supervisor.make("inner", { children: [probes.make("x"), probes.make("y")] })
      const root = yield* Root.start(Supervisor.make("init", { children: [probes.make("a"), inner, probes.make("b")] }))
      const paths = (snapshot: TreeSnapshot) => snapshot.nodes.map((node) => node.path)
      const all = yield* root.tree.snapshot()
      assert.deepStrictEqual(paths(all).join(" "), "init init/a init/inner init/inner/x init/inner/y init/b")
      const inside = all.nodes[2]
      assert.isDefined(inside)
      assert.deepStrictEqual(
        paths(yield* root.tree.snapshot(inside.path)).join(" "),
        "init/inner init/inner/x init/inner/y"
      )
    })
  )
})
