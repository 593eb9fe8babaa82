/**
 * `Volumes`: directories, or with a size disks, with a name that outlive whoever has them, below `STATE/volumes`: `NAME/data` is the one,
 * `NAME/disk` the other.
 *
 * A volume is a record in `State` first and a directory when it is first wanted: {@link Volumes.prepare} makes `data`, has it
 * filled by whoever wants it first, syncs it and gives it its name in one step, so that a kill in between leaves it unfilled and
 * not half-filled. Who has volumes says so (`registerUsers`); a volume that anybody has is not removed.
 *
 * Traps: what adds a user checks and commits inside `holding`, or the volume may go in between. A directory whose record
 * cannot be read is not one without a record: it stays. There is no limit to what fits but the file system below.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { Processes } from "../taproot/Processes.ts"
import * as ProcessExit from "../taproot/ProcessExit.ts"
import { StorageFailed } from "./ContentError.ts"
import * as EmptyDisk from "./EmptyDisk.ts"
import * as Files from "./Files.ts"
import * as KeyedLock from "./KeyedLock.ts"
import { type Operation, State, type StateRecord } from "./State.ts"
import type { StateConflict, StateFailure, StateValueInvalid } from "./StateErrors.ts"
import { Labels } from "./Workload.ts"

/** As docker has them. Each is a path segment as it is: none begins with a dot. */
export const VolumeName = Schema.String.pipe(
  Schema.check(
    Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/, {
      expected: "1 to 63 letters, digits, _, - and ., the first one a letter or digit"
    })
  )
)
export type VolumeName = typeof VolumeName.Type

/** What a volume shall be. */
export const VolumeSpec = Schema.Struct({
  name: VolumeName,
  labels: Labels.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  /** Bytes: it is a disk of that size, for microVMs and virtual machines; absent: a directory of this host. */
  sizeBytes: Schema.optionalKey(
    Schema.Int.pipe(
      Schema.check(Schema.isBetween(EmptyDisk.BOUNDS, { expected: "a number of bytes from 67108864 (64 MiB) to 2^44" }))
    )
  )
})
export type VolumeSpec = typeof VolumeSpec.Type

/** As it is stored. A field that is added later needs a default for decoding. */
const VolumeRecord = Schema.Struct({ labels: Labels, sizeBytes: Schema.optionalKey(Schema.Int) })
type VolumeRecord = typeof VolumeRecord.Type

export interface Volume {
  readonly spec: VolumeSpec
  readonly uid: string
  /** Milliseconds since 1970. */
  readonly createdAt: number
  /** The directory with what is in it, or the file that is the disk; there once it is `filled`. */
  readonly path: string
  readonly filled: boolean
  /** Who has it: `container web`. */
  readonly users: ReadonlyArray<string>
}

/** No volume has this name. */
export class VolumeNotFound extends Schema.TaggedError<VolumeNotFound>()("VolumeNotFound", { name: Schema.String }) {
  override get message(): string {
    return `there is no volume ${this.name}`
  }
}

/** The name is taken by a volume with another spec. */
export class VolumeAlreadyExists extends Schema.TaggedError<VolumeAlreadyExists>()("VolumeAlreadyExists", {
  name: Schema.String,
  fields: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `there is a volume ${this.name} already, and it differs in: ${this.fields.join(", ")}`
  }
}

/** Somebody has it. */
export class VolumeInUse extends Schema.TaggedError<VolumeInUse>()("VolumeInUse", {
  name: Schema.String,
  users: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `volume ${this.name} belongs to ${this.users.join(", ")}. Remove those first.`
  }
}

/** Who of a kind has the volume of this name, in words. */
export type VolumeUsers = (name: string) => Effect.Effect<ReadonlyArray<string>>

type Failure = StateFailure | StateValueInvalid

