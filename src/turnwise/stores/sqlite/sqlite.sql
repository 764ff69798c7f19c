-- The SQLite store: its schema, one migration after another, and its statements by name.
-- Every statement runs inside one BEGIN IMMEDIATE ... COMMIT of engine.py, composed into
-- acts by acts.py. Times are seconds since 1970.

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

-- name: session
SELECT * FROM session WHERE id = ?;
-- name: sessions
SELECT * FROM session WHERE id > ? AND (expires_at > ? OR open > 0) ORDER BY id LIMIT ?;
-- name: create
INSERT INTO session (id, name, metadata, created_at, ttl, expires_at, generation)
    VALUES (?, ?, ?, ?, ?, ?, ?);
-- name: save
UPDATE session SET last_event = ?, last_turn = ?, last_seq = ?, open = ?, head = ?, running = ?,
    token = ?, lease_until = ?, ready_at = ?, keeper = ?, reserved_until = ?,
    owner = ? WHERE id = ?;
-- name: save_expiry
UPDATE session SET expires_at = ? WHERE id = ?;
-- name: save_events
UPDATE session SET last_event = ? WHERE id = ?;
-- name: save_lease
UPDATE session SET lease_until = ? WHERE id = ?;
-- name: describe
UPDATE session SET name = ?, metadata = ?, ttl = ?, expires_at = ? WHERE id = ?;
-- name: save_generation
UPDATE session SET generation = ? WHERE id = ?;
-- name: save_bases
UPDATE session SET base_turn = ?, base_seq = ?, floor = ? WHERE id = ?;
-- name: save_floor
UPDATE session SET floor = ? WHERE id = ?;
-- name: unkeep
UPDATE session SET keeper = NULL WHERE id = ? AND keeper = ?;
-- name: expired
SELECT id FROM session WHERE expires_at <= ? AND open = 0 AND token IS NULL LIMIT ?;
-- name: delete_session
DELETE FROM session WHERE id = ?;

-- name: state
SELECT data FROM state WHERE session = ?;
-- name: save_state
INSERT OR REPLACE INTO state (session, data) VALUES (?, ?);
-- name: delete_state
DELETE FROM state WHERE session = ?;

-- name: submit
INSERT INTO turn (session, n, status, message, key, fingerprint, queued_at, first_event)
    VALUES (?, ?, 'queued', ?, ?, ?, ?, ?);
-- name: submit_started
INSERT INTO turn (session, n, status, attempt, message, key, fingerprint, queued_at, started_at,
    first_event, started_event) VALUES (?, ?, 'running', 1, ?, ?, ?, ?, ?, ?, ?);
-- name: turn
SELECT * FROM turn WHERE session = ? AND n = ?;
-- name: turn_by_key
SELECT * FROM turn WHERE session = ? AND key = ?;
-- name: next_turn
SELECT * FROM turn WHERE session = ? AND n >= ? AND status = 'queued' ORDER BY n LIMIT 1;
-- name: open_turns
SELECT * FROM turn WHERE session = ? AND n >= ? AND status IN ('queued', 'running') ORDER BY n;
-- name: ahead
SELECT count(*) FROM turn WHERE session = ? AND n >= ? AND n < ?
    AND status IN ('queued', 'running');
-- name: turns_before
SELECT * FROM turn WHERE session = ? AND n > ? AND n < ? AND (? IS NULL OR status = ?)
    AND NOT (message IS NULL AND seq IS NULL) ORDER BY n DESC LIMIT ?;
-- name: turns_after
SELECT * FROM turn WHERE session = ? AND n > ? AND n < ? AND (? IS NULL OR status = ?)
    AND NOT (message IS NULL AND seq IS NULL) ORDER BY n LIMIT ?;
-- name: start_turn
UPDATE turn SET status = 'running', attempt = ?, started_at = ?, started_event = ?
    WHERE session = ? AND n = ?;
-- name: requeue_turn
UPDATE turn SET status = 'queued', attempt = ? WHERE session = ? AND n = ?;
-- name: stop_turn
UPDATE turn SET stop = 1 WHERE session = ? AND n = ?;
-- name: withdraw_turn
UPDATE turn SET status = 'cancelled', finished_at = ? WHERE session = ? AND n = ?;
-- name: finish_turn
UPDATE turn SET status = ?, message = NULL, seq = ?, replies = ?, error = ?, usage = ?,
    finished_at = ? WHERE session = ? AND n = ?;
-- name: forget_turns
DELETE FROM turn WHERE session = ? AND key IS NULL AND n < ?;
-- name: blank_turns
-- What an idempotency key stands for outlives a reset, and that a turn was open and is cancelled;
-- what was said does not.
UPDATE turn SET message = NULL, seq = NULL, replies = 0, error = NULL, usage = NULL
    WHERE session = ?;
-- name: delete_turns
DELETE FROM turn WHERE session = ?;

-- name: add_message
INSERT INTO message (session, seq, turn, body) VALUES (?, ?, ?, ?);
-- name: messages_between
SELECT seq, turn, body FROM message WHERE session = ? AND seq BETWEEN ? AND ? ORDER BY seq;
-- name: messages_before
SELECT seq, turn, body FROM message WHERE session = ? AND seq < ? ORDER BY seq DESC LIMIT ?;
-- name: messages_after
SELECT seq, turn, body FROM message WHERE session = ? AND seq > ? ORDER BY seq LIMIT ?;
-- name: delete_messages
DELETE FROM message WHERE session = ?;

-- name: add_entry
INSERT INTO entry (session, last, body, at, origin) VALUES (?, ?, ?, ?, ?);
-- name: log
SELECT last, body FROM entry WHERE session = ? AND last > ? ORDER BY last;
-- name: oldest_entries
SELECT pos, session, last, at FROM entry WHERE pos > ? ORDER BY pos LIMIT ?;
-- name: trim_entries
DELETE FROM entry WHERE session = ? AND last <= ?;
-- name: delete_entries
DELETE FROM entry WHERE session = ?;

-- name: add_signal
INSERT INTO signal (kind, session, turn, at, origin) VALUES (?, ?, ?, ?, ?);
-- name: delete_signals
DELETE FROM signal WHERE at < ?;

-- name: tail_position
-- The last position ever given out: it goes down only where a file was restored from a backup.
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entry'), 0);
-- name: tail_signal_position
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'signal'), 0);
-- name: tail_entries
SELECT pos, session, last, body FROM entry WHERE pos > ? AND origin <> ?
    ORDER BY pos LIMIT ?;
-- name: tail_signals
SELECT pos, kind, session, turn FROM signal WHERE pos > ? AND origin <> ? ORDER BY pos LIMIT ?;

-- name: ready
-- First come, first served over all sessions. A session someone keeps is left to its keeper for
-- a moment; a session someone wants to hold is left alone until then.
SELECT id FROM session WHERE ready_at IS NOT NULL AND reserved_until <= ?
    AND (keeper IS NULL OR keeper = ? OR ready_at <= ?) ORDER BY ready_at LIMIT ?;
-- name: waiting
SELECT count(*) FROM session WHERE ready_at IS NOT NULL;
-- name: lapsed
SELECT id FROM session WHERE lease_until <= ? LIMIT 100;
-- name: owners
SELECT DISTINCT owner FROM session WHERE lease_until IS NOT NULL;
-- name: orphans
SELECT id FROM session WHERE lease_until IS NOT NULL AND owner = ? LIMIT 100;

-- name: fact
SELECT value FROM fact WHERE name = ?;
-- name: add_fact
INSERT OR IGNORE INTO fact (name, value) VALUES (?, ?);
-- name: save_fact
INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?);
