/**
 * The main thread's side of the state database: starts the worker, sends it requests, keeps the mirror. For `State` and
 * `StateJournal`; others use those.
 *
 * A worker that dies takes its unanswered requests with it (`WorkerDied`); the next request starts another and reads the
 * database anew. At most `MAX_PENDING` transactions are on their way; further ones wait their turn here.
 *
 * Trap: a request that is interrupted after it was sent is carried out all the same.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import { join } from "node:path"
import { Worker } from "node:worker_threads"
import { StateConflict, StateCorrupt, type StateFailure, StateForeign, StateUnavailable } from "./StateErrors.ts"
import { StateMirror } from "./StateMirror.ts"
import type {
  Change,
  ChangeResult,
  DatabaseFacts,
  Expectation,
  Fault,
  JournalContents,
  Outcome,
  Refusal,
  WorkerAnswer,
  WorkerRequest
} from "./StateProtocol.ts"

/** Transactions on their way to the disk at most. */
const MAX_PENDING = 256

/** How long closing may take (it merges the log) before the worker is ended without it; the next start merges it then. */
const CLOSE_DEADLINE = Duration.seconds(10)

export interface Options {
  /** The database file; made when it is not there. Its directory must exist. */
  readonly path: string
  /** The worker's program. Default: `StateWorker.ts`, or `state-worker.cjs` beside the bundle. */
  readonly workerFile?: string
}

export class StateConnection extends Context.Service<
  StateConnection,
  {
    readonly path: string
    readonly mirror: StateMirror
    /** Succeeds when the changes are durable and the mirror shows them. */
    readonly transact: (
      changes: ReadonlyArray<Change>
    ) => Effect.Effect<ReadonlyArray<ChangeResult>, StateFailure | StateConflict>
    /** Reads the whole journal, handing over part after part, oldest first. */
    readonly loadJournal: (onPart: (part: JournalContents) => void) => Effect.Effect<void, StateFailure>
    readonly facts: Effect.Effect<DatabaseFacts, StateFailure>
    /** Why the database served not, until a write succeeds again. */
    readonly trouble: Effect.Effect<Option.Option<StateFailure>>
    /** Waits for the end of the worker that lives now. */
    readonly died: Effect.Effect<never, StateFailure>
  }
>()("ironwood/storage/StateConnection") {}

const closed: Fault = { _tag: "Unavailable", reason: "Closed", detail: "closed in order" }

// In a bundle `import.meta` is that of the bundle, as scripts/build.ts defines it.
const defaultWorkerFile = (): string =>
  join(import.meta.dirname, import.meta.filename.endsWith(".ts") ? "StateWorker.ts" : "state-worker.cjs")

const failureOf = (path: string, fault: Fault): StateFailure => {
  switch (fault._tag) {
    case "Unavailable":
      return new StateUnavailable({ path, reason: fault.reason, detail: fault.detail })
    case "Corrupt":
      return new StateCorrupt({ path, detail: fault.detail })
    case "Foreign":
      return new StateForeign({ path, detail: fault.detail })
  }
}

const describe = (expected: Expectation): string =>
  expected === "absent"
    ? "no record"
    : typeof expected === "number"
      ? `generation ${expected}`
      : `generation ${expected.generation} of ${expected.uid}`

const conflictOf = (refusal: Refusal): StateConflict =>
  new StateConflict({
    kind: refusal.kind,
    name: refusal.name,
    expected: describe(refusal.expected),
    found: Option.fromUndefinedOr(refusal.found)
  })

type Answer = Outcome | Extract<WorkerAnswer, { readonly _tag: "Journal" | "Facts" }>

/** One life of the worker. */
class Session {
  readonly opened = Deferred.makeUnsafe<void, StateFailure>()
  readonly ended = Deferred.makeUnsafe<void>()
  /** Why it serves no more; undefined while it does. */
  fault: Fault | undefined
  readonly #path: string
  readonly #mirror: StateMirror
  readonly #worker: Worker
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  #outbox: Array<WorkerRequest> = []
  #lastId = 0

