/** The tree's journal on the database: what a later brain finds, its bounds, and a disk that takes nothing for a while. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as ActorPath from "../../src/actor/ActorPath.ts"
import * as ExitView from "../../src/actor/ExitView.ts"
import { HISTORY_LIMIT, Journal, type JournalRecord, type NodeRecord } from "../../src/actor/Journal.ts"
import type { HistoryEntry } from "../../src/actor/Tree.ts"
import { StateConnection } from "../../src/storage/StateConnection.ts"
import { StateUnavailable } from "../../src/storage/StateErrors.ts"
import * as StateJournal from "../../src/storage/StateJournal.ts"
import { StateMirror } from "../../src/storage/StateMirror.ts"
import type { Change } from "../../src/storage/StateProtocol.ts"
import { temporaryDirectory, withState } from "./support/state.ts"

const path = (id: string): ActorPath.ActorPath => ActorPath.child(ActorPath.root("init"), id)

class Crashed extends Schema.TaggedError<Crashed>()("Crashed", {}) {
  override get message(): string {
    return "it crashed"
  }
}
const failed = ExitView.fromExit(1_000, Exit.fail(new Crashed()), false)
const causedBy = { path: path("b"), exit: failed }
const dragged = ExitView.fromExit(1_000, Exit.fail({ _tag: "Linked", message: "b ended", causedBy }), false)
const defect = ExitView.fromExit(2_000, Exit.die(new RangeError("a bug")), true)

const node = (id: string, restarts: number, lastExit?: ExitView.ExitView): NodeRecord => ({
  path: path(id),
  incarnation: restarts + 1,
  restarts,
  attempt: 0,
  lastExit,
  rest: { state: "backing-off", since: 10, nextAttemptAt: 20 },
  spent: [1, 2]
})
const entry = (revision: number, exit?: ExitView.ExitView): HistoryEntry => ({
  at: revision * 10,
  revision,
  event: exit === undefined ? "started" : "ended",
  incarnation: 1,
  exit,
  decision: exit === undefined ? "none" : "restart",
  reason: "because",
  delay: exit === undefined ? undefined : 100,
  nextAt: undefined
})
const entryRecord = (id: string, revision: number, exit?: ExitView.ExitView): JournalRecord => ({
  _tag: "Entry",
  path: path(id),
  entry: entry(revision, exit)
})

/** A brain's life: `use` with the journal on the file. */
const withJournal = <A, E>(file: string, use: Effect.Effect<A, E>, options: StateJournal.Options = {}) =>
  withState(file, Effect.provide(use, StateJournal.layer(options)))
const load = Effect.flatMap(Journal, (journal) => journal.load)
const append = (...records: ReadonlyArray<JournalRecord>) =>
  Effect.flatMap(Journal, (journal) => journal.append(records))

