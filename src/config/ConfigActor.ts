/**
 * The actor `init/host/config`: takes over what a source of the machine says, looks after the deadline of a trial, and tells
 * in the tree what is in force and what is wrong, field by field.
 *
 * It acknowledges its start at once, so no source holds up the machine. A source that is wrong or gone changes nothing: the
 * last good config stays in force. What a source says counts when it is new: a change over the API is not undone at the next
 * start by the document that the machine was installed with.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Actor from "../actor/Actor.ts"
import * as RestartPolicy from "../actor/RestartPolicy.ts"
import type { KernelParameters } from "../host/KernelParameters.ts"
import * as Confirmed from "./Confirmed.ts"
import { describe } from "./Document.ts"
import { type Current, MachineConfigs, type SourceStatus } from "./MachineConfigs.ts"
import { AtStart, type Found, later } from "./Sources.ts"

const policy = RestartPolicy.make({ backoff: { initial: "1 second", max: "1 minute" }, whenSpent: "keep-trying" })

/** Between two tries of what does not go now: a URL that does not answer, a disk that is full. */
const again = Schedule.min([Schedule.exponential("1 second"), Schedule.spaced("1 minute")])

const say = (status: SourceStatus) => Effect.flatMap(MachineConfigs, ({ saySource }) => saySource(status))

/** Makes hold what a source says, unless it has said so before. Waits for the end of a trial. */
const takeOver = Effect.fnUntraced(function* ({ digest, document, name }: Extract<Found, { _tag: "Document" }>) {
  const configs = yield* MachineConfigs
  yield* say({ name, digest, violations: [] })
  const settled = configs.changes.pipe(
    Stream.filter(({ head }) => head.trial === undefined),
    Stream.take(1),
    Stream.runDrain
  )
  yield* Effect.gen(function* () {
    yield* settled
    const { head, problem } = yield* configs.current
    if (head.source !== digest || problem !== "") yield* configs.apply(document, { origin: name, source: digest })
  }).pipe(
    Effect.tapError((error) => say({ name, digest, violations: [{ field: "", description: error.message }] })),
    Effect.retry(again)
  )
  yield* say({ name, digest, violations: [] })
})

/** From a URL: for as long as it takes. */
const fetchLater = ({ name, url }: Extract<Found, { _tag: "Later" }>, digest: string | undefined) =>
  later(url, digest).pipe(
    Effect.tapError(({ problem }) => say({ name, digest: "", violations: [{ field: "", description: problem }] })),
    Effect.retry(again)
  )

const useSource = Effect.fnUntraced(function* (digest: string | undefined) {
  const atStart = yield* AtStart
  const found = atStart._tag === "Later" ? yield* fetchLater(atStart, digest) : atStart
  if (found._tag === "Document") yield* takeOver(found)
  if (found._tag === "Wrong") yield* say({ name: found.name, digest: "", violations: found.violations })
})

/** Takes back what is tried when its time is over, whoever is alive to see it. */
const watchDeadline = Effect.gen(function* () {
  const configs = yield* MachineConfigs
  for (;;) {
    const { head } = yield* configs.current
    const left = yield* configs.trialLeft
    const over = left === undefined ? Effect.never : Effect.as(Effect.sleep(left), true)
    const changed = configs.changes.pipe(
      Stream.filter((current) => current.head !== head),
      Stream.take(1),
      Stream.runDrain,
      Effect.as(false)
    )
    if (yield* Effect.raceFirst(over, changed)) {
      yield* configs.revert("deadline").pipe(
        Effect.catchTag("NothingOnTrial", () => Effect.void),
        Effect.catch((error) =>
          Effect.andThen(
            Effect.logWarning(`a machine config cannot be taken back: ${error.message}`),
            Effect.sleep("1 second")
          )
        )
      )
    }
  }
})

const keepConfirmed = ({ document, head }: Current) =>
  head.trial === undefined ? Confirmed.keep(document.config) : Effect.void

/** Why the machine is less than its config, or its source, wants it to be. */
const complaintOf = ({ problem }: Current, { name, violations }: SourceStatus): string =>
  [problem, violations.length === 0 ? "" : `${name}: ${describe(violations)}`].filter((text) => text !== "").join("; ")

const tell = Effect.fnUntraced(function* () {
  const configs = yield* MachineConfigs
  const current = yield* configs.current
  const source = yield* configs.source
  const { head } = current
  yield* Actor.annotate({
    revision: String(head.current),
    source: source.name,
    trial: head.trial === undefined ? "" : `goes back to revision ${head.trial.previous} unless it is confirmed`
  })
  yield* Actor.degraded(complaintOf(current, source))
})

/** `kernel`: of a machine that boots into Ironwood. */
export const configActor = (kernel: KernelParameters | undefined) =>
  Actor.make(
    "config",
    { kind: "step", description: "the machine config", policy },
    Effect.gen(function* () {
      const configs = yield* MachineConfigs
      yield* Actor.ready()
      yield* Effect.forkScoped(useSource(kernel?.configDigest))
      yield* Effect.forkScoped(watchDeadline)
      if (kernel !== undefined) yield* Effect.forkScoped(Stream.runForEach(configs.changes, keepConfirmed))
      yield* Stream.runForEach(Stream.merge(configs.changes, configs.sourceChanges), tell)
    })
  )
