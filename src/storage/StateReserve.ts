/**
 * Room that the state database keeps for itself, so that on a full disk what lets go (a stop, a removal) can still be
 * committed. Runs in the worker thread; synchronous.
 *
 * The reserve lies inside of SQLite's own files: free pages in the database, and a write-ahead log that has been that long
 * before. A commit that no longer fits behind the others in the log goes to its beginning, once the checkpoint has moved these
 * into pages that the database has already; neither takes a byte from the disk. A file kept aside and deleted on ENOSPC would
 * be simpler to see, but whoever fills the disk (a container that writes without end) takes its room in the moment between.
 *
 * While the disk is short the database may not grow, nothing new is recorded, and the journal has only the first half.
 *
 * Traps:
 * - The log is deleted when the database is closed in order, and made long again a moment after the next start: a start on a
 *   full disk after such an end has only half a reserve. Who filled the disk has mostly ended by then, too.
 * - File systems that never write in place (btrfs, ZFS) need room for every commit whatever is reserved.
 */
import { statfsSync, statSync } from "node:fs"
import { dirname } from "node:path"
import type { DatabaseSync, StatementSync } from "node:sqlite"

const PAGE = 4_096

/** Pages of the reserve: a mebibyte, on a small disk a 32nd of it. */
const MOST_PAGES = 256
const SHARE = 32

/** A disk with less than so many bytes left may be full within a second. */
const CRAMPED = 1024 ** 3

/** SQLite's own limit. */
const NO_LIMIT = 4_294_967_294

export class StateReserve {
  readonly #database: DatabaseSync
  readonly #path: string
  readonly #freePages: StatementSync
  readonly #pages: number
  #short = false
  #logIsLong = false

  constructor(database: DatabaseSync, path: string) {
    this.#database = database
    this.#path = path
    this.#freePages = database.prepare("PRAGMA freelist_count")
    const { blocks, bsize } = statfsSync(dirname(path))
    this.#pages = Math.max(1, Math.min(MOST_PAGES, Math.floor((blocks * bsize) / SHARE / PAGE)))
    this.look()
  }

  /** Whether the disk has less left than the reserve is worth. As of the last `look`. */
  get isShort(): boolean {
    return this.#short
  }

  /** Whether the reserve cannot wait: somebody may have filled the disk before it is made. */
  get isUrgent(): boolean {
    return !this.#logIsLong && this.#left() < CRAMPED
  }

  /** Whether more than half of the reserve is used up. */
  get isLow(): boolean {
    return Number(this.#freePages.get()?.["freelist_count"] ?? 0) < this.#pages / 2
  }

  /** Before each commit: looks at the disk. */
  look(): void {
    const short = this.#left() < this.#pages * PAGE
    if (short === this.#short) return
    this.#short = short
    // a limit below what there is means: no more than there is
    this.#database.exec(`PRAGMA max_page_count = ${short ? 1 : NO_LIMIT}`)
  }

  /** Has the log begin anew. Whether that worked: then what did not fit may. */
  rewind(): boolean {
    try {
      return this.#database.prepare("PRAGMA wal_checkpoint(PASSIVE)").get()?.["busy"] === 0
    } catch {
      return false
    }
  }

  /** Fills the reserve up where it is low and the disk has plenty. */
  keep(): void {
    if ((this.#logIsLong && !this.isLow) || this.#left() < 4 * this.#pages * PAGE) return
    try {
      // What is freed before it was written takes no room on the disk: hence three steps.
      this.#database.exec(`
        BEGIN IMMEDIATE;
        DROP TABLE IF EXISTS reserve;
        CREATE TABLE reserve (room BLOB);
        INSERT INTO reserve VALUES (zeroblob(${this.#pages * PAGE}));
        COMMIT;
        PRAGMA wal_checkpoint(PASSIVE);
        DROP TABLE reserve;
      `)
      this.#logIsLong = statSync(`${this.#path}-wal`).size >= this.#pages * PAGE
    } catch {
      // The disk has filled up, or does worse, which the next commit tells; a table that was left is dropped the next time.
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK")
    }
  }

  #left(): number {
    const { bavail, bsize } = statfsSync(dirname(this.#path))
    return bavail * bsize
  }
}