export class Volumes extends Context.Service<
  Volumes,
  {
    /** Idempotent: the same spec again answers with the volume that is there. */
    readonly create: (spec: VolumeSpec) => Effect.Effect<Volume, VolumeAlreadyExists | Failure>
    /** By name. */
    readonly list: Effect.Effect<ReadonlyArray<Volume>, StateValueInvalid>
    readonly get: (name: string) => Effect.Effect<Volume, VolumeNotFound | StateValueInvalid>
    /** With all that is in it. */
    readonly remove: (name: string) => Effect.Effect<void, VolumeNotFound | VolumeInUse | Failure>
    /** Runs the effect while none of these volumes can go. */
    readonly holding: (
      names: ReadonlyArray<string>
    ) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    /** What makes those of the volumes that are not there, for a transaction of whoever holds them. */
    readonly making: (
      names: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyArray<Operation<unknown>>, StateValueInvalid>
    /**
     * The directory of a volume for somebody who starts to use it. In one that nobody has had yet, `fill` may put something
     * first: it is given an empty directory (root's, mode 0755) which it may change as it likes.
     */
    readonly prepare: <E, R>(
      name: string,
      fill: (directory: string) => Effect.Effect<void, E, R>
    ) => Effect.Effect<string, VolumeNotFound | StorageFailed | StateValueInvalid | E, R>
    /** Where the file of a volume that is a disk is, or will be. */
    readonly diskOf: (name: string) => string
    /** The file of a volume that is a disk, for a machine that starts to use it. */
    readonly prepareDisk: (name: string) => Effect.Effect<string, VolumeNotFound | StorageFailed | StateValueInvalid>
    /** Asks this too, from now until the scope closes, before a volume is removed. */
    readonly registerUsers: (users: VolumeUsers) => Effect.Effect<void, never, Scope.Scope>
  }
>()("ironwood/storage/Volumes") {}

const make = Effect.fnUntraced(function* (directory: string) {
  const state = yield* State
  const processes = yield* Processes
  const records = yield* state.collection("volume", VolumeRecord)
  const locks = KeyedLock.make()
  const askers = new Set<VolumeUsers>()

  const homeOf = (name: string) => join(directory, name)
  const dataOf = (name: string) => join(homeOf(name), "data")
  const diskOf = (name: string) => join(homeOf(name), "disk")

  const usersOf = (name: string) =>
    Effect.map(
      Effect.forEach([...askers], (ask) => ask(name)),
      (answers) => answers.flat()
    )

  const describe = Effect.fnUntraced(function* ({ createdAt, name, uid, value }: StateRecord<VolumeRecord>) {
    const path = value.sizeBytes === undefined ? dataOf(name) : diskOf(name)
    const volume: Volume = {
      spec: { name, ...value },
      uid,
      createdAt,
      path,
      filled: yield* Files.exists(path),
      users: yield* usersOf(name)
    }
    return volume
  })

  const find = (name: string) =>
    Effect.flatMap(
      records.get(name),
      Option.match({
        onNone: () => Effect.fail(new VolumeNotFound({ name })),
        onSome: (found) => Effect.succeed(found)
      })
    )

  const holding = (names: ReadonlyArray<string>) => {
    // always in the same order, or two that hold the same ones wait for each other
    const [first, ...rest] = [...new Set(names)].sort()
    return <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      first === undefined ? effect : locks.withLock(first)(holding(rest)(effect))
  }

  /** A record was read and written under the lock of its name: nobody can have come between. */
  const unopposed = <A, E>(effect: Effect.Effect<A, E | StateConflict>) =>
    Effect.catchIf(
      effect,
      (error): error is Extract<E | StateConflict, StateConflict> =>
        typeof error === "object" && error !== null && "_tag" in error && error._tag === "StateConflict",
      Effect.die
    )

  /** All of a directory is on the disk. */
  const sync = Effect.fnUntraced(function* (path: string) {
    const failed = (problem: string) => new StorageFailed({ operation: "sync", path, code: "EIO", problem })
    const { exit } = yield* processes
      .run({ label: "volume:sync", argv: ["sync", "--file-system", path] })
      .pipe(Effect.mapError(({ message }) => failed(message)))
    if (!ProcessExit.isSuccess(exit)) return yield* failed(ProcessExit.describe(exit))
  })

  // what is left of volumes that were removed; of those whose record cannot be read everything stays
  const { invalid, records: present } = yield* records.partition
  const known = new Set([...present, ...invalid].map(({ name }) => name))
  yield* Effect.forEach(
    (yield* Effect.orElseSucceed(Files.names(directory), () => [])).filter((name) => !known.has(name)),
    (name) => Effect.ignoreCause(Files.remove(homeOf(name)), { log: "Warn" }),
    { discard: true }
  )

  return Volumes.of({
    create: ({ labels, name, sizeBytes }) =>
      holding([name])(
        Effect.gen(function* () {
          const found = yield* records.get(name)
          if (Option.isNone(found))
            return yield* describe(
              yield* unopposed(
                records.put(name, { labels, ...(sizeBytes === undefined ? {} : { sizeBytes }) }, { expect: "absent" })
              )
            )
          const theirs = found.value.value.labels
          const same =
            Object.keys(theirs).length === Object.keys(labels).length &&
            Object.entries(labels).every(([key, value]) => theirs[key] === value)
          const fields = [
            ...(same ? [] : ["labels"]),
            ...(found.value.value.sizeBytes === sizeBytes ? [] : ["sizeBytes"])
          ]
          if (fields.length > 0) return yield* new VolumeAlreadyExists({ name, fields })
          return yield* describe(found.value)
        })
      ),
    list: Effect.flatMap(records.list, (found) => Effect.forEach(found, describe)),
    get: (name) => Effect.flatMap(find(name), describe),
    remove: (name) =>
      holding([name])(
        Effect.gen(function* () {
          const { uid } = yield* find(name)
          const users = yield* usersOf(name)
          if (users.length > 0) return yield* new VolumeInUse({ name, users })
          yield* unopposed(records.remove(name))
          // from here on it is gone, and the next of its name begins empty; what cannot be cleared away now goes at the next start
          const removed = join(directory, `.${uid}`)
          yield* Files.rename(homeOf(name), removed).pipe(
            Effect.catchIf(
              ({ code }) => code === "ENOENT",
              () => Effect.void
            ),
            Effect.andThen(Files.remove(removed)),
            Effect.ignoreCause({ log: "Warn" })
          )
        }).pipe(Effect.uninterruptible)
      ),
    holding,
    making: (names) =>
      Effect.map(
        Effect.filter([...new Set(names)], (name) => Effect.map(records.get(name), Option.isNone)),
        (absent) => absent.map((name) => records.putting(name, { labels: {} }, { expect: "absent" }))
      ),
    prepare: (name, fill) =>
      holding([name])(
        Effect.gen(function* () {
          yield* find(name)
          if (yield* Files.exists(dataOf(name))) return dataOf(name)
          const unfilled = `${dataOf(name)}.new`
          yield* Files.remove(unfilled)
          yield* Files.makeDirectory(directory)
          yield* Files.makeDirectory(homeOf(name))
          yield* Files.attempt("create directory", unfilled, () => fs.mkdir(unfilled))
          yield* Files.attempt("set the mode of", unfilled, () => fs.chmod(unfilled, 0o755))
          yield* fill(unfilled)
          yield* sync(unfilled)
          yield* Files.rename(unfilled, dataOf(name))
          yield* Files.syncDirectory(homeOf(name))
          yield* Files.syncDirectory(directory)
          return dataOf(name)
        })
      ),
    diskOf,
    prepareDisk: (name) =>
      holding([name])(
        Effect.gen(function* () {
          const { value } = yield* find(name)
          const path = diskOf(name)
          const failed = (problem: string) => new StorageFailed({ operation: "make disk", path, code: "EIO", problem })
          if (value.sizeBytes === undefined) return yield* failed("it is a directory of this host")
          yield* Effect.mapError(EmptyDisk.make(processes, path, value.sizeBytes), failed)
          return path
        })
      ),
    registerUsers: (ask) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => askers.add(ask)),
          () => Effect.sync(() => askers.delete(ask))
        )
      )
  })
})

/** `directory`: `volumes` in the state directory, absolute; made when the first volume is used. */
export const layer = (options: { readonly directory: string }): Layer.Layer<Volumes, never, State | Processes> =>
  Layer.effect(Volumes, make(options.directory))
