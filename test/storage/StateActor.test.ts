/** The state database in the tree: the death of its thread is an actor's crash, a full disk makes it degraded. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { spawnSync } from "node:child_process"
import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Root from "../../src/actor/Root.ts"
import * as Supervisor from "../../src/actor/Supervisor.ts"
import type { TreeEvent, TreeNode } from "../../src/actor/Tree.ts"
import * as State from "../../src/storage/State.ts"
import { stateActor } from "../../src/storage/StateActor.ts"
import * as StateJournal from "../../src/storage/StateJournal.ts"
import { Sample, sample, temporaryDirectory, withState } from "./support/state.ts"

const init = Supervisor.make("init", { children: [stateActor] })

/** Waits until the actor looks as `expected`. */
const until = (root: Root.Root, expected: (node: TreeNode) => boolean) => {
  const nodeOf = (event: TreeEvent): TreeNode | undefined =>
    event._tag === "Changed"
      ? event.node
      : event._tag === "Snapshot"
        ? event.snapshot.nodes.find((node) => node.path === "init/state")
        : undefined
  return root.tree.watch().pipe(
    Stream.filter((event) => {
      const node = nodeOf(event)
      return node?.path === "init/state" && expected(node)
    }),
    Stream.runHead,
    Effect.timeout("20 seconds")
  )
}

describe("the actor of the state database", () => {
  it.live("crashes with its thread, and its next incarnation goes on; the journal knows", () =>
    Effect.gen(function* () {
      const path = join(yield* temporaryDirectory, "state.db")
      const life = Effect.gen(function* () {
        const root = yield* Root.start(init)
        const collection = yield* (yield* State.State).collection("sample", Sample)
        return { root, collection, node: yield* root.tree.get("init/state") }
      })
      const journalled = Layer.fresh(StateJournal.layer())
      const mortal = join(import.meta.dirname, "support/mortalStateWorker.ts")
      yield* withState(
        path,
        Effect.gen(function* () {
          const { root, collection, node } = yield* life
          assert.deepInclude(node.annotations, { file: path })
          yield* Effect.flip(collection.put("fatal", sample(1)))
          yield* until(root, ({ state, incarnation }) => state === "running" && incarnation === 2)
          const { restarts, lastExit } = yield* root.tree.get("init/state")
          assert.strictEqual(restarts, 1)
          assert.deepInclude(lastExit, { class: "failure", tag: "StateUnavailable" })
          yield* collection.put("alive", sample(2))
        }).pipe(Effect.scoped, Effect.provide(journalled)),
        mortal
      )
      yield* withState(
        path,
        Effect.gen(function* () {
          const { collection, node } = yield* life
          assert.deepInclude(node, { incarnation: 3, restarts: 1 })
          assert.strictEqual(node.lastExit?.tag, "StateUnavailable")
          assert.strictEqual((yield* collection.list).length, 1)
        }).pipe(Effect.scoped, Effect.provide(journalled))
      )
    })
  )

  // Mounting needs root.
  it.live.skipIf(process.getuid?.() !== 0)("is degraded while the disk is full", () =>
    Effect.gen(function* () {
      const directory = join(yield* temporaryDirectory, "disk")
      mkdirSync(directory)
      yield* Effect.acquireRelease(
        Effect.sync(() => spawnSync("mount", ["-t", "tmpfs", "-o", "size=512k", "none", directory])),
        () => Effect.sync(() => spawnSync("umount", ["-l", directory]))
      )
      const use = Effect.gen(function* () {
        const root = yield* Root.start(init)
        const collection = yield* (yield* State.State).collection("sample", Sample)
        const put = collection.put("one", sample(1, "x".repeat(1_000)))
        const filler = join(directory, "filler")
        assert.throws(() => {
          for (;;) writeFileSync(filler, "x".repeat(4_096), { flag: "a" })
        }, /ENOSPC/)
        // The log may have some room left.
        yield* Effect.flip(Effect.forever(put))
        yield* until(root, ({ annotations }) => (annotations["degraded"] ?? "").includes("the disk is full"))
        rmSync(filler)
        yield* put
        yield* until(root, ({ annotations }) => annotations["degraded"] === undefined)
      })
      yield* withState(join(directory, "state.db"), Effect.scoped(use))
    })
  )
})