describe("the journal", () => {
  it.effect("gives a later brain the revision, the last state of each actor and its history", () =>
    Effect.gen(function* () {
      const file = join(yield* temporaryDirectory, "state.db")
      yield* withJournal(
        file,
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* load, { revision: 0, nodes: new Map(), history: new Map() })
          yield* append(
            { _tag: "Reserve", ceiling: 1_000 },
            { _tag: "Node", node: node("a", 1) },
            { _tag: "Node", node: node("b", 1) },
            entryRecord("a", 1),
            entryRecord("b", 2)
          )
          yield* append(
            { _tag: "Reserve", ceiling: 500 },
            { _tag: "Node", node: node("a", 2, failed) },
            entryRecord("a", 3, failed),
            entryRecord("a", 4, defect),
            { _tag: "Entry", path: path("a"), entry: { ...entry(5, dragged), because: path("b") } },
            { _tag: "Removed", path: path("b") }
          )
        })
      )
      const found = yield* withJournal(file, load)
      assert.strictEqual(found.revision, 1_000)
      assert.deepStrictEqual([...found.nodes.keys()], ["init/a"])
      const a = found.nodes.get("init/a")
      assert.deepInclude(a, { restarts: 2, incarnation: 3, spent: [1, 2] })
      assert.deepStrictEqual(a?.rest, { state: "backing-off", since: 10, nextAttemptAt: 20 })
      assert.deepInclude(a?.lastExit, { tag: "Crashed", message: "it crashed", class: "failure", detail: "" })
      const history = found.history.get("init/a") ?? []
      assert.deepStrictEqual(
        history.map(({ revision, delay }) => [revision, delay]),
        [
          [1, undefined],
          [3, 100],
          [4, 100],
          [5, 100]
        ]
      )
      // A bug's stack is worth keeping.
      assert.include(history[2]?.exit?.detail, "a bug")
      assert.strictEqual(history[3]?.because, path("b"))
      assert.deepStrictEqual(history[3]?.exit?.causes, [{ path: path("b"), tag: "Crashed", message: "it crashed" }])
      assert.isFalse(found.history.has("init/b"))
    })
  )

  it.effect("keeps an actor that was removed and came back, without its former life", () =>
    Effect.gen(function* () {
      const file = join(yield* temporaryDirectory, "state.db")
      yield* withJournal(
        file,
        append(
          entryRecord("a", 1),
          { _tag: "Node", node: node("a", 7) },
          { _tag: "Removed", path: path("a") },
          { _tag: "Node", node: node("a", 0) },
          entryRecord("a", 2)
        )
      )
      const found = yield* withJournal(file, load)
      assert.strictEqual(found.nodes.get("init/a")?.restarts, 0)
      assert.deepStrictEqual(
        found.history.get("init/a")?.map((kept) => kept.revision),
        [2]
      )
    })
  )

  it.effect("is bounded per actor and in total, by age", () =>
    Effect.gen(function* () {
      const file = join(yield* temporaryDirectory, "state.db")
      const bounds = { nodes: 5, entriesPerActor: 4, entries: 10 }
      yield* withJournal(
        file,
        Effect.gen(function* () {
          yield* append(...Array.from({ length: 50 }, (_, index) => entryRecord("busy", index)))
          for (let index = 0; index < 8; index++) {
            yield* append({ _tag: "Node", node: node(`n${index}`, 1) }, entryRecord(`n${index}`, 100 + index))
          }
          yield* append({ _tag: "Node", node: node("n3", 2) }, { _tag: "Node", node: node("n8", 1) })
        }),
        { bounds }
      )
      const found = yield* withJournal(file, load, { bounds })
      assert.deepStrictEqual([...found.nodes.keys()], ["init/n5", "init/n6", "init/n7", "init/n3", "init/n8"])
      const revisions = [...found.history.values()].flat().map((kept) => kept.revision)
      assert.deepStrictEqual(revisions, [48, 49, 100, 101, 102, 103, 104, 105, 106, 107])
      // The counters of rows go on over restarts.
      yield* withJournal(file, append(entryRecord("late", 200)), { bounds })
      const later = yield* withJournal(file, load, { bounds })
      assert.strictEqual([...later.history.values()].flat().length, 10)
    })
  )

  it.effect("leaves out rows that do not decode, and gives the others", () =>
    Effect.gen(function* () {
      const file = join(yield* temporaryDirectory, "state.db")
      yield* withJournal(file, append(entryRecord("a", 1), entryRecord("a", 2), { _tag: "Node", node: node("a", 1) }))
      const database = new DatabaseSync(file)
      database.exec(`UPDATE journal_entry SET value = '{"at":"yesterday"}' WHERE sequence = 1`)
      database.close()
      const found = yield* withJournal(file, load)
      assert.deepStrictEqual(
        found.history.get("init/a")?.map((kept) => kept.revision),
        [2]
      )
      assert.strictEqual(found.nodes.size, 1)
    })
  )

  it.effect("holds a large tree's history", () =>
    Effect.gen(function* () {
      const file = join(yield* temporaryDirectory, "state.db")
      const actors = Array.from({ length: 300 }, (_, index) => `actor${index}`)
      yield* withJournal(
        file,
        Effect.forEach(actors, (id, index) =>
          append(
            { _tag: "Node", node: node(id, 1, failed) },
            ...Array.from({ length: HISTORY_LIMIT + 8 }, (_, event) => entryRecord(id, index * 100 + event, failed))
          )
        )
      )
      const found = yield* withJournal(file, load)
      assert.strictEqual(found.nodes.size, 300)
      for (const history of found.history.values()) assert.strictEqual(history.length, HISTORY_LIMIT)
    })
  )
})

