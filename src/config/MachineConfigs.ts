/**
 * `MachineConfigs`: the machine config of this Ironwood. What is in force, what would change, and every way to change it;
 * and the settings that the actors of the host follow.
 *
 * A change is committed to the state directory, then done: the parts that differ go to the actors that follow them, and the
 * answer waits for their reports, up to {@link patience}. What becomes of a trial is `Lifecycle.table`'s to say.
 *
 * Trap: the deadline of a trial is looked after by the actor `init/host/config` (`ConfigActor.ts`), not here.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { BootClock } from "../host/BootClock.ts"
import type { Setting } from "../host/Setting.ts"
import type { StateConflict, StateFailure, StateValueInvalid } from "../storage/StateErrors.ts"
import * as Changes from "./Changes.ts"
import { ConfigInvalid, ConfigOnTrial, type RevisionNotFound, NothingOnTrial, RevisionMoved } from "./ConfigErrors.ts"
import { describe, type Document, read, type Violation, write } from "./Document.ts"
import { effective, type Part, type Parts, settle } from "./Effective.ts"
import { type ConfigEvent, table } from "./Lifecycle.ts"
import { empty } from "./MachineConfig.ts"
import * as Revisions from "./Revisions.ts"

/** How long an answer waits for the actors that do what a config says. */
const patience = "10 seconds"

type StoreFailed = StateConflict | StateFailure | StateValueInvalid

/** What holds now. */
export interface Current {
  readonly head: Revisions.Head
  readonly document: Document
  /** Why the revision that should be in force is not; else empty. */
  readonly problem: string
}

/** What a source of the machine said, at its start or later. */
export interface SourceStatus {
  /** In words; empty: there is none. */
  readonly name: string
  /** Of what it said; empty when that is wrong, or not there. */
  readonly digest: string
  /** What is wrong with it. */
  readonly violations: ReadonlyArray<Violation>
}

/** A change that could be made. */
export interface Plan {
  readonly document: Document
  readonly changes: ReadonlyArray<Changes.Change>
}

/** A change that was made. */
export interface Applied extends Plan {
  readonly head: Revisions.Head
  /** What could not be done of it, by field. */
  readonly problems: ReadonlyArray<Violation>
}

export interface ApplyOptions {
  /** Taken back after this time unless confirmed. */
  readonly tryFor?: Duration.Duration | undefined
  /** The revision that must be in force. */
  readonly expect?: number | undefined
  /** Who says so, in words. */
  readonly origin: string
  /** The digest of what a source of the machine said. */
  readonly source?: string | undefined
  /** Everything but the change itself. */
  readonly validateOnly?: boolean | undefined
}

export class MachineConfigs extends Context.Service<
  MachineConfigs,
  {
    readonly current: Effect.Effect<Current>
    /** What holds now, and whenever it changes. */
    readonly changes: Stream.Stream<Current>
    /** What the machine's source said. */
    readonly source: Effect.Effect<SourceStatus>
    readonly sourceChanges: Stream.Stream<SourceStatus>
    /** For the actor `init/host/config`, which looks at the source. */
    readonly saySource: (status: SourceStatus) => Effect.Effect<void>
    /** What has not been done of what holds, by field. */
    readonly problems: Effect.Effect<ReadonlyArray<Violation>>
    /** What would change. */
    readonly plan: (document: Document) => Effect.Effect<Plan>
    readonly apply: (
      document: Document,
      options: ApplyOptions
    ) => Effect.Effect<Applied, ConfigInvalid | ConfigOnTrial | RevisionMoved | StoreFailed>
    readonly confirm: Effect.Effect<Current, NothingOnTrial | StoreFailed>
    /** Takes back what is being tried; `deadline` does nothing when its time is not over. */
    readonly revert: (why: "revert" | "deadline") => Effect.Effect<Applied, NothingOnTrial | StoreFailed>
    /** How many milliseconds what is tried has left; undefined when nothing is. */
    readonly trialLeft: Effect.Effect<number | undefined>
    /** Those that are kept, the newest first. */
    readonly history: Effect.Effect<ReadonlyArray<Revisions.Revision>>
    readonly revision: (number: number) => Effect.Effect<Revisions.Revision, RevisionNotFound | StateValueInvalid>
    /** A part, for the one actor that does it. */
    readonly setting: <P extends Part>(part: P) => Setting<Parts[P]>
    /** The same, for who only looks. */
    readonly parts: () => Parts
  }
>()("ironwood/config/MachineConfigs") {}

const fields: Readonly<Record<Part, string>> = {
  hostname: "hostname",
  network: "network",
  time: "time.servers",
  sysctls: "kernel.sysctls",
  modules: "kernel.modules",
  watchdog: "watchdog",
  consoleLevel: "kernel.consoleLevel",
  listen: "api.listenInsecure",
  restarts: "restarts",
  upgrade: "upgrade",
  registries: "registries",
  images: "images",
  containers: "containers"
}

