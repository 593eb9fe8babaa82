/**
 * What `StateConnection` (main thread) and `StateWorker` (the thread that owns the database) say to each other: plain
 * data that the structured clone passes as it is, and nothing else, so that the worker needs no library.
 *
 * Requests are answered in order. Transactions that the worker finds waiting together are committed together, with one
 * fsync; each is still atomic on its own, and a refused one does not touch its neighbours.
 */
import type { UnavailableReason } from "./StateErrors.ts"

/** A record as it is stored; `value` is JSON. Never mutated: a change makes a new one. */
export interface RawRecord {
  readonly kind: string
  readonly name: string
  readonly uid: string
  readonly generation: number
  /** Milliseconds since 1970. */
  readonly createdAt: number
  readonly updatedAt: number
  readonly value: string
}

/** The answer that an idempotent request got, kept for when the client asks again. */
export interface RawRequest {
  readonly id: string
  /** A digest of what was asked. */
  readonly fingerprint: string
  /** JSON. */
  readonly outcome: string
  readonly at: number
}

/** What a writer expects to find: no record, a generation, or exactly that version of exactly that record. */
export type Expectation = "absent" | number | { readonly uid: string; readonly generation: number }

/** How many rows the journal keeps. */
export interface JournalBounds {
  readonly nodes: number
  readonly entriesPerActor: number
  readonly entries: number
}

/** An actor's state, or an event in its life, as the journal keeps it; `value` is JSON. */
export interface JournalRow {
  readonly path: string
  readonly value: string
}

/** One step of a transaction. */
export type Change =
  | {
      readonly _tag: "Put"
      readonly kind: string
      readonly name: string
      readonly value: string
      /** The uid that the record gets if it is a new one. */
      readonly uid: string
      readonly at: number
      readonly expect?: Expectation | undefined
    }
  | { readonly _tag: "Remove"; readonly kind: string; readonly name: string; readonly expect?: Expectation | undefined }
  /** Remembers an answer; forgets those older than `forgetBefore` and all but the newest `keep`. */
  | { readonly _tag: "Remember"; readonly request: RawRequest; readonly forgetBefore: number; readonly keep: number }
  /** Journal: reserves, removes, sets and adds, in this order; then drops what is above the bounds, oldest first. */
  | {
      readonly _tag: "Journal"
      /** No revision at or below this one will be given out again. */
      readonly reserve?: number | undefined
      readonly nodes: ReadonlyArray<JournalRow>
      readonly removed: ReadonlyArray<string>
      readonly entries: ReadonlyArray<JournalRow>
      readonly bounds: JournalBounds
    }

/** What a step did; enough for the main thread to keep its copy in memory the same. */
export type ChangeResult =
  | { readonly _tag: "Put"; readonly record: RawRecord }
  | { readonly _tag: "Removed"; readonly kind: string; readonly name: string; readonly existed: boolean }
  | { readonly _tag: "Remembered"; readonly request: RawRequest; readonly forgotten: ReadonlyArray<string> }
  | { readonly _tag: "Journalled" }

/** Why the database could not serve. */
export type Fault =
  | { readonly _tag: "Unavailable"; readonly reason: UnavailableReason; readonly detail: string }
  | { readonly _tag: "Corrupt"; readonly detail: string }
  | { readonly _tag: "Foreign"; readonly detail: string }

/** An expectation that was not met. */
export interface Refusal {
  readonly _tag: "Conflict"
  readonly kind: string
  readonly name: string
  readonly expected: Expectation
  /** Undefined when there is no such record. */
  readonly found: number | undefined
}

/** What became of a transaction; `Committed` is said only when it is on the disk. */
export type Outcome =
  | { readonly _tag: "Committed"; readonly results: ReadonlyArray<ChangeResult> }
  | { readonly _tag: "Refused"; readonly refusal: Refusal }
  | { readonly _tag: "Failed"; readonly fault: Fault }

/** A part of what is kept in memory. */
export interface Contents {
  readonly records: ReadonlyArray<RawRecord>
  readonly requests: ReadonlyArray<RawRequest>
}

/**
 * A part of the journal. Nodes and entries are JSON documents, an array of `[path, value]` each: one string crosses the
 * threads many times faster than thousands of objects.
 */
export interface JournalContents {
  /** The highest revision ever reserved. */
  readonly reserved: number
  readonly nodes: string
  /** Oldest first. */
  readonly entries: string
}

/** A message is an array of requests. `id` comes back in the answer. */
export type WorkerRequest =
  | { readonly _tag: "Transaction"; readonly id: number; readonly changes: ReadonlyArray<Change> }
  | { readonly _tag: "LoadJournal"; readonly id: number }
  | { readonly _tag: "Facts"; readonly id: number }
  | { readonly _tag: "Close" }

/** Figures of the database; counters count since it was opened. */
export interface DatabaseFacts {
  readonly sqliteVersion: string
  readonly schemaVersion: number
  /** Bytes of the database file and of its write-ahead log. */
  readonly databaseBytes: number
  readonly logBytes: number
  readonly transactions: number
  /** Commits, each with one fsync: fewer than the transactions when these came together. */
  readonly commits: number
}

/** `Contents` come in parts before `Opened`, `Journal` in parts until `last`: a part is small, so no thread is held up for long. */
export type WorkerAnswer =
  | { readonly _tag: "Contents"; readonly contents: Contents }
  | { readonly _tag: "Opened" }
  | { readonly _tag: "OpenFailed"; readonly fault: Fault }
  | { readonly _tag: "Outcomes"; readonly outcomes: ReadonlyArray<readonly [id: number, outcome: Outcome]> }
  | { readonly _tag: "Journal"; readonly id: number; readonly journal: JournalContents; readonly last: boolean }
  | { readonly _tag: "Facts"; readonly id: number; readonly facts: DatabaseFacts }
  | { readonly _tag: "RequestFailed"; readonly id: number; readonly fault: Fault }
