/**
 * A process that writes to a state database until it is killed, for the crash test: `node stateWriter.ts FILE`. On stdout,
 * after each acknowledgement: `<writer> <count>` when `count` is durable in both collections under the writer's name, and
 * `revision <n>` when the journal has reserved n.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { writeSync } from "node:fs"
import { Journal } from "../../../src/actor/Journal.ts"
import * as State from "../../../src/storage/State.ts"
import * as StateJournal from "../../../src/storage/StateJournal.ts"
import { Sample, sample } from "./state.ts"

const say = (line: string): Effect.Effect<void> => Effect.sync(() => void writeSync(1, `${line}\n`))

const program = Effect.gen(function* () {
  const state = yield* State.State
  const journal = yield* Journal
  const [left, right] = [yield* state.collection("left", Sample), yield* state.collection("right", Sample)]

  const write = Effect.fnUntraced(function* (name: string) {
    const [before] = (yield* left.list).filter((record) => record.name === name)
    for (let count = (before?.value.count ?? 0) + 1; ; count++) {
      // Large enough for several pages, so that a transaction in part would show.
      const value = sample(count, "x".repeat(count % 9_000))
      yield* state.transaction([left.putting(name, value), right.putting(name, value)])
      yield* say(`${name} ${count}`)
    }
  })
  const reserve = Effect.gen(function* () {
    const { revision } = yield* journal.load
    for (let ceiling = revision + 1; ; ceiling++) {
      yield* journal.append([{ _tag: "Reserve", ceiling }])
      yield* say(`revision ${ceiling}`)
    }
  })
  yield* Effect.all([write("a"), write("b"), write("c"), write("d"), reserve], { concurrency: "unbounded" })
})

const path = process.argv[2]
if (path === undefined) throw new Error("usage: stateWriter.ts FILE")
void Effect.runPromise(
  program.pipe(Effect.provide(StateJournal.layer().pipe(Layer.provideMerge(State.layer({ path })))))
)
