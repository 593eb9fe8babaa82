/** Kill -9 at random moments: whatever was acknowledged is there, nothing is there in part, the file opens. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { Journal } from "../../src/actor/Journal.ts"
import * as State from "../../src/storage/State.ts"
import * as StateJournal from "../../src/storage/StateJournal.ts"
import { Sample, temporaryDirectory, withState } from "./support/state.ts"

const writer = join(import.meta.dirname, "support/stateWriter.ts")
const rounds = Number(process.env["IRONWOOD_CRASH_ROUNDS"] ?? 10)

/** The last number that was acknowledged under each name, by a writer killed `delay` ms after its first acknowledgement. */
const writeUntilKilled = (path: string, delay: number): Effect.Effect<ReadonlyMap<string, number>> =>
  Effect.callback((resume) => {
    const child = spawn(process.execPath, [writer, path], { stdio: ["ignore", "pipe", "inherit"] })
    const acknowledged = new Map<string, number>()
    let rest = ""
    let timer: NodeJS.Timeout | undefined
    child.stdout.setEncoding("utf8")
    child.stdout.on("data", (text: string) => {
      timer ??= setTimeout(() => child.kill("SIGKILL"), delay)
      const lines = (rest + text).split("\n")
      // A line cut off by the kill was not said.
      rest = lines.pop() ?? ""
      for (const line of lines) {
        const [name = "", count] = line.split(" ")
        acknowledged.set(name, Number(count))
      }
    })
    child.on("close", () => resume(Effect.succeed(acknowledged)))
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

const check = Effect.fnUntraced(function* (acknowledged: ReadonlyMap<string, number>) {
  const state = yield* State.State
  const [left, right] = [yield* state.collection("left", Sample), yield* state.collection("right", Sample)]
  const { revision } = yield* (yield* Journal).load
  for (const [name, count] of acknowledged) {
    if (name === "revision") {
      assert.isAtLeast(revision, count)
      continue
    }
    const record = yield* left.get(name)
    assert.isAtLeast(Option.match(record, { onNone: () => 0, onSome: ({ value }) => value.count }), count, name)
  }
  // Both halves of each transaction, or none.
  assert.deepStrictEqual(
    (yield* left.list).map(({ name, value }) => ({ name, value })),
    (yield* right.list).map(({ name, value }) => ({ name, value }))
  )
  return acknowledged.size
})

describe("State", () => {
  it.live(
    "loses nothing acknowledged and keeps nothing in part when its process is killed",
    () =>
      Effect.gen(function* () {
        const path = join(yield* temporaryDirectory, "state.db")
        for (let round = 0; round < rounds; round++) {
          const acknowledged = yield* writeUntilKilled(path, Math.random() * 150)
          assert.isAbove(acknowledged.size, 0, "the writer must have written")
          yield* withState(path, Effect.provide(check(acknowledged), StateJournal.layer()))
        }
      }),
    600_000
  )
})
