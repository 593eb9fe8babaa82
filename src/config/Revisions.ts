/**
 * The revisions of the machine config in the state directory: which is in force, which is being tried and until when, and
 * those before, the newest {@link keptRevisions} of them. Revision 0 is the config that says nothing.
 *
 * Every change is one transaction: the power may fail at any instant.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { State } from "../storage/State.ts"
import { keptRevisions, RevisionNotFound } from "./ConfigErrors.ts"

/** What became of a revision. */
export const Fate = Schema.Literals(["applied", "trying", "confirmed", "reverted"])
export type Fate = typeof Fate.Type

export const Revision = Schema.Struct({
  number: Schema.Int,
  /** The document as it was given. */
  text: Schema.String,
  /** Milliseconds since 1970. */
  at: Schema.Finite,
  /** Who gave it, in words: `the API`, a source of the machine. */
  origin: Schema.String,
  fate: Fate
})
export type Revision = typeof Revision.Type

/** A config that is being tried. */
export const Trial = Schema.Struct({
  /** Where it goes back to. */
  previous: Schema.Int,
  /** Of the kernel's start that `until` counts from, in milliseconds. */
  bootId: Schema.String,
  until: Schema.Finite
})
export type Trial = typeof Trial.Type

export const Head = Schema.Struct({
  /** The one in force. */
  current: Schema.Int,
  /** The highest number that was ever given. */
  last: Schema.Int,
  trial: Schema.optionalKey(Trial),
  /** Digest of what a source of the machine said last; the same again is no news. */
  source: Schema.optionalKey(Schema.String)
})
export type Head = typeof Head.Type

const nameOf = (number: number): string => String(number).padStart(10, "0")

export const make = Effect.gen(function* () {
  const state = yield* State
  const heads = yield* state.collection("machine-config", Head)
  const revisions = yield* state.collection("machine-config-revision", Revision)

  /** All that can be read, the oldest first. What another version has written stays where it is. */
  const list = Effect.map(revisions.partition, ({ records }) => records.map(({ value }) => value))
  /** Where there is none that can be read, nothing is in force, and the numbers go on. */
  const head = heads.get("head").pipe(
    Effect.map(Option.map(({ value }) => value)),
    Effect.catch(() => Effect.succeedNone),
    Effect.flatMap((found) =>
      Option.match(found, {
        onNone: () => Effect.map(list, (all): Head => ({ current: 0, last: all.at(-1)?.number ?? 0 })),
        onSome: (value) => Effect.succeed(value)
      })
    )
  )

  const get = (number: number) =>
    Effect.flatMap(revisions.get(nameOf(number)), (record) =>
      Option.match(record, {
        onNone: () => Effect.fail(new RevisionNotFound({ revision: number })),
        onSome: ({ value }) => Effect.succeed(value)
      })
    )

  /** The head, and the revisions that are new or have another fate; what is too old is dropped. */
  const commit = Effect.fnUntraced(function* (next: Head, changed: ReadonlyArray<Revision>) {
    const { records } = yield* revisions.partition
    const needed = new Set([next.current, next.trial?.previous])
    const all = [...new Set([...records.map(({ value }) => value.number), ...changed.map(({ number }) => number)])]
    const dropped = all
      .toSorted((one, other) => other - one)
      .slice(keptRevisions)
      .filter((number) => !needed.has(number))
    yield* state.transaction([
      heads.putting("head", next),
      ...changed.map((revision) => revisions.putting(nameOf(revision.number), revision)),
      ...dropped.map((number) => revisions.removing(nameOf(number)))
    ] satisfies ReadonlyArray<Write>)
  })

  return { head, list, get, commit }
})

type Write = Parameters<State["Service"]["transaction"]>[0][number]
export type Revisions = Effect.Success<typeof make>
