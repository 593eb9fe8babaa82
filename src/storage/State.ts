/**
 * `State`: what should be, on the disk. Collections of records (name, value checked by a `Schema`, generation, uid,
 * times) in one SQLite database. A write is acknowledged only when it is durable: after a power cut at any instant every
 * acknowledged write is there and no transaction is there in part.
 *
 * Use it for desired state and identities: an API call that changes something commits here first, then acts. What actors
 * do goes to the journal (`StateJournal.ts`), big things to `Content.ts`.
 *
 * Reads come from memory and never wait. Writes go to a worker thread, so that the main loop never waits for the disk;
 * those that arrive while one commit is running are committed together by the next.
 *
 * Traps:
 * - A read shows what is durable, never a write that still waits for its acknowledgement.
 * - An interrupted write may be done or not (never in part): the worker may have it already.
 * - The order of two writes that were started at the same time is open; use `expect`, or `update`, or one transaction.
 * - The value of a record that was put is the one that was given, not a copy: nobody changes it afterwards.
 * - One stored value that no longer decodes fails `get` and `list` with `StateValueInvalid`; use `partition` where the
 *   others must not suffer (at start).
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import { randomUUID } from "node:crypto"
import * as StateConnection from "./StateConnection.ts"
import type { StateConflict, StateFailure, StateValueInvalid } from "./StateErrors.ts"
import type { Change, ChangeResult, DatabaseFacts, Expectation, RawRecord } from "./StateProtocol.ts"
import * as StateRequests from "./StateRequests.ts"
import { type JsonCodec, jsonCodec, nameProblems, valueInvalid } from "./StateValue.ts"

export type { DatabaseFacts, Expectation } from "./StateProtocol.ts"

/** A record: a named value of a kind, with its identity and version. */
export interface StateRecord<out A> {
  readonly kind: string
  readonly name: string
  /** Given at creation; a record that is removed and made again under the same name has another one. */
  readonly uid: string
  /** 1 at creation, one more with every put. */
  readonly generation: number
  /** Milliseconds since 1970. */
  readonly createdAt: number
  readonly updatedAt: number
  readonly value: A
}

export interface WriteOptions {
  /**
   * What the writer expects to find, else `StateConflict`: `"absent"`; a generation; or the record it has read (or its uid
   * and generation), which also notices that it was removed and made again. Default: anything.
   */
  readonly expect?: Expectation | undefined
}

/** A write as data, to be done by `transaction`. */
export interface Operation<out R> {
  /** Encodes the value. */
  readonly change: Effect.Effect<Change, StateValueInvalid>
  /** The operation's result, read off what the database did. */
  readonly result: (result: ChangeResult) => Effect.Effect<R, StateValueInvalid>
}

export interface Partition<A> {
  readonly records: ReadonlyArray<StateRecord<A>>
  readonly invalid: ReadonlyArray<StateValueInvalid>
}

/** The results of a tuple of operations. */
export type Results<Operations extends ReadonlyArray<Operation<unknown>>> = {
  readonly [Index in keyof Operations]: Operations[Index] extends Operation<infer R> ? R : never
}

/** The records of one kind. */
export interface Collection<A> {
  readonly kind: string
  readonly get: (name: string) => Effect.Effect<Option.Option<StateRecord<A>>, StateValueInvalid>
  /** By name, in the order of their UTF-16 units. Fails at the first value that does not decode. */
  readonly list: Effect.Effect<ReadonlyArray<StateRecord<A>>, StateValueInvalid>
  /** Those that decode and, as errors, those that do not; both by name. */
  readonly partition: Effect.Effect<Partition<A>>
  /** Creates or replaces. Succeeds when it is durable. */
  readonly put: (
    name: string,
    value: A,
    options?: WriteOptions
  ) => Effect.Effect<StateRecord<A>, StateFailure | StateConflict | StateValueInvalid>
  /** Replaces by what `change` makes of the present record, atomically: starts over when somebody else came between. None when there is no such record. */
  readonly update: (
    name: string,
    change: (record: StateRecord<A>) => A
  ) => Effect.Effect<Option.Option<StateRecord<A>>, StateFailure | StateValueInvalid>
  /** Whether there was one. Succeeds when it is durable. */
  readonly remove: (name: string, options?: WriteOptions) => Effect.Effect<boolean, StateFailure | StateConflict>
  /** `put` as an operation for `transaction`. */
  readonly putting: (name: string, value: A, options?: WriteOptions) => Operation<StateRecord<A>>
  /** `remove` as an operation for `transaction`. */
  readonly removing: (name: string, options?: WriteOptions) => Operation<boolean>
}