describe("when the disk takes nothing", () => {
  /** A connection whose disk is full as long as `full` says so; what it took. */
  const makeDisk = Effect.gen(function* () {
    const full = yield* Ref.make(true)
    const taken: Array<Extract<Change, { readonly _tag: "Journal" }>> = []
    const error = new StateUnavailable({ path: "state.db", reason: "DiskFull", detail: "no space left" })
    const connection = StateConnection.of({
      path: "state.db",
      mirror: new StateMirror(),
      transact: (changes) =>
        Effect.flatMap(Ref.get(full), (isFull) => {
          if (isFull) return Effect.fail(error)
          for (const change of changes) if (change._tag === "Journal") taken.push(change)
          return Effect.succeed([])
        }),
      loadJournal: () => Effect.void,
      facts: Effect.fail(error),
      trouble: Effect.succeedNone,
      died: Effect.never
    })
    return { full, taken, layer: Layer.succeed(StateConnection, connection) }
  })

  it.effect("an append returns all the same, and what waits is bounded and written when there is room", () =>
    Effect.gen(function* () {
      const disk = yield* makeDisk
      yield* Effect.gen(function* () {
        const { statistics } = yield* StateJournal.StateJournal
        for (let index = 0; index < 30; index++) {
          const fiber = yield* Effect.forkChild(
            append(
              { _tag: "Reserve", ceiling: index },
              { _tag: "Node", node: node("a", index) },
              entryRecord("a", index),
              ...(index === 10 ? [{ _tag: "Removed", path: path("gone") } as const] : [entryRecord("gone", index)])
            )
          )
          yield* TestClock.adjust(StateJournal.APPEND_DEADLINE)
          yield* Fiber.join(fiber)
        }
        assert.deepStrictEqual(disk.taken, [])
        const stalled = yield* statistics
        assert.strictEqual(stalled.waiting, 20 + 3)
        assert.isAbove(stalled.dropped, 0)
        yield* Ref.set(disk.full, false)
        yield* TestClock.adjust("1 minute")
        const [change] = disk.taken
        assert.strictEqual(disk.taken.length, 1)
        assert.strictEqual(change?.reserve, 29)
        assert.deepStrictEqual(change?.removed, ["init/gone"])
        assert.include(change?.nodes[0]?.value, '"restarts":29')
        assert.strictEqual(change?.entries.length, 20)
        assert.include(change?.entries.at(-1)?.value, '"revision":29')
        assert.deepInclude(yield* statistics, { waiting: 0, appended: 23 })
        // And the next one is quick again.
        yield* append(entryRecord("a", 30))
        assert.strictEqual(disk.taken.length, 2)
      }).pipe(Effect.provide(Layer.provide(StateJournal.layer({ maxWaiting: 20 }), disk.layer)))
    })
  )

  it.effect("what still waits at the end is written by the end", () =>
    Effect.gen(function* () {
      const disk = yield* makeDisk
      yield* Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(append(entryRecord("a", 1)))
        yield* TestClock.adjust(StateJournal.APPEND_DEADLINE)
        yield* Fiber.join(fiber)
        yield* Ref.set(disk.full, false)
      }).pipe(Effect.provide(Layer.provide(StateJournal.layer(), disk.layer)))
      assert.strictEqual(disk.taken.length, 1)
    })
  )
})
