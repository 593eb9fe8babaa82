/**
 * The state database as a file: creating it, and opening it only when it is ours, whole and of a version we know.
 * Runs in the worker thread; synchronous.
 *
 * A new database is made beside its place and renamed into it, so a half-made one is never met, and a file without a
 * valid header is damage, not "not yet made". Checks read the header and then a read-only connection, so a database that
 * is refused keeps its bytes: a writing connection would merge its write-ahead log when closed.
 *
 * Traps:
 * - One process only (`locking_mode=EXCLUSIVE`). It also keeps the index of the log in our own memory instead of a mapped
 *   file, which a full or failing disk could turn into a SIGBUS.
 * - POSIX drops all of a process's locks on a file when it closes any descriptor of it: nothing else in this process may
 *   open the file while the database is open.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync
} from "node:fs"
import { dirname } from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { UnavailableReason } from "./StateErrors.ts"
import type { Fault } from "./StateProtocol.ts"
import { APPLICATION_ID, MIGRATIONS } from "./StateSchema.ts"

/** A `Fault` on its way through synchronous code. */
export class FaultError extends Error {
  readonly fault: Fault
  constructor(fault: Fault) {
    super(fault.detail)
    this.fault = fault
  }
}

const unavailable = (reason: UnavailableReason, detail: string): FaultError =>
  new FaultError({ _tag: "Unavailable", reason, detail })
const corrupt = (detail: string): FaultError => new FaultError({ _tag: "Corrupt", detail })
const foreign = (detail: string): FaultError => new FaultError({ _tag: "Foreign", detail })

/** Primary result codes of SQLite (sqlite.org/rescode.html) that mean the database is unavailable. */
const sqliteReasons: Readonly<Record<number, UnavailableReason>> = {
  3: "CannotOpen",
  5: "Locked",
  7: "OutOfMemory",
  8: "ReadOnly",
  10: "InputOutput",
  13: "DiskFull",
  14: "CannotOpen"
}

const errnoReasons: Readonly<Record<string, UnavailableReason>> = {
  ENOSPC: "DiskFull",
  EDQUOT: "DiskFull",
  EIO: "InputOutput",
  EROFS: "ReadOnly"
}

/** What an error of `node:sqlite` or `node:fs` means. */
export const faultOf = (error: unknown): Fault => {
  if (error instanceof FaultError) return error.fault
  if (!(error instanceof Error)) return { _tag: "Unavailable", reason: "Other", detail: String(error) }
  const detail = error.message
  if ("errcode" in error && typeof error.errcode === "number") {
    const primary = error.errcode & 0xff
    if (primary === 11 || primary === 26) return { _tag: "Corrupt", detail }
    return {
      _tag: "Unavailable",
      reason: sqliteReasons[primary] ?? "Other",
      detail: `${detail}, SQLite ${error.errcode}`
    }
  }
  const code = "code" in error && typeof error.code === "string" ? error.code : ""
  const reason = errnoReasons[code] ?? ("syscall" in error ? "CannotOpen" : "Other")
  return { _tag: "Unavailable", reason, detail }
}

/** The integer that `PRAGMA name` answers. */
const pragma = (database: DatabaseSync, name: string): number =>
  Number(database.prepare(`PRAGMA ${name}`).get()?.[name])

/** Milliseconds to wait for another process to let go of the file: a predecessor that is just dying. */
const LOCK_TIMEOUT = 1_000

/** The first bytes of every SQLite 3 database. */
const MAGIC = "SQLite format 3\0"
const APPLICATION_ID_OFFSET = 68
const USER_VERSION_OFFSET = 60

const refuseNewer = (version: number, known: number): void => {
  if (version <= known) return
  throw foreign(`its layout is version ${version}, newer than version ${known} of this program`)
}

/** Refuses what is no file, no database or not ours, by its first 100 bytes. */
const checkHeader = (path: string, known: number): void => {
  if (!statSync(path).isFile()) throw unavailable("CannotOpen", "it is not a regular file")
  const header = Buffer.alloc(100)
  const file = openSync(path, "r")
  let length: number
  try {
    length = readSync(file, header, 0, header.length, 0)
  } finally {
    closeSync(file)
  }
  if (length === 0) throw corrupt("the file is empty")
  if (length < header.length || header.toString("latin1", 0, MAGIC.length) !== MAGIC) {
    throw corrupt("it is no SQLite database, or its beginning was overwritten")
  }
  const id = header.readUInt32BE(APPLICATION_ID_OFFSET)
  if (id !== APPLICATION_ID) throw foreign(`it belongs to another program (application_id ${id})`)
  refuseNewer(header.readUInt32BE(USER_VERSION_OFFSET), known)
}