/** The service. */
export class State extends Context.Service<
  State,
  {
    /** The database file. */
    readonly path: string
    /**
     * The records of a kind, whose values are stored as what the schema's JSON codec makes of them. A kind belongs to one
     * module; it is part of the stored data and never changes.
     */
    readonly collection: <A, I>(kind: string, schema: Schema.Codec<A, I>) => Effect.Effect<Collection<A>>
    /** All of the operations, in their order, or none of them. Succeeds with their results when they are durable. */
    readonly transaction: <const Operations extends ReadonlyArray<Operation<unknown>>>(
      operations: Operations
    ) => Effect.Effect<Results<Operations>, StateFailure | StateConflict | StateValueInvalid>
    /** Does what a client asked for once, however often it asks; see `StateRequests.ts`. */
    readonly once: StateRequests.Once
    /** Figures for people and metrics. */
    readonly facts: Effect.Effect<DatabaseFacts, StateFailure>
    /** Why the database served not, until a write succeeds again; none when it does. */
    readonly trouble: Effect.Effect<Option.Option<StateFailure>>
    /** Waits for the death of the thread that writes now. Nobody needs to act: the next operation starts another. */
    readonly died: Effect.Effect<never, StateFailure>
  }
>()("ironwood/storage/State") {}

type Connection = StateConnection.StateConnection["Service"]

/** Some milliseconds' worth. */
const DECODED_AT_ONCE = 64

const expectationOf = ({ expect }: WriteOptions): Expectation | undefined =>
  typeof expect === "object" ? { uid: expect.uid, generation: expect.generation } : expect

const notOfThisOperation = Effect.die(new Error("the state worker answered another operation"))

function transaction<const Operations extends ReadonlyArray<Operation<unknown>>>(
  connection: Connection,
  operations: Operations
): Effect.Effect<Results<Operations>, StateFailure | StateConflict | StateValueInvalid>
function transaction(
  connection: Connection,
  operations: ReadonlyArray<Operation<unknown>>
): Effect.Effect<ReadonlyArray<unknown>, StateFailure | StateConflict | StateValueInvalid> {
  return Effect.gen(function* () {
    const changes = yield* Effect.forEach(operations, (operation) => operation.change)
    const results = yield* connection.transact(changes)
    return yield* Effect.forEach(operations, (operation, index) => {
      const result = results[index]
      return result === undefined ? notOfThisOperation : operation.result(result)
    })
  })
}

/** `transaction` of one. */
const single = <R>(connection: Connection, operation: Operation<R>) =>
  Effect.map(transaction(connection, [operation]), ([result]) => result)

