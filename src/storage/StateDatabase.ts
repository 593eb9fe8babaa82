/**
 * The open state database: group commit, and reading it all at start. Runs in the worker thread; synchronous.
 *
 * Transactions that are handed over together share one commit and its fsync. Each runs in a savepoint, so a refused one
 * leaves no trace and its neighbours go on. When the disk is full they are tried again from the beginning of the log, then
 * one by one: a small one may still fit where a big one did not. What may use the reserve (`StateReserve.ts`) is decided here.
 */
import { statSync } from "node:fs"
import type { DatabaseSync, SQLOutputValue, StatementSync } from "node:sqlite"
import { FaultError, faultOf, openStateFile } from "./StateFile.ts"
import type {
  Change,
  ChangeResult,
  Contents,
  DatabaseFacts,
  Expectation,
  JournalContents,
  JournalBounds,
  JournalRow,
  Outcome,
  RawRecord,
  Refusal
} from "./StateProtocol.ts"
import { StateReserve } from "./StateReserve.ts"

type Row = Record<string, SQLOutputValue>

/** Characters of JSON per part when everything is read. */
const PART = 1024 * 1024

class RefusedError extends Error {
  readonly refusal: Refusal
  constructor(refusal: Refusal) {
    super("refused")
    this.refusal = refusal
  }
}

/** Of a change that the room that is left is not for. */
const kept = (): FaultError =>
  new FaultError({ _tag: "Unavailable", reason: "DiskFull", detail: "what is left is for stopping and removing" })

const recordOf = (row: Row): RawRecord => ({
  kind: String(row["kind"]),
  name: String(row["name"]),
  uid: String(row["uid"]),
  generation: Number(row["generation"]),
  createdAt: Number(row["created_at"]),
  updatedAt: Number(row["updated_at"]),
  value: String(row["value"])
})

const isMet = (expected: Expectation, found: RawRecord | undefined): boolean => {
  if (expected === "absent") return found === undefined
  if (found === undefined) return false
  if (typeof expected === "number") return found.generation === expected
  return found.uid === expected.uid && found.generation === expected.generation
}

const fileSize = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0

/** Opened by its constructor, which throws as `openStateFile` does. */
export class StateDatabase {
  readonly #path: string
  readonly #database: DatabaseSync
  readonly #reserve: StateReserve
  readonly #statements = new Map<string, StatementSync>()
  #transactions = 0
  #commits = 0
  #nodes: number
  #entries: number
  #sequence: number
  #touched: number

