/**
 * The actor `init/upgrade`: tells in the tree which brain runs and what became of the last upgrade, and confirms a brain that
 * taproot has on trial once it does its work.
 *
 * Use it as the last child of the root: it starts when all others have. A brain does its work when the API answers at its own
 * door and no workload of the brain before it waits to be adopted, {@link lastingTries} times in a row. One that never comes so
 * far says nothing, and taproot goes back when its time is over: that is not decided by whom it is about.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Actor from "../actor/Actor.ts"
import * as RestartPolicy from "../actor/RestartPolicy.ts"
import { Processes } from "../taproot/Processes.ts"
import { type Attempt, builtIn, reasons } from "./Record.ts"
import { type Status, Upgrades } from "./Upgrades.ts"

const policy = RestartPolicy.make({ backoff: { initial: "1 second", max: "1 minute" }, whenSpent: "keep-trying" })

/** What an entry of taproot's that is a workload's is called. */
const workload = "container/"

const lastingTries = 3

/** It does not do its work yet. */
class NotYet extends Schema.TaggedError<NotYet>()("NotYet", { problem: Schema.String }) {
  override get message() {
    return this.problem
  }
}

const nameOf = (brain: string, version: string): string =>
  brain === builtIn ? `${version} (built in)` : `${version} (${brain.slice(0, 12)})`

/** What is to be known of the last upgrade; empty when it went well. */
export const trouble = ({ attempt }: { readonly attempt?: Attempt | undefined }): string =>
  attempt?.fate === "fell-back" && attempt.fault !== undefined
    ? `brain ${nameOf(attempt.brain, attempt.version)} is not run: ${reasons[attempt.fault.reason]}; ${attempt.fault.detail}`
    : ""

const tell = Effect.fnUntraced(function* ({ note, onTrial, record, running, version }: Status) {
  const { attempt, previous } = record
  yield* Actor.annotate({
    brain: nameOf(running, version),
    "fall-back": previous === undefined || previous === builtIn ? builtIn : previous.slice(0, 12),
    trial: onTrial ? "it has to prove itself" : ""
  })
  yield* Actor.degraded(note === "" ? trouble({ attempt }) : note)
})

/** Waits until this brain does its work. `answers`: the API does, at its own door. */
const healthy = (answers: Effect.Effect<boolean>) =>
  Effect.gen(function* () {
    const processes = yield* Processes
    const look = Effect.gen(function* () {
      const waiting = (yield* processes.adoptable).filter(({ label }) => label.startsWith(workload))
      if (waiting.length > 0) return yield* new NotYet({ problem: `${waiting.length} workloads are not adopted yet` })
      if (!(yield* answers)) return yield* new NotYet({ problem: "the API does not answer yet" })
    })
    yield* Effect.repeat(look, Schedule.max([Schedule.spaced("1 second"), Schedule.recurs(lastingTries - 1)])).pipe(
      Effect.tapError(({ problem }) => Actor.annotate({ trial: problem })),
      Effect.retry(Schedule.spaced("500 millis"))
    )
  })

export const upgradeActor = (answers: Effect.Effect<boolean>) =>
  Actor.make(
    "upgrade",
    { kind: "step", description: "which brain runs, and what became of the last upgrade", policy },
    Effect.gen(function* () {
      const upgrades = yield* Upgrades
      const { hello } = yield* Processes
      yield* Actor.ready()
      yield* tell(yield* upgrades.status)
      if (hello.succession.state === "trial") {
        yield* healthy(answers)
        yield* upgrades.confirm
        yield* tell(yield* upgrades.status)
      }
      return yield* Effect.never
    })
  )
