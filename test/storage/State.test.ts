/** The desired state as its callers see it, on real files: collections, transactions, versions, idempotent requests. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { statSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as State from "../../src/storage/State.ts"
import { MAX_VALUE_LENGTH } from "../../src/storage/StateValue.ts"
import { Sample, sample, temporaryDirectory, withState } from "./support/state.ts"

const samples = (kind = "sample") => Effect.flatMap(State.State, (state) => state.collection(kind, Sample))

/** Runs with a new database. */
const fresh = <A, E, R>(use: Effect.Effect<A, E, R>) =>
  Effect.flatMap(temporaryDirectory, (directory) => withState(join(directory, "state.db"), use))

describe("a collection", () => {
  it.effect("gives back what was put, with identity, version and times", () =>
    fresh(
      Effect.gen(function* () {
        const collection = yield* samples()
        assert.deepStrictEqual(yield* collection.get("one"), Option.none())
        const first = yield* collection.put("one", sample(1))
        const second = yield* collection.put("one", sample(2))
        assert.deepInclude(first, { kind: "sample", name: "one", generation: 1, value: sample(1) })
        assert.deepStrictEqual(second, { ...first, generation: 2, value: sample(2) })
        assert.deepStrictEqual(yield* collection.get("one"), Option.some(second))
        assert.isTrue(yield* collection.remove("one"))
        assert.isFalse(yield* collection.remove("one"))
        const again = yield* collection.put("one", sample(3))
        assert.strictEqual(again.generation, 1)
        assert.notStrictEqual(again.uid, first.uid)
      })
    )
  )

  it.effect("keeps kinds apart and lists by name", () =>
    fresh(
      Effect.gen(function* () {
        const [a, b] = [yield* samples("a"), yield* samples("b")]
        for (const name of ["z", "a", "é", "m"]) yield* a.put(name, sample(1))
        yield* b.put("a", sample(2))
        assert.deepStrictEqual(
          (yield* a.list).map((record) => record.name),
          ["a", "m", "z", "é"]
        )
        assert.deepStrictEqual(
          (yield* b.list).map((record) => record.value.count),
          [2]
        )
      })
    )
  )

  it.effect("refuses a write that expects another version, and says what is there", () =>
    fresh(
      Effect.gen(function* () {
        const collection = yield* samples()
        const first = yield* collection.put("one", sample(1), { expect: "absent" })
        const conflict = yield* Effect.flip(collection.put("one", sample(9), { expect: "absent" }))
        assert.strictEqual(
          conflict.message,
          "sample one was changed by somebody else: expected no record, but it is at generation 1; read it again"
        )
        yield* collection.put("one", sample(2), { expect: first.generation })
        assert.strictEqual((yield* Effect.flip(collection.put("one", sample(9), { expect: 1 })))._tag, "StateConflict")
        assert.strictEqual((yield* Effect.flip(collection.remove("one", { expect: first })))._tag, "StateConflict")
        assert.strictEqual((yield* Effect.flip(collection.put("two", sample(9), { expect: 1 })))._tag, "StateConflict")
        yield* collection.remove("one", { expect: 2 })
        yield* collection.put("one", sample(3))
        // The same generation of another record of that name.
        assert.strictEqual(
          (yield* Effect.flip(collection.put("one", sample(9), { expect: first })))._tag,
          "StateConflict"
        )
        assert.deepStrictEqual(
          (yield* collection.list).map((record) => record.value.count),
          [3]
        )
      })
    )
  )

  it.effect("names every field of a value that does not fit, and stores nothing", () =>
    fresh(
      Effect.gen(function* () {
        const collection = yield* samples()
        const wrong = { text: "some", count: 1.5, limits: { memoryBytes: 0.5 }, tags: [] }
        const error = yield* Effect.flip(collection.put("one", wrong))
        assert.strictEqual(
          error.message,
          "the given value of sample one is not valid: count: Expected an integer; limits.memoryBytes: Expected an integer"
        )
        const large = yield* Effect.flip(collection.put("one", sample(1, "x".repeat(MAX_VALUE_LENGTH))))
        assert.strictEqual(large._tag, "StateValueInvalid")
        for (const name of ["", "x".repeat(513), "\uD800", "a\0b"]) {
          assert.strictEqual((yield* Effect.flip(collection.put(name, sample(1))))._tag, "StateValueInvalid")
          assert.isFalse(yield* collection.remove(name))
        }
        assert.deepStrictEqual(yield* collection.list, [])
      })
    )
  )

  it.effect("updates atomically however many do it at once", () =>
    fresh(
      Effect.gen(function* () {
        const collection = yield* samples()
        const increment = collection.update("one", ({ value }) => ({ ...value, count: value.count + 1 }))
        assert.deepStrictEqual(yield* increment, Option.none())
        yield* collection.put("one", sample(0))
        yield* Effect.all(
          Array.from({ length: 40 }, () => increment),
          { concurrency: "unbounded" }
        )
        const [record] = yield* collection.list
        assert.strictEqual(record?.value.count, 40)
        assert.strictEqual(record?.generation, 41)
      })
    )
  )

  it.effect("tells a stored value that no longer decodes by kind, name and field, and the others do not suffer", () =>
    Effect.gen(function* () {
      const path = join(yield* temporaryDirectory, "state.db")
      const Old = Schema.Struct({ text: Schema.String })
      yield* withState(
        path,
        Effect.gen(function* () {
          const old = yield* (yield* State.State).collection("sample", Old)
          yield* old.put("old", { text: "from before" })
          yield* (yield* samples()).put("new", sample(1))
        })
      )
      yield* withState(
        path,
        Effect.gen(function* () {
          const collection = yield* samples()
          const error = yield* Effect.flip(collection.get("old"))
          assert.deepInclude(error, { kind: "sample", name: "old", stored: true })
          assert.match(error.message, /^the stored value of sample old is not valid: count: .*; tags: /)
          assert.strictEqual((yield* Effect.flip(collection.list))._tag, "StateValueInvalid")
          const { records, invalid } = yield* collection.partition
          assert.deepStrictEqual(
            records.map((record) => record.name),
            ["new"]
          )
          assert.deepStrictEqual(
            invalid.map((problem) => problem.name),
            ["old"]
          )
          yield* collection.put("old", sample(2))
          assert.deepStrictEqual((yield* collection.list).length, 2)
        })
      )
    })
  )
})