const isPart = (name: string): name is Part => name in fields
/** All of them: the record above has each, or it does not compile. */
const partNames = Object.keys(fields).filter(isPart)

const nothing: Document = { text: write(empty), config: empty }

/** `here`: what the kernel was told, on a machine that boots into Ironwood. */
const make = Effect.fnUntraced(function* (here: Changes.Here) {
  const clock = yield* BootClock
  const revisions = yield* Revisions.make
  const lock = Semaphore.makeUnsafe(1)

  /** The document of a revision, or none and why. */
  const load = (number: number) =>
    number === 0
      ? Effect.succeed({ document: nothing, problem: "" })
      : revisions.get(number).pipe(
          Effect.map(({ text }) =>
            Result.match(read(text), {
              onSuccess: (document) => ({ document, problem: "" }),
              onFailure: (violations) => ({
                document: nothing,
                problem: `this version of Ironwood does not understand revision ${number}: ${describe(violations)}`
              })
            })
          ),
          Effect.catch((error) => Effect.succeed({ document: nothing, problem: error.message }))
        )

  const withFate = Effect.fnUntraced(function* (number: number, fate: Revisions.Fate) {
    const found = yield* Effect.option(revisions.get(number))
    return found._tag === "Some" ? [{ ...found.value, fate }] : []
  })

  /** Commits the way back from a trial. */
  const goBack = Effect.fnUntraced(function* ({ trial, ...head }: Revisions.Head) {
    if (trial === undefined) return head
    const next: Revisions.Head = { ...head, current: trial.previous }
    yield* revisions.commit(next, yield* withFate(head.current, "reverted"))
    return next
  })

  /** The same where nobody waits for an answer: what is tried may be what keeps the disk from being written. */
  const goBackAnyway = (from: Revisions.Head) =>
    Effect.catch(goBack(from), ({ message }) => {
      const { trial, ...without } = from
      const next: Revisions.Head = { ...without, current: trial?.previous ?? from.current }
      return Effect.as(Effect.logWarning(`that a machine config was taken back cannot be kept: ${message}`), next)
    })

  let head = yield* revisions.head
  const stateOf = ({ trial }: Revisions.Head) => (trial === undefined ? "settled" : "trying")
  const actionOf = (event: ConfigEvent) => table[stateOf(head)][event]

  if (actionOf(head.trial?.bootId === clock.bootId ? "brain-start" : "machine-start") === "revert") {
    head = yield* goBackAnyway(head)
  }
  const current = yield* SubscriptionRef.make<Current>({ head, ...(yield* load(head.current)) })
  const parts = yield* SubscriptionRef.make(effective(SubscriptionRef.getUnsafe(current).document.config, here))
  /** What came of each part: the value that was done, and what of it could not be. */
  const reports = yield* SubscriptionRef.make<ReadonlyMap<Part, { readonly seen: unknown; readonly problem: string }>>(
    new Map()
  )
  const followed = new Set<Part>()
  const source = yield* SubscriptionRef.make<SourceStatus>({ name: "", digest: "", violations: [] })

  const setting = <P extends Part>(part: P): Setting<Parts[P]> => {
    followed.add(part)
    return {
      current: Effect.map(SubscriptionRef.get(parts), (all) => all[part]),
      changed: (seen) =>
        SubscriptionRef.changes(parts).pipe(
          Stream.filter((all) => all[part] !== seen),
          Stream.take(1),
          Stream.runDrain
        ),
      report: (seen, problem) => SubscriptionRef.update(reports, (all) => new Map(all).set(part, { seen, problem }))
    }
  }

  /** What is left undone of these parts, by field. */
  const undone = (wanted: Parts, names: ReadonlyArray<Part>): Effect.Effect<ReadonlyArray<Violation>> =>
    Effect.map(SubscriptionRef.get(reports), (all) =>
      names.flatMap((part) => {
        const report = all.get(part)
        const description =
          report !== undefined && report.seen === wanted[part]
            ? report.problem
            : "is not done yet; `ironwood tree init/host` tells how it goes"
        return description === "" ? [] : [{ field: fields[part], description }]
      })
    )

  /** Waits until these parts have been reported, or for long enough. */
  const settled = (wanted: Parts, names: ReadonlyArray<Part>) =>
    SubscriptionRef.changes(reports).pipe(
      Stream.filter((all) => names.every((part) => all.has(part) && all.get(part)?.seen === wanted[part])),
      Stream.take(1),
      Stream.runDrain,
      Effect.timeoutOption(patience),
      Effect.andThen(undone(wanted, names))
    )

  /** Makes a document that was committed hold; the parts that it changes. */
  const enforce = Effect.fnUntraced(function* (next: Revisions.Head, document: Document, problem: string) {
    const before = SubscriptionRef.getUnsafe(parts)
    const after = settle(before, effective(document.config, here))
    head = next
    yield* SubscriptionRef.set(current, { head, document, problem })
    yield* SubscriptionRef.set(parts, after)
    const changed = partNames.filter((part) => followed.has(part) && before[part] !== after[part])
    return { head: next, after, changed }
  })

  const plan = (document: Document) =>
    Effect.map(SubscriptionRef.get(current), (now): Plan => ({
      document,
      changes: Changes.between(now.document.config, document.config, here)
    }))

  /** What would change; fails as the change itself would. */
  const check = Effect.fnUntraced(function* (document: Document, { expect, source, tryFor }: ApplyOptions) {
    const { changes } = yield* plan(document)
    const misplaced = changes.filter(({ reach }) => reach === "elsewhere")
    if (misplaced.length > 0) {
      return yield* new ConfigInvalid({
        violations: misplaced.map(({ field, note }) => ({ field, description: `cannot be set here: ${note}` }))
      })
    }
    if (expect !== undefined && expect !== head.current) {
      return yield* new RevisionMoved({ expected: expect, current: head.current })
    }
    const action = actionOf(source !== undefined ? "source" : tryFor === undefined ? "apply" : "try")
    if (action === "refuse" || action === "wait") return yield* new ConfigOnTrial({ revision: head.current })
    return { action, changes }
  })

  const commitDocument = Effect.fnUntraced(function* (document: Document, options: ApplyOptions) {
    const { action, changes } = yield* check(document, options)
    const { source = head.source, tryFor } = options
    // the same document again is no revision of its own, and nothing to try
    const isNews = document.text !== SubscriptionRef.getUnsafe(current).document.text
    const number = isNews ? head.last + 1 : head.current
    const trial =
      tryFor === undefined || !isNews
        ? head.trial
        : {
            previous: head.trial?.previous ?? head.current,
            bootId: clock.bootId,
            until: (yield* clock.now) + Duration.toMillis(tryFor)
          }
    const next: Revisions.Head = {
      current: number,
      last: Math.max(head.last, number),
      ...(source === undefined ? {} : { source }),
      ...(trial === undefined ? {} : { trial })
    }
    const revision: Revisions.Revision = {
      number,
      text: document.text,
      at: yield* Clock.currentTimeMillis,
      origin: options.origin,
      fate: tryFor === undefined ? "applied" : "trying"
    }
    const superseded = action === "retry" && isNews ? yield* withFate(head.current, "reverted") : []
    yield* revisions.commit(next, isNews ? [...superseded, revision] : [])
    return { changes, ...(yield* enforce(next, document, "")) }
  })

  /** One change at a time, each whole once it has begun; who waits for what comes of it does not hold up the next. */
  const exclusively = <A, E, R>(change: Effect.Effect<A, E, R>) => lock.withPermit(Effect.uninterruptible(change))

  return MachineConfigs.of({
    current: SubscriptionRef.get(current),
    changes: SubscriptionRef.changes(current),
    source: SubscriptionRef.get(source),
    sourceChanges: SubscriptionRef.changes(source),
    saySource: (status) => SubscriptionRef.set(source, status),
    problems: Effect.suspend(() => undone(SubscriptionRef.getUnsafe(parts), [...followed])),
    plan,
    apply: Effect.fn("MachineConfigs.apply")(function* (document, options) {
      if (options.validateOnly === true) {
        return { document, head, problems: [], changes: (yield* check(document, options)).changes }
      }
      const { after, changed, ...made } = yield* exclusively(commitDocument(document, options))
      return { document, ...made, problems: yield* settled(after, changed) }
    }),
    confirm: exclusively(
      Effect.gen(function* () {
        if (actionOf("confirm") === "refuse") return yield* new NothingOnTrial({ current: head.current })
        const { trial: _, ...next } = head
        yield* revisions.commit(next, yield* withFate(head.current, "confirmed"))
        const { document, problem } = SubscriptionRef.getUnsafe(current)
        yield* enforce(next, document, problem)
        return SubscriptionRef.getUnsafe(current)
      })
    ),
    revert: Effect.fn("MachineConfigs.revert")(function* (why) {
      const { after, changed, ...made } = yield* exclusively(
        Effect.gen(function* () {
          const isOver = why === "revert" || (head.trial !== undefined && head.trial.until <= (yield* clock.now))
          if (actionOf(why) !== "revert" || !isOver) return yield* new NothingOnTrial({ current: head.current })
          const before = SubscriptionRef.getUnsafe(current).document
          const next = yield* why === "deadline" ? goBackAnyway(head) : goBack(head)
          const { document, problem } = yield* load(next.current)
          const changes = Changes.between(before.config, document.config, here)
          return { document, changes, ...(yield* enforce(next, document, problem)) }
        })
      )
      return { ...made, problems: yield* settled(after, changed) }
    }),
    trialLeft: Effect.map(clock.now, (now) =>
      head.trial === undefined ? undefined : Math.max(0, head.trial.until - now)
    ),
    history: Effect.map(revisions.list, (all) => all.toReversed()),
    revision: revisions.get,
    setting,
    parts: () => SubscriptionRef.getUnsafe(parts)
  })
})

export const layer = (here: Changes.Here) => Layer.effect(MachineConfigs, make(here))
