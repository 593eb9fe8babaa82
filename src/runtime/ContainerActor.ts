/**
 * The actor of one container: it has a run (the one that is still there, or a new one), waits for its end, and ends with
 * what that end means. Everything else is its restart policy's business.
 *
 * Its two endings are the actor's: *stop* ends the process (signal, grace, kill) and clears away all of the run; *release*
 * touches nothing, and the next incarnation, in this brain or the next, finds the process again.
 *
 * While it runs it is asked whether it is well (`Probes.ts`); one that is not is ended in its own way, and the probe's failure is
 * what its policy judges, whatever its exit says.
 *
 * Trap: the actor's incarnation numbers its own lives, the run's those of the process: an adopted run keeps its number.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Actor from "../actor/Actor.ts"
import type { ChildSpec } from "../actor/ChildSpec.ts"
import { isFinal } from "../actor/Decision.ts"
import * as ExitView from "../actor/ExitView.ts"
import type { Self } from "../actor/Self.ts"
import type { Processes } from "../taproot/Processes.ts"
import * as ProcessAge from "../taproot/ProcessAge.ts"
import type { ContainerFailure } from "./ContainerExit.ts"
import { type ContainerRun, ContainerRuns } from "./ContainerRuns.ts"
import type { ContainerSpec } from "./ContainerSpec.ts"
import { dependenciesOf } from "./Dependencies.ts"
import type { Executions } from "./Executions.ts"
import * as ProbeChecks from "./ProbeChecks.ts"
import * as Probes from "./Probes.ts"
import { type ContainerRecord, isWanted, type Records, type SandboxRecord } from "./Records.ts"

/** What a stop takes beyond the grace: the kill, the last of the log, the runtime's and the kernel's clean-up. */
export const CLEARING = Duration.seconds(45)

/** Asks whether it is well, until it is not; how that was found. */
const unwellness = (
  { name, probes }: ContainerSpec,
  run: ContainerRun,
  age: Duration.Duration,
  paused: { readonly now: boolean },
  self: Self["Service"]
) =>
  Effect.flatMap(ProbeChecks.make, (checks) =>
    Effect.flip(
      Probes.watch({
        name,
        spec: probes,
        check: checks(run),
        // nobody who is frozen can answer
        awake: Effect.suspend(() => (paused.now ? Effect.delay(Effect.void, "200 millis") : Effect.void)).pipe(
          Effect.repeat({ until: () => !paused.now })
        ),
        age: Duration.toMillis(age),
        ready: (ready, why) => Effect.sync(() => self.annotate({ ready: ready ? "yes" : `no: ${why}` }))
      })
    )
  )

export const containerActor = (
  record: ContainerRecord,
  sandbox: SandboxRecord,
  records: Records,
  /** Nothing of it is left to be looked after: it goes on as an earlier brain left it, instead of starting. */
  resume = false
): ChildSpec<ContainerFailure, ContainerRuns | Executions | Processes> => {
  const { spec } = record
  return Actor.make(
    spec.name,
    {
      kind: "container",
      description: spec.image,
      policy: spec.restart,
      shutdown: Duration.sum(spec.stopGracePeriod, CLEARING),
      // a pull ends by itself when nothing comes any more
      startDeadline: spec.imagePull === undefined || spec.imagePull === "never" ? "3 minutes" : "1 hour",
      autoStart: isWanted(record),
      dependencies: dependenciesOf(spec),
      resume,
      // one that shall run once stays to be looked at
      keep: true
    },
    Effect.gen(function* () {
      const runs = yield* ContainerRuns
      const self = yield* Actor.Self
      const { incarnation } = self
      const stored = Effect.orElseSucceed(records.containers.get(spec.name), Option.none)
      yield* Actor.onStop(
        Effect.gen(function* () {
          // How it is to be stopped was committed just now.
          const present = Option.match(yield* stored, { onNone: () => record, onSome: ({ value }) => value })
          const ended = yield* runs.stop(present, yield* runs.ending(present))
          if (Option.isSome(ended)) yield* Actor.stopped(ended.value)
        })
      )

      /** With the image that it starts from; one that was pulled just now is what it has from then on. */
      const withImage = Effect.gen(function* () {
        const present = Option.match(yield* stored, { onNone: () => record, onSome: ({ value }) => value })
        const image = yield* runs.image(present)
        if (image === undefined || image === present.image) return present
        // where it cannot be written the next start pulls again
        yield* Effect.ignore(records.containers.update(spec.name, ({ value }) => ({ ...value, image })))
        return { ...present, image }
      })

      const found = yield* runs.find(record)
      const run = Option.isSome(found) ? found.value : yield* runs.start(yield* withImage, sandbox, incarnation)
      const facts = { pid: String(run.process.pid), run: run.id }
      const age = yield* ProcessAge.of(run.process, run.system.files.uptime)
      yield* Option.isSome(found) ? Actor.adopted(facts, age) : Actor.ready(facts, age)

      const paused = { now: false }
      yield* runs.onPause(spec.name, (now) => {
        paused.now = now
        self.annotate({ paused: now ? "yes" : "" })
      })
      const ended = Effect.as(run.process.exit, undefined)
      // what nobody asks for needs no fiber that waits for ever
      const unwell = yield* Effect.scoped(
        Effect.andThen(
          runs.troubles(record, run, (why) => self.annotate({ degraded: why })),
          Probes.isAsked(spec.probes) ? Effect.raceFirst(ended, unwellness(spec, run, age, paused, self)) : ended
        )
      )
      const exit =
        unwell === undefined
          ? yield* run.process.exit
          : yield* Effect.flatMap(runs.ending(record), (ending) => runs.terminate(run, ending))
      yield* runs.verdict(
        record,
        run,
        exit,
        Effect.fnUntraced(function* (verdict) {
          const view = ExitView.fromExit(0, verdict, false)
          // The policy may have been changed since; a state that cannot be written is no reason to hide how it ended.
          const last = (present: ContainerRecord) => ({ ...present, completed: isFinal(present.spec.restart, view) })
          const present = yield* stored
          if (Option.isSome(present) && last(present.value.value).completed) {
            yield* Effect.ignore(records.containers.update(spec.name, ({ value }) => last(value)))
          }
        }),
        unwell
      )
    })
  )
}
