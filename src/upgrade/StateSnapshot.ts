/**
 * The state as it was before a brain on trial brings it to a newer layout, which the brain before it could not read: copied
 * before the trial opens the database, put back when the trial is lost, removed when it is won.
 *
 * What the lost one wrote in the seconds of its trial is not thrown away: it is set aside in `state-given-up`, and the tree says
 * so. A trial with the same layout needs none of this and loses nothing.
 *
 * Traps: only while nobody has the database open. Each step can be done again after a power cut at any moment; who puts back
 * notes that in the record first.
 */
import {
  closeSync,
  copyFileSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync
} from "node:fs"
import { dirname, join } from "node:path"

const nameOf = (database: string): string => join(dirname(database), "state-before-trial")
const asideOf = (database: string): string => join(dirname(database), "state-given-up")
const setAsideOf = (database: string): string => `${asideOf(database)}.new`

const syncPath = (path: string): void => {
  const opened = openSync(path, "r")
  try {
    fsyncSync(opened)
  } finally {
    closeSync(opened)
  }
}

const copy = (from: string, to: string): void => {
  copyFileSync(from, to)
  syncPath(to)
}

/** The layout of a database (SQLite's `user_version`); undefined where there is none. */
export const layoutOf = (database: string): number | undefined => {
  if (!existsSync(database)) return undefined
  const header = Buffer.alloc(64)
  const opened = openSync(database, "r")
  try {
    return readSync(opened, header, 0, 64, 0) === 64 ? header.readUInt32BE(60) : undefined
  } finally {
    closeSync(opened)
  }
}

/** A copy with its log, there as a whole or not at all. */
const copyTo = (database: string, target: string): void => {
  const making = `${target}.making`
  rmSync(making, { recursive: true, force: true })
  mkdirSync(making, { mode: 0o700 })
  for (const suffix of ["", "-wal"]) {
    if (existsSync(database + suffix)) copy(database + suffix, join(making, `state.db${suffix}`))
  }
  syncPath(making)
  renameSync(making, target)
  syncPath(dirname(database))
}

/** Copies the database, unless there is a copy: then the trial before this one of the same brain has made it. */
export const take = (database: string): void => {
  const snapshot = nameOf(database)
  if (existsSync(snapshot)) return
  // what an earlier one was set aside in, should a power cut have come between
  rmSync(setAsideOf(database), { recursive: true, force: true })
  copyTo(database, snapshot)
}

/** Puts the copy back, if there is one; whether there was. */
export const restore = (database: string): boolean => {
  const snapshot = nameOf(database)
  if (!existsSync(join(snapshot, "state.db"))) return false
  const setAside = setAsideOf(database)
  if (!existsSync(setAside)) copyTo(database, setAside)
  for (const suffix of ["-wal", "-shm"]) rmSync(database + suffix, { force: true })
  copy(join(snapshot, "state.db"), `${database}.back`)
  renameSync(`${database}.back`, database)
  const log = join(snapshot, "state.db-wal")
  if (existsSync(log)) copy(log, `${database}-wal`)
  syncPath(dirname(database))
  rmSync(snapshot, { recursive: true })
  rmSync(asideOf(database), { recursive: true, force: true })
  renameSync(setAside, asideOf(database))
  syncPath(dirname(database))
  return true
}

/** The trial is won. */
export const drop = (database: string): void => rmSync(nameOf(database), { recursive: true, force: true })