describe("a transaction", () => {
  it.effect("does all of its operations, over several collections, or none", () =>
    fresh(
      Effect.gen(function* () {
        const state = yield* State.State
        const [a, b] = [yield* samples("a"), yield* samples("b")]
        const done = yield* state.transaction([
          a.putting("x", sample(1)),
          b.putting("y", sample(2)),
          a.removing("none")
        ])
        assert.deepStrictEqual(
          done.map((result) => (typeof result === "boolean" ? result : result.value.count)),
          [1, 2, false]
        )
        const refused = yield* Effect.flip(
          state.transaction([
            a.putting("x", sample(7)),
            a.putting("new", sample(7)),
            b.putting("y", sample(7), { expect: 9 })
          ])
        )
        assert.strictEqual(refused._tag, "StateConflict")
        const invalid = yield* Effect.flip(
          state.transaction([a.putting("x", sample(7)), b.putting("y", { ...sample(7), count: 0.1 })])
        )
        assert.strictEqual(invalid._tag, "StateValueInvalid")
        assert.deepStrictEqual(
          [...(yield* a.list), ...(yield* b.list)].map((r) => r.value.count),
          [1, 2]
        )
        // Later operations see the earlier ones.
        yield* state.transaction([
          a.removing("x"),
          a.putting("x", sample(5), { expect: "absent" }),
          a.putting("x", sample(6))
        ])
        const [record] = yield* a.list
        assert.deepInclude(record, { generation: 2, value: sample(6) })
      })
    )
  )

  it.effect("shares its commit with those that wait beside it, and a refused one does not touch them", () =>
    fresh(
      Effect.gen(function* () {
        const state = yield* State.State
        const collection = yield* samples()
        yield* collection.put("there", sample(0))
        const before = yield* state.facts
        const exits = yield* Effect.forEach(
          Array.from({ length: 500 }, (_, index) => index),
          (index) =>
            Effect.exit(
              index % 10 === 3
                ? collection.put("there", sample(index), { expect: "absent" })
                : collection.put(`n${index}`, sample(index))
            ),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(exits.filter(Exit.isSuccess).length, 450)
        assert.strictEqual((yield* collection.list).length, 451)
        const after = yield* state.facts
        assert.strictEqual(after.transactions - before.transactions, 500)
        assert.isBelow(after.commits - before.commits, 250)
      })
    )
  )

  it.effect("is carried out though its caller was interrupted", () =>
    fresh(
      Effect.gen(function* () {
        const collection = yield* samples()
        const fiber = yield* Effect.forkChild(collection.put("one", sample(1)), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        yield* collection.put("two", sample(2))
        assert.strictEqual((yield* collection.list).length, 2)
      })
    )
  )
})

describe("the database", () => {
  it.effect("is the same after closing and opening, private, and without a log left over", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryDirectory
      const path = join(directory, "state.db")
      const write = Effect.gen(function* () {
        const collection = yield* samples()
        yield* Effect.forEach([1, 2, 3], (count) => collection.put(`n${count}`, sample(count)))
        yield* collection.remove("n2")
        return yield* collection.list
      })
      const before = yield* withState(path, write)
      assert.strictEqual(statSync(path).mode & 0o777, 0o600)
      assert.isUndefined(statSync(`${path}-wal`, { throwIfNoEntry: false }))
      assert.deepStrictEqual(
        yield* withState(
          path,
          Effect.flatMap(samples(), (collection) => collection.list)
        ),
        before
      )
      const other = new DatabaseSync(path, { readOnly: true })
      assert.strictEqual(other.prepare("PRAGMA application_id").get()?.["application_id"], 0x49525744)
      other.close()
    })
  )

  it.effect("keeps its log bounded under a stream of writes", () =>
    fresh(
      Effect.gen(function* () {
        const state = yield* State.State
        const collection = yield* samples()
        const text = "x".repeat(20_000)
        for (let round = 0; round < 40; round++) {
          yield* Effect.forEach(
            Array.from({ length: 20 }, (_, index) => index),
            (index) => collection.put(`n${index}`, sample(round, text)),
            { concurrency: "unbounded" }
          )
        }
        // 16 MB were written; a checkpoint comes at 4 MB, plus at most one group.
        assert.isBelow((yield* state.facts).logBytes, 8 * 1024 * 1024)
      })
    )
  )

  it.effect("starts its thread again after that died, and reads go on meanwhile", () =>
    Effect.gen(function* () {
      const path = join(yield* temporaryDirectory, "state.db")
      const mortal = join(import.meta.dirname, "support/mortalStateWorker.ts")
      yield* withState(
        path,
        Effect.gen(function* () {
          const collection = yield* samples()
          yield* collection.put("one", sample(1))
          const error = yield* Effect.flip(collection.put("fatal", sample(2)))
          assert.strictEqual(error._tag === "StateUnavailable" ? error.reason : error._tag, "WorkerDied")
          assert.deepStrictEqual(
            (yield* collection.list).map((record) => record.name),
            ["one"]
          )
          yield* collection.put("two", sample(2))
          assert.deepStrictEqual(
            (yield* collection.list).map((record) => record.name),
            ["one", "two"]
          )
        }),
        mortal
      )
    })
  )

  it.effect("refuses writes once it is closed", () =>
    Effect.gen(function* () {
      const path = join(yield* temporaryDirectory, "state.db")
      const collection = yield* withState(path, samples())
      const error = yield* Effect.flip(collection.put("one", sample(1)))
      assert.strictEqual(error._tag === "StateUnavailable" ? error.reason : error._tag, "Closed")
    })
  )
})

