/**
 * A step of a machine's start, as an actor: something that is to be done once, within a deadline, and tried again when it
 * fails. It acknowledges its start at once, so no step holds up another or the API; what it found out is told in the tree, and
 * what it could not do is a reason in the tree, never the end of the start.
 *
 * A brain that is not the first does every step again, so a step must be one that can be.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Actor from "../actor/Actor.ts"
import * as RestartPolicy from "../actor/RestartPolicy.ts"
import { constant, type Setting } from "./Setting.ts"

/** A step could not be done. */
export class StepFailed extends Schema.TaggedError<StepFailed>()("StepFailed", {
  step: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.step}: ${this.problem}`
  }
}

/** At first soon, as what is missing may be on its way; then every minute. */
const policy = RestartPolicy.make({ backoff: { initial: "1 second", max: "1 minute" }, whenSpent: "keep-trying" })

/** What came of a step: facts for the tree, and in what it is less than it should be. */
export interface Outcome {
  readonly facts: Actor.Annotations
  readonly degraded?: string
  /** Done again after this time. */
  readonly again?: Duration.Input
}

export interface Options {
  readonly description: string
  readonly deadline: Duration.Input
}

/** A step that does what a setting says, and again whenever it says something else. */
export const following = <A, R>(
  name: string,
  { deadline, description }: Options,
  setting: Setting<A>,
  run: (wanted: A) => Effect.Effect<Outcome, StepFailed, R | Scope.Scope>
) =>
  Actor.make(
    name,
    { kind: "step", description, policy },
    Effect.gen(function* () {
      yield* Actor.ready()
      let told: Actor.Annotations = {}
      for (;;) {
        const wanted = yield* setting.current
        const {
          again,
          degraded = "",
          facts
        } = yield* Effect.timeoutOrElse(run(wanted), {
          duration: deadline,
          orElse: () =>
            new StepFailed({
              step: name,
              problem: `it was not done within ${Duration.format(Duration.fromInputUnsafe(deadline))}`
            })
        }).pipe(Effect.tapError(({ problem }) => setting.report(wanted, problem)))
        const news: Actor.Annotations = { ...facts, degraded }
        // a fact of the last time that does not hold any more is taken away; what is done again and again is mostly no news
        const gone = Object.keys(told).filter((fact) => !(fact in news))
        const changed = Object.entries(news).filter(([fact, value]) => told[fact] !== value)
        told = news
        if (gone.length + changed.length > 0) {
          yield* Actor.annotate(Object.fromEntries([...gone.map((fact) => [fact, ""] as const), ...changed]))
        }
        yield* setting.report(wanted, degraded)
        yield* Effect.raceFirst(again === undefined ? Effect.never : Effect.sleep(again), setting.changed(wanted))
      }
    })
  )

export const step = <R>(name: string, options: Options, run: Effect.Effect<Outcome, StepFailed, R | Scope.Scope>) =>
  following(name, options, constant(undefined), () => run)
