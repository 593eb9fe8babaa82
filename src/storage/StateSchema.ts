/**
 * The layout of the state database: how a file is known to be ours, and the steps from each version to the next.
 *
 * A change of the layout is a new string at the end of `MIGRATIONS`, never a change of an old one. `user_version` is the
 * number of steps that a file has seen; each runs in a transaction together with its number.
 */

/** `application_id` of our databases: "IRWD". */
export const APPLICATION_ID = 0x49525744

export const MIGRATIONS: ReadonlyArray<string> = [
  `
  CREATE TABLE record (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    generation INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, name)
  ) STRICT;

  CREATE TABLE request (
    id TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    outcome TEXT NOT NULL,
    at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX request_by_age ON request (at);

  CREATE TABLE journal_node (
    path TEXT NOT NULL PRIMARY KEY,
    touched INTEGER NOT NULL UNIQUE,
    value TEXT NOT NULL
  ) STRICT;

  CREATE TABLE journal_entry (
    sequence INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    value TEXT NOT NULL
  ) STRICT;
  CREATE INDEX journal_entry_by_path ON journal_entry (path, sequence);

  CREATE TABLE journal_revision (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    reserved INTEGER NOT NULL
  ) STRICT;
  INSERT INTO journal_revision VALUES (1, 0);
  `
]