  constructor(options: Options, mirror: StateMirror) {
    this.#path = options.path
    this.#mirror = mirror
    mirror.beginLoading()
    this.#worker = new Worker(options.workerFile ?? defaultWorkerFile(), {
      workerData: options.path,
      name: "state",
      // It needs none of the brain's flags and environment. The limits bound it; they are not what it uses.
      execArgv: [],
      env: {},
      resourceLimits: { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 256, stackSizeMb: 1 }
    })
    this.#worker.on("message", (answer: WorkerAnswer) => this.#receive(answer))
    this.#worker.on("error", (error) => this.#end(String(error)))
    this.#worker.on("exit", (code) => {
      this.#end(`it exited with code ${code}`)
      Deferred.doneUnsafe(this.ended, Effect.void)
    })
  }

  /** Sends a request. `answered` is called with every answer to it, or once with the fault that ended the session. */
  send(make: (id: number) => WorkerRequest, answered: (answer: Answer) => void): void {
    if (this.fault !== undefined) return answered({ _tag: "Failed", fault: this.fault })
    const id = ++this.#lastId
    this.#waiting.set(id, answered)
    this.#post(make(id))
  }

  /** Asks it to close when it has answered what was sent; `ended` tells when it has. */
  close(): void {
    this.fault ??= closed
    this.#post({ _tag: "Close" })
  }

  terminate(): void {
    void this.#worker.terminate()
  }

  /**
   * Sends once per turn of the event loop: fewer messages, larger groups. Answering each message in the turn in which its
   * answer comes would let a busy worker keep the loop from its timers: Node hands over messages as long as there are any.
   */
  #post(request: WorkerRequest): void {
    if (this.#outbox.length === 0) {
      setImmediate(() => {
        this.#worker.postMessage(this.#outbox, [])
        this.#outbox = []
      })
    }
    this.#outbox.push(request)
  }

  #receive(answer: WorkerAnswer): void {
    switch (answer._tag) {
      case "Contents":
        this.#mirror.load(answer.contents)
        return
      case "Opened":
        this.#mirror.endLoading()
        Deferred.doneUnsafe(this.opened, Effect.void)
        return
      case "OpenFailed":
        this.#fail(answer.fault)
        return
      case "Outcomes":
        for (const [id, outcome] of answer.outcomes) {
          if (outcome._tag === "Committed") for (const result of outcome.results) this.#mirror.apply(result)
          this.#answer(id, outcome)
        }
        return
      case "Journal":
        this.#answer(answer.id, answer, answer.last)
        return
      case "Facts":
        this.#answer(answer.id, answer)
        return
      case "RequestFailed":
        this.#answer(answer.id, { _tag: "Failed", fault: answer.fault })
        return
    }
  }

  #answer(id: number, answer: Answer, last = true): void {
    const answered = this.#waiting.get(id)
    if (last) this.#waiting.delete(id)
    answered?.(answer)
  }

  #end(detail: string): void {
    this.#fail({ _tag: "Unavailable", reason: "WorkerDied", detail })
  }

  #fail(fault: Fault): void {
    this.fault ??= fault
    Deferred.doneUnsafe(this.opened, Effect.fail(failureOf(this.#path, this.fault)))
    for (const id of this.#waiting.keys()) this.#answer(id, { _tag: "Failed", fault: this.fault })
  }
}

/** Opens the database and keeps it open as long as the scope. */
export const make = Effect.fnUntraced(function* (options: Options) {
  const mirror = new StateMirror()
  const opening = yield* Semaphore.make(1)
  const pending = yield* Semaphore.make(MAX_PENDING)
  let session = new Session(options, mirror)
  let isClosed = false
  let trouble: Option.Option<StateFailure> = Option.none()

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      isClosed = true
      session.close()
      return Deferred.await(session.ended).pipe(
        Effect.timeoutOrElse({ duration: CLOSE_DEADLINE, orElse: () => Effect.sync(() => session.terminate()) })
      )
    })
  )
  yield* Deferred.await(session.opened)

  /** The worker that lives, or a new one. */
  const reopen = opening.withPermit(
    Effect.suspend(() => {
      if (isClosed) return Effect.fail(failureOf(options.path, closed))
      if (session.fault !== undefined) session = new Session(options, mirror)
      return Effect.as(Deferred.await(session.opened), session)
    })
  )
  const current: Effect.Effect<Session, StateFailure> = Effect.suspend(() =>
    session.fault === undefined ? Effect.succeed(session) : reopen
  )

  /** Sends a request and hands its answers to `answered`, which resumes when it has what it wants. */
  const ask = <A, E = never>(
    request: (id: number) => WorkerRequest,
    answered: (
      answer: Exclude<Answer, { readonly _tag: "Failed" }>,
      resume: (done: Effect.Effect<A, E>) => void
    ) => void
  ): Effect.Effect<A, E | StateFailure> =>
    Effect.flatMap(current, (session) =>
      Effect.callback<A, E | StateFailure>((resume) =>
        session.send(request, (answer) => {
          if (answer._tag !== "Failed") return answered(answer, resume)
          const failure = failureOf(options.path, answer.fault)
          trouble = Option.some(failure)
          resume(Effect.fail(failure))
        })
      )
    )

  return StateConnection.of({
    path: options.path,
    mirror,
    transact: (changes) =>
      pending.withPermit(
        ask<ReadonlyArray<ChangeResult>, StateConflict>(
          (id) => ({ _tag: "Transaction", id, changes }),
          (answer, resume) => {
            if (answer._tag === "Committed") {
              trouble = Option.none()
              resume(Effect.succeed(answer.results))
            }
            if (answer._tag === "Refused") resume(Effect.fail(conflictOf(answer.refusal)))
          }
          // One commit answers many at a time: they do not all go on within the turn of the event loop that brings it.
        ).pipe(Effect.tap(Effect.yieldNow))
      ),
    loadJournal: (onPart) =>
      ask<void>(
        (id) => ({ _tag: "LoadJournal", id }),
        (answer, resume) => {
          if (answer._tag !== "Journal") return
          onPart(answer.journal)
          if (answer.last) resume(Effect.void)
        }
      ),
    facts: ask<DatabaseFacts>(
      (id) => ({ _tag: "Facts", id }),
      (answer, resume) => {
        if (answer._tag === "Facts") resume(Effect.succeed(answer.facts))
      }
    ),
    trouble: Effect.sync(() => trouble),
    died: Effect.suspend(() => {
      const watched = session
      return Effect.andThen(
        Deferred.await(watched.ended),
        Effect.suspend(() => Effect.fail(failureOf(options.path, watched.fault ?? closed)))
      )
    })
  })
})

/** Fails when the database cannot be opened. */
export const layer = (options: Options): Layer.Layer<StateConnection, StateFailure> =>
  Layer.effect(StateConnection, make(options))
