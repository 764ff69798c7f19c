-- The SQLite store's tables, version 3. stores/rows.py says what a header and an entry are.
-- Times are seconds since 1970.

-- header: one row a session, small and rewritten by every act; `body` is opaque here. The columns
-- beside it are what sessions are found by: see Index in stores/rows.py. origin: the process that
-- holds the claim. horizon: the newest event that retention has removed. `num` is never reused.
CREATE TABLE header (
    num INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    body BLOB NOT NULL,
    ready REAL,
    keeper TEXT,
    lease REAL,
    origin INTEGER,
    expires REAL NOT NULL,
    horizon INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX header_id ON header (id);
CREATE INDEX header_ready ON header (ready) WHERE ready IS NOT NULL;
CREATE INDEX header_lease ON header (lease) WHERE lease IS NOT NULL;
CREATE INDEX header_expires ON header (expires);

-- entry: appended only. `pos` is the order of commits over all sessions, by which each process
-- follows what the others wrote; it is never reused. origin: the process that wrote it.
CREATE TABLE entry (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    num INTEGER NOT NULL,
    last INTEGER NOT NULL,
    kind TEXT NOT NULL,
    turn INTEGER,
    seq INTEGER,
    at REAL,
    origin INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX entry_log ON entry (num, last);
CREATE INDEX entry_turn ON entry (num, turn) WHERE turn IS NOT NULL;
CREATE INDEX entry_live ON entry (at) WHERE at IS NOT NULL;

CREATE TABLE key (
    num INTEGER NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (num, key)
) WITHOUT ROWID;
-- state: a row for each change; the session's current one has the number that its header names.
CREATE TABLE state (
    num INTEGER NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (num, number)
);
CREATE TABLE part (
    num INTEGER NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (num, name)
);
-- erasing: what is still to be removed, in slices: a session's entries up to this event, or all of
-- a session that was deleted (NULL).
CREATE TABLE erasing (num INTEGER PRIMARY KEY, last INTEGER);
-- signal: what other processes must hear and no entry tells; kept for a minute.
CREATE TABLE signal (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    session TEXT NOT NULL,
    turn INTEGER NOT NULL,
    at REAL NOT NULL,
    origin INTEGER NOT NULL
);
CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
