/**
 * The state database against a model: whatever is done in whatever order, with the database closed and opened anywhere
 * between, it answers as a map would.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { join } from "node:path"
import * as State from "../../src/storage/State.ts"
import { temporaryDirectory, withState } from "./support/state.ts"

// Few kinds and names, so that commands meet; nasty ones, so that SQL, JSON and UTF-8 are met.
const Kind = Schema.Literals(["container", "sandbox", "it's"])
const Name = Schema.Literals(["a", "A", "b", "zwölf", "\u{1F332}", "x'; DROP TABLE record; --", " ", "\n", "%"])
const Value = Schema.Struct({
  text: Schema.String,
  count: Schema.Int,
  deep: Schema.optionalKey(Schema.Array(Schema.Json))
})

const Put = Schema.TaggedStruct("Put", {
  kind: Kind,
  name: Name,
  value: Value,
  expect: Schema.Literals(["anything", "absent", "present", "stale"])
})
const Remove = Schema.TaggedStruct("Remove", {
  kind: Kind,
  name: Name,
  expect: Schema.Literals(["anything", "present", "stale"])
})
const Write = Schema.Union([Put, Remove])
const Command = Schema.Union([
  Write,
  Schema.TaggedStruct("Transaction", { writes: Schema.Array(Write).pipe(Schema.check(Schema.isMaxLength(5))) }),
  Schema.TaggedStruct("Reopen", {})
])
const Commands = Schema.Array(Command).pipe(Schema.check(Schema.isMaxLength(40)))
type Write = typeof Write.Type

interface ModelRecord {
  readonly generation: number
  readonly value: typeof Value.Type
}
type Model = Map<string, ModelRecord>
const key = (kind: string, name: string): string => `${kind}/${name}`

/** What JSON makes of a value: it knows no negative zero. */
const throughJson = (value: typeof Value.Type): typeof Value.Type =>
  Schema.decodeUnknownSync(Value)(JSON.parse(JSON.stringify(value)))

/** Applies a write to the model; false when its expectation is not met. */
const applyToModel = (model: Model, write: Write): boolean => {
  const found = model.get(key(write.kind, write.name))
  if (write.expect === "absent" && found !== undefined) return false
  if (write.expect === "present" && found === undefined) return false
  if (write.expect === "stale") return false
  if (write._tag === "Remove") model.delete(key(write.kind, write.name))
  else
    model.set(key(write.kind, write.name), {
      generation: (found?.generation ?? 0) + 1,
      value: throughJson(write.value)
    })
  return true
}

const operationOf = (
  collection: State.Collection<typeof Value.Type>,
  model: Model,
  write: Write
): State.Operation<unknown> => {
  // No record ever comes to these generations.
  const present = model.get(key(write.kind, write.name))?.generation ?? 1_000
  const expectations = { anything: undefined, absent: "absent", present, stale: 1_000_000 } as const
  const options = { expect: expectations[write.expect] }
  return write._tag === "Put"
    ? collection.putting(write.name, write.value, options)
    : collection.removing(write.name, options)
}

const collections = Effect.flatMap(State.State, (state) =>
  Effect.all({
    container: state.collection("container", Value),
    sandbox: state.collection("sandbox", Value),
    "it's": state.collection("it's", Value)
  })
)

const agrees = Effect.fnUntraced(function* (model: Model) {
  const found = new Map<string, ModelRecord>()
  for (const collection of Object.values(yield* collections)) {
    const records = yield* collection.list
    assert.deepStrictEqual(
      records.map((record) => record.name),
      records.map((record) => record.name).sort()
    )
    for (const record of records) {
      assert.deepStrictEqual(yield* collection.get(record.name), Option.some(record))
      found.set(key(record.kind, record.name), { generation: record.generation, value: record.value })
    }
  }
  assert.deepStrictEqual(found, model)
})

/** Runs commands up to the next `Reopen`; answers those behind it. */
const runUntilReopen = Effect.fnUntraced(function* (model: Model, commands: ReadonlyArray<typeof Command.Type>) {
  const state = yield* State.State
  const byKind = yield* collections
  yield* agrees(model)
  for (const [index, command] of commands.entries()) {
    if (command._tag === "Reopen") return commands.slice(index + 1)
    const writes = command._tag === "Transaction" ? command.writes : [command]
    const after = new Map(model)
    const operations: Array<State.Operation<unknown>> = []
    let accepted = true
    for (const write of writes) {
      operations.push(operationOf(byKind[write.kind], after, write))
      accepted = accepted && applyToModel(after, write)
    }
    const done = yield* Effect.result(state.transaction(operations))
    assert.strictEqual(done._tag, accepted ? "Success" : "Failure")
    if (done._tag === "Failure") assert.strictEqual(done.failure._tag, "StateConflict")
    if (!accepted) continue
    model.clear()
    for (const [name, record] of after) model.set(name, record)
  }
  yield* agrees(model)
  return []
})

describe("State", () => {
  it.effect.prop(
    "answers as a map does",
    [Commands],
    ([commands]) =>
      Effect.gen(function* () {
        const path = join(yield* temporaryDirectory, "state.db")
        const model: Model = new Map()
        let rest: ReadonlyArray<typeof Command.Type> = [...commands, { _tag: "Reopen" }]
        while (rest.length > 0) rest = yield* withState(path, runUntilReopen(model, rest))
        yield* withState(path, agrees(model))
      }).pipe(Effect.scoped),
    { arbitrary: { runs: 25 } }
  )
})