describe("a request id", () => {
  const request = (id: string, content = "Create x") => ({ id, content })

  it.effect("gets the first answer again, also after a restart, without doing the work again", () =>
    Effect.gen(function* () {
      const path = join(yield* temporaryDirectory, "state.db")
      let done = 0
      const create = (id: string, content?: string) =>
        Effect.flatMap(State.State, (state) =>
          state.once(
            request(id, content),
            Schema.Struct({ count: Schema.Int }),
            Effect.sync(() => ({ count: ++done }))
          )
        )
      yield* withState(
        path,
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* create("r1"), { count: 1 })
          assert.deepStrictEqual(yield* create("r1"), { count: 1 })
          assert.deepStrictEqual(yield* create("r2"), { count: 2 })
          assert.deepStrictEqual(yield* create(""), { count: 3 })
          assert.deepStrictEqual(yield* create(""), { count: 4 })
        })
      )
      yield* withState(
        path,
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* create("r1"), { count: 1 })
          const reused = yield* Effect.flip(create("r1", "Create y"))
          assert.strictEqual(reused._tag, "StateRequestReused")
        })
      )
    })
  )

  it.effect("waits for the same request under way, and does not remember failures", () =>
    fresh(
      Effect.gen(function* () {
        const state = yield* State.State
        const gate = yield* Deferred.make<void>()
        let done = 0
        const work = Effect.andThen(
          Deferred.await(gate),
          Effect.sync(() => ++done)
        )
        const both = yield* Effect.forkChild(
          Effect.all([state.once(request("r"), Schema.Int, work), state.once(request("r"), Schema.Int, work)], {
            concurrency: 2
          })
        )
        yield* Deferred.succeed(gate, undefined)
        assert.deepStrictEqual(yield* Fiber.join(both), [1, 1])
        assert.strictEqual(yield* Effect.flip(state.once(request("f"), Schema.Int, Effect.fail("no"))), "no")
        assert.strictEqual(yield* state.once(request("f"), Schema.Int, Effect.succeed(5)), 5)
      })
    )
  )
})