  constructor(path: string) {
    this.#path = path
    this.#database = openStateFile(path)
    this.#reserve = new StateReserve(this.#database, path)
    const count = (sql: string): number => Number(this.#get(sql)?.["n"] ?? 0)
    this.#nodes = count("SELECT count(*) AS n FROM journal_node")
    this.#entries = count("SELECT count(*) AS n FROM journal_entry")
    this.#sequence = count("SELECT max(sequence) AS n FROM journal_entry")
    this.#touched = count("SELECT max(touched) AS n FROM journal_node")
  }

  /** The outcomes in the order of the transactions. What is `Committed` is on the disk. Never throws. */
  commit(transactions: ReadonlyArray<ReadonlyArray<Change>>): ReadonlyArray<Outcome> {
    return this.#commit(transactions, false)
  }

  /** Whether the reserve cannot wait until there is time for it. */
  get isReserveUrgent(): boolean {
    return this.#reserve.isUrgent
  }

  /** Between commits: sees to the reserve. */
  keepReserve(): void {
    this.#reserve.keep()
  }

  #commit(transactions: ReadonlyArray<ReadonlyArray<Change>>, isRewound: boolean): ReadonlyArray<Outcome> {
    const counts = [this.#nodes, this.#entries] as const
    try {
      this.#reserve.look()
      this.#database.exec("BEGIN IMMEDIATE")
      const outcomes = transactions.map((changes) => this.#attempt(changes))
      this.#database.exec("COMMIT")
      this.#commits++
      this.#transactions += transactions.length
      return outcomes
    } catch (error) {
      const fault = faultOf(error)
      this.#rollBack()
      ;[this.#nodes, this.#entries] = counts
      const full = fault._tag === "Unavailable" && fault.reason === "DiskFull"
      if (full && !isRewound && this.#reserve.rewind()) return this.#commit(transactions, true)
      if (full && transactions.length > 1) return transactions.flatMap((changes) => this.#commit([changes], false))
      return transactions.map(() => ({ _tag: "Failed", fault }))
    }
  }

  /** All records and remembered requests, in parts. */
  *contents(): Generator<Contents> {
    let records: Array<RawRecord> = []
    let size = 0
    for (const row of this.#statement("SELECT * FROM record").iterate()) {
      const record = recordOf(row)
      records.push(record)
      size += record.value.length
      if (size < PART) continue
      yield { records, requests: [] }
      records = []
      size = 0
    }
    const requests = this.#statement("SELECT * FROM request ORDER BY at, rowid")
      .all()
      .map((row) => ({
        id: String(row["id"]),
        fingerprint: String(row["fingerprint"]),
        outcome: String(row["outcome"]),
        at: Number(row["at"])
      }))
    yield { records, requests }
  }

  /** The whole journal, in parts. */
  *journal(): Generator<JournalContents> {
    const reserved = Number(this.#get("SELECT reserved FROM journal_revision")?.["reserved"] ?? 0)
    yield { reserved, nodes: "[]", entries: "[]" }
    for (const nodes of this.#documents("journal_node ORDER BY touched")) {
      yield { reserved, nodes, entries: "[]" }
    }
    for (const entries of this.#documents("journal_entry ORDER BY sequence")) {
      yield { reserved, nodes: "[]", entries }
    }
  }

  facts(): DatabaseFacts {
    return {
      sqliteVersion: String(this.#get("SELECT sqlite_version() AS version")?.["version"]),
      schemaVersion: Number(this.#get("PRAGMA user_version")?.["user_version"]),
      databaseBytes: fileSize(this.#path),
      logBytes: fileSize(`${this.#path}-wal`),
      transactions: this.#transactions,
      commits: this.#commits
    }
  }

  /** Merges the log into the database and gives both free. */
  close(): void {
    this.#database.close()
  }

  /** SQLite has rolled back by itself after some errors (full disk, I/O), not after others. */
  #rollBack(): void {
    if (!this.#database.isTransaction) return
    try {
      this.#database.exec("ROLLBACK")
    } catch {
      // The error that brought us here is the one to tell; a transaction still open fails the next BEGIN, which comes here again.
    }
  }

  #attempt(changes: ReadonlyArray<Change>): Outcome {
    this.#database.exec("SAVEPOINT transaction_of_one")
    const counts = [this.#nodes, this.#entries] as const
    try {
      const results = changes.map((change) => this.#apply(change))
      this.#database.exec("RELEASE transaction_of_one")
      return { _tag: "Committed", results }
    } catch (error) {
      if (!(error instanceof RefusedError || error instanceof FaultError)) throw error
      ;[this.#nodes, this.#entries] = counts
      this.#database.exec("ROLLBACK TO transaction_of_one; RELEASE transaction_of_one")
      return error instanceof FaultError
        ? { _tag: "Failed", fault: error.fault }
        : { _tag: "Refused", refusal: error.refusal }
    }
  }

  #apply(change: Change): ChangeResult {
    switch (change._tag) {
      case "Put": {
        const found = this.#expected(change)
        if (found === undefined && this.#reserve.isShort) throw kept()
        const record: RawRecord = {
          kind: change.kind,
          name: change.name,
          uid: found?.uid ?? change.uid,
          generation: (found?.generation ?? 0) + 1,
          createdAt: found?.createdAt ?? change.at,
          updatedAt: change.at,
          value: change.value
        }
        this.#run(
          `INSERT INTO record (kind, name, uid, generation, created_at, updated_at, value) VALUES (?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (kind, name) DO UPDATE
           SET generation = excluded.generation, updated_at = excluded.updated_at, value = excluded.value`,
          record.kind,
          record.name,
          record.uid,
          record.generation,
          record.createdAt,
          record.updatedAt,
          record.value
        )
        return { _tag: "Put", record }
      }
      case "Remove": {
        const { kind, name } = change
        const existed = this.#expected(change) !== undefined
        if (existed) this.#run("DELETE FROM record WHERE kind = ? AND name = ?", kind, name)
        return { _tag: "Removed", kind, name, existed }
      }
      case "Remember": {
        const { request } = change
        this.#run(
          "INSERT OR REPLACE INTO request (id, fingerprint, outcome, at) VALUES (?, ?, ?, ?)",
          request.id,
          request.fingerprint,
          request.outcome,
          request.at
        )
        const forgotten = this.#statement(
          `DELETE FROM request WHERE at < ? OR id IN (SELECT id FROM request ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)
           RETURNING id`
        ).all(change.forgetBefore, change.keep)
        return { _tag: "Remembered", request, forgotten: forgotten.map((row) => String(row["id"])) }
      }
      case "Journal": {
        if (this.#reserve.isShort && this.#reserve.isLow) throw kept()
        this.#reserveRevisions(change.reserve ?? 0)
        for (const path of change.removed) {
          this.#nodes -= this.#run("DELETE FROM journal_node WHERE path = ?", path)
          this.#entries -= this.#run("DELETE FROM journal_entry WHERE path = ?", path)
        }
        this.#addNodes(change.nodes, change.bounds)
        this.#addEntries(change.entries, change.bounds)
        return { _tag: "Journalled" }
      }
    }
  }

  #expected(change: Extract<Change, { readonly _tag: "Put" | "Remove" }>): RawRecord | undefined {
    const row = this.#get("SELECT * FROM record WHERE kind = ? AND name = ?", change.kind, change.name)
    const found = row === undefined ? undefined : recordOf(row)
    if (change.expect === undefined || isMet(change.expect, found)) return found
    throw new RefusedError({
      _tag: "Conflict",
      kind: change.kind,
      name: change.name,
      expected: change.expect,
      found: found?.generation
    })
  }

  #reserveRevisions(revision: number): void {
    this.#run("UPDATE journal_revision SET reserved = max(reserved, ?)", revision)
  }

  #addNodes(nodes: ReadonlyArray<JournalRow>, bounds: JournalBounds): void {
    for (const { path, value } of nodes) {
      const touched = ++this.#touched
      if (this.#run("UPDATE journal_node SET touched = ?, value = ? WHERE path = ?", touched, value, path) > 0) continue
      this.#run("INSERT INTO journal_node (touched, value, path) VALUES (?, ?, ?)", touched, value, path)
      this.#nodes++
    }
    const above = this.#nodes - bounds.nodes
    if (above <= 0) return
    this.#nodes -= this.#run(
      "DELETE FROM journal_node WHERE path IN (SELECT path FROM journal_node ORDER BY touched LIMIT ?)",
      above
    )
  }

  #addEntries(entries: ReadonlyArray<JournalRow>, bounds: JournalBounds): void {
    for (const { path, value } of entries) {
      this.#run("INSERT INTO journal_entry (sequence, path, value) VALUES (?, ?, ?)", ++this.#sequence, path, value)
    }
    this.#entries += entries.length
    for (const path of new Set(entries.map((entry) => entry.path))) {
      this.#entries -= this.#run(
        `DELETE FROM journal_entry WHERE path = ?1 AND sequence <= coalesce(
           (SELECT sequence FROM journal_entry WHERE path = ?1 ORDER BY sequence DESC LIMIT 1 OFFSET ?2), -1)`,
        path,
        bounds.entriesPerActor
      )
    }
    const above = this.#entries - bounds.entries
    if (above <= 0) return
    this.#entries -= this.#run(
      "DELETE FROM journal_entry WHERE sequence IN (SELECT sequence FROM journal_entry ORDER BY sequence LIMIT ?)",
      above
    )
  }

  /** The `[path, value]` of the rows as JSON arrays, in parts. Put together by SQLite: that takes half the time. */
  *#documents(rows: string): Generator<string> {
    const statement = this.#database.prepare(`SELECT '[' || json_quote(path) || ',' || value || ']' FROM ${rows}`, {
      returnArrays: true
    })
    let parts: Array<string> = []
    let size = 0
    for (const row of statement.iterate()) {
      const part = String(row[0])
      parts.push(part)
      size += part.length
      if (size < PART) continue
      yield `[${parts.join(",")}]`
      parts = []
      size = 0
    }
    if (parts.length > 0) yield `[${parts.join(",")}]`
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql)
    if (statement === undefined) {
      statement = this.#database.prepare(sql)
      this.#statements.set(sql, statement)
    }
    return statement
  }

  #get(sql: string, ...parameters: ReadonlyArray<string | number>): Row | undefined {
    return this.#statement(sql).get(...parameters)
  }

  /** The number of rows changed. */
  #run(sql: string, ...parameters: ReadonlyArray<string | number>): number {
    return Number(this.#statement(sql).run(...parameters).changes)
  }
}
