/**
 * `storage/state` in the tree: the state database as an actor. It shows where the file is and, as `degraded`, that its disk
 * is full or why writes fail now. Each incarnation is one life of the worker thread: when that dies, the actor fails with it, and
 * its restart opens the database anew.
 *
 * The database itself is opened before the tree starts (the tree's journal is in it) and closed after the tree has ended.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import { dirname } from "node:path"
import * as Actor from "../actor/Actor.ts"
import * as DiskRoom from "./DiskRoom.ts"
import { State } from "./State.ts"

export const stateActor = Actor.make(
  "state",
  { kind: "database", description: "Desired state and the tree's journal, in SQLite" },
  Effect.gen(function* () {
    const state = yield* State
    const facts = yield* state.facts
    yield* Actor.ready({ file: state.path, sqlite: facts.sqliteVersion, layout: String(facts.schemaVersion) })

    let shown = ""
    const showTrouble = Effect.gen(function* () {
      // What lets go is written on a full disk too, so that a write has just succeeded does not say that all is well.
      const full = yield* Effect.match(DiskRoom.look(dirname(state.path)), {
        onFailure: () => "",
        onSuccess: DiskRoom.describeFull
      })
      const trouble = Option.match(yield* state.trouble, { onNone: () => "", onSome: (failure) => failure.message })
      const reason = full === "" ? trouble : full
      if (reason === shown) return
      shown = reason
      yield* Actor.degraded(reason)
    })
    yield* Effect.raceFirst(state.died, Effect.repeat(showTrouble, Schedule.spaced("2 seconds")))
  })
)