const makeCollection = <A>(connection: Connection, kind: string, codec: JsonCodec<A>): Collection<A> => {
  // Stored records are immutable objects, so each is decoded once.
  const decoded = new WeakMap<RawRecord, Result.Result<StateRecord<A>, StateValueInvalid>>()
  const decode = (raw: RawRecord): Result.Result<StateRecord<A>, StateValueInvalid> => {
    let result = decoded.get(raw)
    if (result === undefined) {
      result = Result.mapBoth(codec.decode(raw.value), {
        onSuccess: (value): StateRecord<A> => ({ ...raw, value }),
        onFailure: (problems) => valueInvalid(kind, raw.name, true, problems)
      })
      decoded.set(raw, result)
    }
    return result
  }

  const putting = (name: string, value: A, options: WriteOptions = {}): Operation<StateRecord<A>> => {
    let sent: string | undefined
    return {
      change: Effect.gen(function* () {
        const encoded = codec.encode(value)
        const problems = [...nameProblems(name), ...(Result.isFailure(encoded) ? encoded.failure : [])]
        if (problems.length > 0 || Result.isFailure(encoded)) return yield* valueInvalid(kind, name, false, problems)
        const at = yield* Clock.currentTimeMillis
        sent = encoded.success
        return {
          _tag: "Put",
          kind,
          name,
          value: encoded.success,
          uid: randomUUID(),
          at,
          expect: expectationOf(options)
        } satisfies Change
      }),
      result: (result) => {
        if (result._tag !== "Put") return notOfThisOperation
        // what was encoded a moment ago need not be decoded
        if (result.record.value === sent) decoded.set(result.record, Result.succeed({ ...result.record, value }))
        return Effect.fromResult(decode(result.record))
      }
    }
  }

  const removing = (name: string, options: WriteOptions = {}): Operation<boolean> => ({
    change: Effect.suspend(() => {
      const problems = nameProblems(name)
      if (problems.length > 0) return Effect.fail(valueInvalid(kind, name, false, problems))
      return Effect.succeed({ _tag: "Remove", kind, name, expect: expectationOf(options) } satisfies Change)
    }),
    result: (result) => (result._tag === "Removed" ? Effect.succeed(result.existed) : notOfThisOperation)
  })

  const get = (name: string) =>
    Effect.suspend(() => {
      const raw = connection.mirror.get(kind, name)
      return raw === undefined ? Effect.succeedNone : Effect.asSome(Effect.fromResult(decode(raw)))
    })

  // Every start of a container looks at all of them: no effect for each, only for those that are met for the first time.
  const partition: Effect.Effect<Partition<A>> = Effect.gen(function* () {
    const records: Array<StateRecord<A>> = []
    const invalid: Array<StateValueInvalid> = []
    let fresh = 0
    for (const raw of connection.mirror.list(kind)) {
      if (!decoded.has(raw) && ++fresh % DECODED_AT_ONCE === 0) yield* Effect.yieldNow
      const result = decode(raw)
      if (Result.isSuccess(result)) records.push(result.success)
      else invalid.push(result.failure)
    }
    return { records, invalid }
  })

  const update: Collection<A>["update"] = (name, change) =>
    Effect.gen(function* () {
      while (true) {
        const record = yield* get(name)
        if (Option.isNone(record)) return Option.none()
        const put = single(connection, putting(name, change(record.value), { expect: record.value }))
        const done = yield* Effect.catchTag(Effect.asSome(put), "StateConflict", () => Effect.succeedNone)
        if (Option.isSome(done)) return done
      }
    })

  return {
    kind,
    get,
    list: Effect.flatMap(partition, ({ invalid: [first], records }) =>
      first === undefined ? Effect.succeed(records) : Effect.fail(first)
    ),
    partition,
    put: (name, value, options) => single(connection, putting(name, value, options)),
    update,
    remove: (name, options) =>
      // A name that no record can have is the name of no record.
      Effect.catchTag(single(connection, removing(name, options)), "StateValueInvalid", () => Effect.succeed(false)),
    putting,
    removing
  }
}

/**
 * Opens collections once per state, however many modules ask: each would have a codec of its own, and decode again what
 * another has decoded.
 */
export const openedOnce = <A extends object>(
  open: (state: State["Service"]) => Effect.Effect<A>
): ((state: State["Service"]) => Effect.Effect<A>) => {
  const opened = new WeakMap<State["Service"], A>()
  return (state) =>
    Effect.suspend(() => {
      const known = opened.get(state)
      if (known !== undefined) return Effect.succeed(known)
      return Effect.tap(open(state), (made) => Effect.sync(() => opened.set(state, made)))
    })
}

/** The service on a connection that is open. */
export const make = (connection: Connection): State["Service"] =>
  State.of({
    path: connection.path,
    collection: (kind, schema) => Effect.sync(() => makeCollection(connection, kind, jsonCodec(schema))),
    transaction: (operations) => transaction(connection, operations),
    once: StateRequests.make(connection),
    facts: connection.facts,
    trouble: connection.trouble,
    died: connection.died
  })

/**
 * Opens the database, made when it is not there, and closes it with the layer. The connection is for `StateJournal`.
 * Fails when the file is damaged, foreign or cannot be opened.
 */
export const layer = (
  options: StateConnection.Options
): Layer.Layer<State | StateConnection.StateConnection, StateFailure> =>
  Layer.effect(State, Effect.map(StateConnection.StateConnection, make)).pipe(
    Layer.provideMerge(StateConnection.layer(options))
  )
