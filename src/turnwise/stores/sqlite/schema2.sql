-- The tables of versions 1 and 2: a file of version 1 becomes one of version 2 before it is moved on.

-- migration: 1
-- session: one row a conversation, small and rewritten by every act; `state` is apart from it
-- because it may be large. head: the first unfinished turn. running: the turn under claim, 0 for
-- a hold, NULL for none. ready_at: since when the head waits for a worker (NULL: nothing to
-- claim). owner: the process that holds the lease. keeper: the worker that holds this session's `local`. floor: events up to it are gone.
CREATE TABLE session (
    id TEXT PRIMARY KEY,
    name TEXT,
    metadata BLOB NOT NULL,
    created_at REAL NOT NULL,
    ttl REAL NOT NULL,
    expires_at REAL NOT NULL,
    generation INTEGER NOT NULL,
    last_event INTEGER NOT NULL DEFAULT 0,
    floor INTEGER NOT NULL DEFAULT 0,
    last_turn INTEGER NOT NULL DEFAULT 0,
    base_turn INTEGER NOT NULL DEFAULT 0,
    last_seq INTEGER NOT NULL DEFAULT 0,
    base_seq INTEGER NOT NULL DEFAULT 0,
    open INTEGER NOT NULL DEFAULT 0,
    head INTEGER NOT NULL DEFAULT 1,
    running INTEGER,
    token TEXT,
    lease_until REAL,
    ready_at REAL,
    keeper TEXT,
    reserved_until REAL NOT NULL DEFAULT 0,
    owner INTEGER
) WITHOUT ROWID;
CREATE INDEX session_ready ON session (ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX session_lease ON session (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX session_expiry ON session (expires_at);
CREATE TABLE state (session TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
-- turn: `message` is kept here while the turn is open or when it was withdrawn; a finished turn
-- has its question at `seq` of message and its `replies` behind it. stop: someone asked to cancel.
-- first_event, started_event: the numbers of its turn.queued and its latest turn.started.
CREATE TABLE turn (
    session TEXT NOT NULL,
    n INTEGER NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    stop INTEGER NOT NULL DEFAULT 0,
    message BLOB,
    seq INTEGER,
    replies INTEGER NOT NULL DEFAULT 0,
    error BLOB,
    usage BLOB,
    key TEXT,
    fingerprint TEXT,
    queued_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    first_event INTEGER NOT NULL,
    started_event INTEGER,
    PRIMARY KEY (session, n)
) WITHOUT ROWID;
CREATE UNIQUE INDEX turn_key ON turn (session, key) WHERE key IS NOT NULL;
CREATE TABLE message (
    session TEXT NOT NULL,
    seq INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (session, seq)
) WITHOUT ROWID;
-- event: `pos` is the order of commits over all sessions, by which each process follows what the
-- others wrote; it is never reused. origin: the process that wrote it.
CREATE TABLE event (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL,
    id INTEGER NOT NULL,
    turn INTEGER,
    type TEXT NOT NULL,
    tail BLOB NOT NULL,
    at REAL NOT NULL,
    origin INTEGER NOT NULL
);
CREATE UNIQUE INDEX event_log ON event (session, id);
-- signal: what other processes must hear and no log holds; kept for a minute.
CREATE TABLE signal (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    session TEXT NOT NULL,
    turn INTEGER NOT NULL,
    at REAL NOT NULL,
    origin INTEGER NOT NULL
);
CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- migration: 2
-- entry: the log, a row for all events that one act appended to a session, `last` the number of
-- its last. It takes the place of event, a row for each. body: see pack in events.py.
CREATE TABLE entry (
    pos INTEGER PRIMARY KEY AUTOINCREMENT,
    session TEXT NOT NULL,
    last INTEGER NOT NULL,
    body BLOB NOT NULL,
    at REAL NOT NULL,
    origin INTEGER NOT NULL
);
CREATE UNIQUE INDEX entry_log ON entry (session, last);
INSERT INTO entry (pos, session, last, body, at, origin)
    SELECT pos, session, id,
        CAST(type || char(31) || coalesce(turn, '') || char(31) || tail AS BLOB), at, origin
    FROM event;
DROP TABLE event;