/** SQLite answers with several lines in one row, the first of them a heading. What is told is one line, of the first finding. */
const quickCheck = (database: DatabaseSync): void => {
  const found = database
    .prepare("PRAGMA quick_check(5)")
    .all()
    .flatMap((row) => String(row["quick_check"]).split("\n"))
    .filter((line) => line !== "" && !line.startsWith("***"))
  if (found[0] !== "ok") throw corrupt(found[0] ?? "its pages do not fit together")
}

/**
 * Checks the whole database without changing it. Where not even reading without a trace is possible (a full or read-only
 * disk: the index of the log needs a file), false: the writing connection has to check.
 */
const checkReadOnly = (path: string): boolean => {
  try {
    const database = new DatabaseSync(path, { readOnly: true, timeout: LOCK_TIMEOUT })
    try {
      quickCheck(database)
      return true
    } finally {
      database.close()
    }
  } catch (error) {
    const fault = faultOf(error)
    if (fault._tag !== "Unavailable" || fault.reason === "Locked") throw error
    return false
  }
}

/** Brings the layout up to date; each step with its number in one transaction. Answers the number of steps done. */
const migrate = (database: DatabaseSync, migrations: ReadonlyArray<string>): number => {
  const from = pragma(database, "user_version")
  refuseNewer(from, migrations.length)
  for (const [index, step] of migrations.entries()) {
    if (index < from) continue
    database.exec("BEGIN IMMEDIATE")
    try {
      database.exec(step)
      database.exec(`PRAGMA user_version = ${index + 1}`)
      database.exec("COMMIT")
    } catch (error) {
      if (database.isTransaction) database.exec("ROLLBACK")
      throw error
    }
  }
  return migrations.length - from
}

const create = (path: string, migrations: ReadonlyArray<string>): void => {
  if (existsSync(`${path}-wal`)) {
    throw corrupt("the database is gone but its write-ahead log is there; both belong together")
  }
  const unfinished = `${path}.new`
  const discard = (): void => {
    for (const suffix of ["", "-journal", "-wal", "-shm"]) rmSync(unfinished + suffix, { force: true })
  }
  discard()
  try {
    // Records may hold secrets (environment variables); SQLite gives the log the mode of the database.
    closeSync(openSync(unfinished, "wx", 0o600))
    const database = new DatabaseSync(unfinished)
    try {
      database.exec(`PRAGMA synchronous = FULL; PRAGMA application_id = ${APPLICATION_ID}`)
      migrate(database, migrations)
      database.exec("PRAGMA journal_mode = WAL")
    } finally {
      database.close()
    }
  } catch (error) {
    discard()
    throw error
  }
  renameSync(unfinished, path)
  const directory = openSync(dirname(path), "r")
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

/**
 * Opens the database at `path`, making it where there is none, for this thread alone. Throws `FaultError`, or what
 * SQLite and the kernel throw (`faultOf` tells what it means).
 */
export const openStateFile = (path: string, migrations: ReadonlyArray<string> = MIGRATIONS): DatabaseSync => {
  if (existsSync(path)) checkHeader(path, migrations.length)
  else create(path, migrations)
  const checked = checkReadOnly(path)
  accessSync(path, constants.W_OK)
  const database = new DatabaseSync(path, { timeout: LOCK_TIMEOUT, defensive: true })
  try {
    database.exec(`
      PRAGMA locking_mode = EXCLUSIVE;
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = FULL;
      PRAGMA mmap_size = 0;
      PRAGMA cache_size = -1024;
      PRAGMA temp_store = MEMORY;
      PRAGMA wal_autocheckpoint = 1000;
      PRAGMA journal_size_limit = 4194304;
      BEGIN IMMEDIATE; ROLLBACK;
    `)
    // What the read-only connection left: nobody needs it while we hold the lock, and it is made anew from the log.
    rmSync(`${path}-shm`, { force: true })
    if (!checked) quickCheck(database)
    // The header on disk must show the new version at once, so that an older program sees it before it opens the log.
    if (migrate(database, migrations) > 0) database.exec("PRAGMA wal_checkpoint(TRUNCATE)")
    return database
  } catch (error) {
    database.close()
    throw error
  }
}
